"""Add changes to the stored totals, one statement a table."""

from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import AddTo
from app.summaries.fold import Change
from app.summaries.tables import MEASURES, HourDimension, HourTotal, PeriodTotal

add_periods = AddTo(
    table_of(PeriodTotal), ("user_id", "period_start", "provider", "model"), MEASURES
)
add_hours = AddTo(
    table_of(HourTotal), ("user_id", "hour", "provider", "model", "task_type"), MEASURES
)
add_dimensions = AddTo(table_of(HourDimension), ("shard", "hour", "dimension", "value"), MEASURES)


async def apply(tx: Tx, change: Change, shard: int) -> None:
    """Grow the totals. `shard` is the writer's number: two writers never share a cross-user row."""
    await add_periods(tx, [(*key, *total) for key, total in change.periods.items()])
    await add_hours(tx, [(*key, *total) for key, total in change.hours.items()])
    await add_dimensions(tx, [(shard, *key, *total) for key, total in change.dimensions.items()])
