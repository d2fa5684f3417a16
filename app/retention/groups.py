"""What was wrapped of one user, for those who read the log."""

from sqlalchemy import ColumnElement, and_, or_, select

from app.core.clock import hour_of
from app.core.counters import COLUMNS
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.retention.evidence import entry_of_wrapped
from app.retention.group_sums import as_they_stand
from app.retention.store import ArchiveStore
from app.summaries.tables import WrappedUsage
from app.usage.ledger import Entry
from app.usage.pages import GroupPlace
from app.usage.read import Place, Wanted
from app.usage.wrapped import Group

_row = table_of(WrappedUsage).c
_BEFORE_USAGE = Group._fields.index("usage")
_columns = (
    *(_row[name] for name in Group._fields[:_BEFORE_USAGE]),
    *(_row[name] for name in COLUMNS),
    *(_row[name] for name in Group._fields[_BEFORE_USAGE + 1 :]),
)
_SAME = ("provider", "model", "endpoint", "team_id", "task_type")


class WrappedLog:
    """Groups of wrapped calls, and the rows that lie in archives."""

    def __init__(self, db: Database, store: ArchiveStore) -> None:
        self._db, self._store = db, store

    async def groups(
        self, tx: Tx, user_id: str, wanted: Wanted, after: Place | None, limit: int
    ) -> list[Group]:
        """The user's groups whose last call lies behind `after`, newest first, as they stand.

        None where a session or a tag is asked for: groups do not tell these apart.
        """
        if wanted.session_id is not None or wanted.tags:
            return []
        conditions = [_row.user_id == user_id, *_conditions(wanted)]
        if after is not None:
            conditions += _behind(after)
        order = (_row.hour, _row.last_at, _row.archive_id, _row.group_no)
        newest_first = [column.desc() for column in order]
        query = select(*_columns).where(*conditions).order_by(*newest_first).limit(limit)
        found = [_group(list(row)) for row in await tx.fetch(query)]
        return await as_they_stand(tx, user_id, found)

    async def entry(self, user_id: str, event_id: str) -> Entry | None:
        """The row of a wrapped event, from its archive.

        Raises:
            Damaged, Unavailable: the archive cannot be read.
        """
        return await entry_of_wrapped(self._db, self._store, user_id, event_id)


def _group(values: list[object]) -> Group:
    end = _BEFORE_USAGE + len(COLUMNS)
    usage = tuple(values[_BEFORE_USAGE:end])
    return Group._make((*values[:_BEFORE_USAGE], usage, *values[end:]))


def _behind(after: Place) -> list[ColumnElement[bool]]:
    place = GroupPlace.of(after)
    found: list[ColumnElement[bool]] = [_row.hour <= hour_of(after.at)]
    if place is None:  # of one instant events come first, then groups
        return [*found, _row.last_at <= after.at]
    next_number = and_(_row.archive_id == place.archive_id, _row.group_no < place.group_no)
    same = and_(_row.last_at == after.at, or_(_row.archive_id < place.archive_id, next_number))
    return [*found, or_(_row.last_at < after.at, same)]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.start is not None:
        found += [_row.hour >= hour_of(wanted.start), _row.last_at >= wanted.start]
    if wanted.end is not None:
        found += [_row.hour <= hour_of(wanted.end), _row.last_at < wanted.end]
    if wanted.failed is not None:
        found.append(_row.status_code >= 400 if wanted.failed else _row.status_code < 400)
    for name in _SAME:
        value = getattr(wanted, name)
        if value is not None:
            found.append(_row[name] == value)
    return found
