"""What the API answers about a billing period as it was known at an instant."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select

from app.analytics.usage import (
    SinceOut,
    UsageOut,
    UsagePeriodOut,
    agreed,
    no_such_period,
    providers_out,
)
from app.core.errors import Conflict, Damaged, InvalidInput
from app.core.money import to_usd
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.plans.periods import Period
from app.retention.store import ArchiveStore
from app.retention.tables import Archive
from app.summaries.as_of import Known, Missing, used_as_of
from app.summaries.trends import NONE_USED, find_period
from app.usage.ledger import Entry

MOST_FILES = 100
ATTEMPTS = 4
_archive = table_of(Archive).c


async def read_as_of(
    db: Database, store: ArchiveStore, user_id: str, key: str | None, at: datetime, now: datetime
) -> UsageOut:
    """A period as it was known at an instant; how limits stood then is not told.

    Raises:
        InvalidInput: the user has no such period, or it would take too many archives to tell.
        Conflict: an archive that it takes is damaged.
        Unavailable: an archive cannot be read now.
    """
    wrapped: dict[str, Collection[Entry]] = {}
    for _ in range(ATTEMPTS):

        async def work(tx: Tx) -> tuple[Period, Known | Missing]:
            agreement = await agreed(tx, user_id)
            period = agreement.period_at(now) if key is None else find_period(agreement, key)
            if period is None:
                raise no_such_period()
            return period, await used_as_of(tx, user_id, period, at, wrapped)  # noqa: B023

        period, found = await db.read(work)
        if isinstance(found, Known):
            return _out(period, found, at)
        wrapped = await _rows_in(db, store, user_id, found.archive_ids)
    raise Conflict("archives changed while they were read; ask again")


async def _rows_in(
    db: Database, store: ArchiveStore, user_id: str, archive_ids: Collection[str]
) -> dict[str, Collection[Entry]]:
    if len(archive_ids) > MOST_FILES:
        detail = f"as_of: this would take reading more than {MOST_FILES} archives"
        raise InvalidInput.at("/as_of", detail)
    query = select(_archive.id, _archive.path, _archive.sha256)
    query = query.where(_archive.id.in_(sorted(archive_ids)))
    found: dict[str, Collection[Entry]] = {}
    for archive_id, path, sha256 in await db.read(lambda tx: tx.fetch(query)):
        try:
            rows = await store.read(path, sha256)
        except Damaged:
            raise Conflict(
                "what was recorded after that instant lies in an archive that cannot be read",
                archive_id=archive_id,
            ) from None
        found[archive_id] = [row for row in rows if row.user_id == user_id]
    return found


def _out(period: Period, known: Known, at: datetime) -> UsageOut:
    total = sum(known.models.values(), NONE_USED)
    since = known.since
    return UsageOut(
        billing_period=UsagePeriodOut(**period._asdict()),
        usage_status=None,
        total_calls=total.calls,
        total_tokens=total.tokens,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        total_cost_usd=to_usd(total.cost_nanos),
        avg_latency_ms=total.avg_latency_ms,
        error_rate=total.error_rate,
        providers=providers_out(known.models),
        limits=None,
        usage_percentages=None,
        alerts=None,
        last_updated=None,
        unpriced_calls=total.unpriced_calls,
        as_of=at,
        changed_since=SinceOut(
            calls=since.calls,
            cost_usd=to_usd(since.cost_nanos),
            corrections=since.corrections,
            corrections_cost_usd=to_usd(since.corrected_nanos),
            rerated_cost_usd=to_usd(since.rerated_nanos),
        ),
    )
