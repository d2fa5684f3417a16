"""Several snapshots as one page in the text formats of Prometheus and OpenMetrics."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from app.metrics.kinds import Counts, Family, Labels, Level, Snapshot, Spread

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_JOINS: Mapping[str, Callable[[Iterable[tuple[float, float]]], float]] = {
    "sum": lambda found: sum(value for value, _ in found),
    "min": lambda found: min(value for value, _ in found),
    "max": lambda found: max(value for value, _ in found),
    "latest": lambda found: max(found, key=lambda one: one[1])[0],
}


def wants_open_metrics(accept: str) -> bool:
    """Whether this `Accept` header asks for OpenMetrics."""
    kinds = (one.split(";")[0].strip().lower() for one in accept.split(","))
    return "application/openmetrics-text" in kinds


def page(families: Sequence[Family], snapshots: Sequence[Snapshot], *, open_metrics: bool) -> bytes:
    """Every family with the figures of all snapshots joined; one that has none is left out."""
    from prometheus_client import exposition  # noqa: PLC0415  (where nobody scrapes, no need)
    from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415

    shown: Any = _Shown(families, snapshots)
    write = openmetrics.generate_latest if open_metrics else exposition.generate_latest
    return write(shown)


class _Shown:
    """What the writers of prometheus-client take for a registry."""

    def __init__(self, families: Sequence[Family], snapshots: Sequence[Snapshot]) -> None:
        self._families, self._snapshots = families, snapshots

    def collect(self) -> Iterator["Metric"]:
        for family in self._families:
            rows: dict[Labels, list[Any]] = {}
            for snapshot in self._snapshots:
                for labels, value in snapshot.get(family.name, ()):
                    rows.setdefault(labels, []).append(value)
            if rows:
                yield _metric(family, rows)


def _metric(family: Family, rows: Mapping[Labels, Sequence[Any]]) -> "Metric":
    from prometheus_client.core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    if isinstance(family, Counts):
        counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for labels, found in sorted(rows.items()):
            counter.add_metric(labels, sum(found) / family.per)
        return counter
    if isinstance(family, Level):
        gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        for labels, found in sorted(rows.items()):
            gauge.add_metric(labels, _JOINS[family.joined](found))
        return gauge
    spread = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, found in sorted(rows.items()):
        *counted, total = map(sum, zip(*found, strict=True))
        spread.add_metric(labels, _buckets(family, counted), total)
    return spread


def _buckets(family: Spread, counted: Sequence[float]) -> list[tuple[str, float]]:
    """How many values are up to each bound, as the format wants them."""
    bounds = [*(str(float(bound)) for bound in family.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counted), strict=True))
