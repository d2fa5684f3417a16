"""What the service counts of what it records, a few additions a batch."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from operator import itemgetter

from app.db.engine import Tx
from app.metrics.figures import Figures
from app.metrics.names import CALLS, COST, FAILED_CALLS, TOKENS, UNPRICED_CALLS
from app.pricing.known import Prices
from app.summaries.fold import SEPARATOR, Change
from app.summaries.tables import MEASURES
from app.usage.ledger import Logged

RECORDED, DUPLICATE, REJECTED = "recorded", "duplicate", "rejected"
_OUTCOMES = {RECORDED: RECORDED, DUPLICATE: DUPLICATE}
_PLACE = {name: place for place, name in enumerate(MEASURES)}
_TOKENS = [
    (place, name.removesuffix("_tokens"))
    for name, place in _PLACE.items()
    if name.endswith("_tokens")
]
_SUMS = [
    (_PLACE["calls"], CALLS),
    (_PLACE["errors"], FAILED_CALLS),
    (_PLACE["unpriced_calls"], UNPRICED_CALLS),
    (_PLACE["cost_nanos"], COST),
]
_status_of = itemgetter(0)


def note_change(tx: Tx, change: Change, prices: Prices) -> None:
    """Have the figures grow by what a batch adds to the totals, once that is durable."""
    found: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for (_, dimension, value), total in change.dimensions.items():
        if dimension != "model":
            continue
        provider = prices.label_of(value.partition(SEPARATOR)[0])
        for place, name in _SUMS:
            if total[place]:
                found[name, provider] += total[place]
        for place, kind in _TOKENS:
            if total[place]:
                found[TOKENS, provider, kind] += total[place]
    for labels, by in found.items():
        tx.note(*labels, by=by)


def count_logged(figures: Figures, door: str, logged: Sequence[Logged]) -> None:
    """Count what became of the events of one submission."""
    if len(logged) == 1:
        figures.events.values[door, _OUTCOMES.get(logged[0][0], REJECTED)] += 1
        return
    count_statuses(figures, door, Counter(map(_status_of, logged)).items())


def count_statuses(figures: Figures, door: str, counted: Iterable[tuple[str, int]]) -> None:
    """Count events by the statuses of `Logged`, or `rejected`."""
    for status, count in counted:
        if count:
            figures.events.add(door, _OUTCOMES.get(status, REJECTED), by=count)
