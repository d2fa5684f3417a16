"""A user's events as the dashboard shows them: a page of the log, and the whole story of one."""

from collections.abc import Sequence
from typing import NamedTuple

from app.analytics.usage import agreed
from app.core.counters import as_mapping
from app.core.errors import Damaged, NotFound, Unavailable
from app.db.engine import Database, Tx
from app.pricing.catalog import Catalog
from app.usage.corrections import Correction, corrected, is_voided, shown
from app.usage.explain import VOIDED, Account, account_of
from app.usage.history import CorrectionOut, history_out
from app.usage.ledger import Entry, usage_of
from app.usage.pages import WrappedLog, list_items
from app.usage.read import Place, Wanted, get_event
from app.usage.wrapped import Group, WrappedRow, find_wrapped
from app.usage.wrapped_stands import charge_of, standing_of

PAGE = 50


class EventRow(NamedTuple):
    """An event as it stands after its corrections; `corrections` counts these."""

    entry: Entry
    voided: bool
    corrections: int

    @property
    def tokens(self) -> int:
        return self.entry.input_tokens + self.entry.output_tokens


class GroupRow(NamedTuple):
    """Calls that were wrapped together, in the place of their rows."""

    group: Group

    @property
    def usage(self) -> dict[str, int | float]:
        return as_mapping(self.group.usage)

    @property
    def tokens(self) -> int:
        usage = self.usage
        return int(usage["input_tokens"] + usage["output_tokens"])

    @property
    def cost_nanos(self) -> int | None:
        """The cost of those that have a price; None where none has."""
        return self.group.known_cost_nanos


async def read_events(
    tx: Tx, user_id: str, wanted: Wanted, after: Place | None, size: int, wrapped: WrappedLog
) -> tuple[list[EventRow | GroupRow], Place | None]:
    """A page of the user's events and wrapped groups, newest first, and where it ends."""
    page, end = await list_items(tx, user_id, wanted, after, size, wrapped)
    known = await corrected(tx, [one[:2] for one in page if isinstance(one, Entry)])
    rows: list[EventRow | GroupRow] = []
    for one in page:
        if isinstance(one, Group):
            rows.append(GroupRow(one))
            continue
        corrections = known.get(one[:2], ())
        times = sum(row.sign < 0 for row in corrections)
        rows.append(EventRow(shown(one, corrections) or one, is_voided(corrections), times))
    return rows, end


class Story(NamedTuple):
    """One event: as it stands, how it came to its cost, and what was corrected.

    `entry` is None where it was wrapped and its archive cannot be read; `left` then still tells
    when it was and what it costs. `late` says that it came after its billing period had ended.
    """

    entry: Entry | None
    left: WrappedRow | None
    account: Account
    history: Sequence[CorrectionOut]
    voided: bool
    billing_period: str
    late: bool

    @property
    def usage(self) -> dict[str, int | float]:
        return {} if self.entry is None else as_mapping(usage_of(self.entry))


async def read_story(
    db: Database, user_id: str, event_id: str, catalog: Catalog, wrapped: WrappedLog
) -> Story:
    """The event under that id, from the log or from its archive.

    Raises:
        NotFound: this user has none.
    """
    key = (user_id, event_id)

    async def work(tx: Tx) -> Story | WrappedRow:
        try:
            return await _story(tx, await get_event(tx, *key), None, catalog)
        except NotFound:
            left = await find_wrapped(tx, [key])
            if key not in left:
                raise
            return left[key]

    found = await db.read(work)
    if isinstance(found, Story):
        return found
    left = found
    try:
        row = await wrapped.entry(user_id, event_id)
    except (Damaged, Unavailable):
        row = None
    if row is not None:
        entry = row
        return await db.read(lambda tx: _story(tx, entry, left, catalog))
    return await db.read(lambda tx: _unreadable(tx, user_id, event_id, left))


async def _story(tx: Tx, logged: Entry, left: WrappedRow | None, catalog: Catalog) -> Story:
    corrections: Sequence[Correction] = (await corrected(tx, [logged[:2]])).get(logged[:2], ())
    entry, voided = shown(logged, corrections) or logged, is_voided(corrections)
    account = VOIDED if voided else await account_of(tx, entry, catalog)
    period = (await agreed(tx, logged.user_id)).period_at(entry.timestamp)
    late = entry.recorded_at >= period.end
    return Story(entry, left, account, history_out(corrections), voided, period.key, late)


async def _unreadable(tx: Tx, user_id: str, event_id: str, left: WrappedRow) -> Story:
    corrections = (await corrected(tx, [(user_id, event_id)])).get((user_id, event_id), ())
    stands = standing_of(left, None, corrections)
    at = left.timestamp if stands is None else stands.timestamp
    period = (await agreed(tx, user_id)).period_at(at)
    account = Account((), "", "its row lies in an archive that cannot be read now")
    late, voided = left.recorded_at >= period.end, is_voided(corrections)
    left = left._replace(**charge_of(left, corrections)._asdict())
    return Story(stands, left, account, history_out(corrections), voided, period.key, late)
