"""Which price of an entry holds at an instant, for a call made under some conditions."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from functools import lru_cache
from typing import NamedTuple

from app.core.counters import COUNTERS
from app.pricing.leaves import Rate, Rates, flat
from app.pricing.rates import Price, compile_price

ALWAYS = datetime.min.replace(tzinfo=UTC)
MIDNIGHT = time(0)
Condition = tuple[str, str]

NEUTRAL = frozenset({"", "standard", "default", "auto", "on_demand", "none", "normal"}) | {
    "online",
    "realtime",
    "global",
    "not_available",
}
"""Values that ask for nothing special: `auto` is a request setting, not a billed tier."""
PRICED_CONDITIONS = ("service_tier", "processing", "speed", "inference_geo", "region")
"""Conditions that move prices at some provider; unanswered by an entry, they make a guess of it."""
SEARCH_CONTEXT = "search_context_size"
LISTED_SEARCH_CONTEXT = "high"
"""The list has one fee per request where there are three by search context: the highest."""


class Dated(NamedTuple):
    """Rates from a date on, or within a daily window of UTC time, or always."""

    rates: Rates
    start: datetime | None = None
    window: tuple[time, time] | None = None

    def holds(self, at: datetime) -> bool:
        """Whether they apply at an instant in UTC; a window may pass midnight."""
        if self.start is not None:
            return at >= self.start
        if self.window is None:
            return True
        begin, end = self.window
        clock = at.time()
        if end < begin:
            return clock >= begin or clock < end
        return begin <= clock < end


class Variant(NamedTuple):
    """Rates that replace the standard ones, counter by counter, under some conditions."""

    when: frozenset[Condition]
    dated: Dated


class Period(NamedTuple):
    """A price and when it holds: `start <= t < end`, and each day within `begin <= t < until`.

    `until` is midnight for a day's last stretch; `sure` is false where a condition of the call
    moves prices and the entry does not say how.
    """

    start: datetime
    end: datetime | None
    begin: time
    until: time
    price: Price | None
    sure: bool


class Schedule:
    """An entry's prices over time for one set of conditions."""

    __slots__ = ("_days", "_starts", "only")

    def __init__(self, days: list[tuple[datetime, list[Period]]]) -> None:
        self._starts = tuple(start for start, _ in days)
        self._days = tuple(
            (tuple(period.begin for period in periods), tuple(periods)) for _, periods in days
        )
        single = len(days) == 1 and len(days[0][1]) == 1
        self.only = days[0][1][0] if single else None

    def at(self, moment: datetime) -> Period:
        """The period an aware instant falls in."""
        begins, periods = self._days[bisect_right(self._starts, moment) - 1]
        if len(periods) == 1:
            return periods[0]
        return periods[bisect_right(begins, moment.astimezone(UTC).time()) - 1]


class Entry:
    """What a catalogue says about one model of one provider."""

    __slots__ = ("_schedules", "least", "model", "name", "provider", "ref", "standard", "variants")

    def __init__(
        self,
        provider: str,
        model: str,
        name: str,
        ref: str,
        standard: tuple[Dated, ...],
        variants: tuple[Variant, ...] = (),
        least: Mapping[str, int] | None = None,
    ) -> None:
        self.provider, self.model, self.name, self.ref = provider, model, name, ref
        self.standard, self.variants, self.least = standard, variants, least
        self._schedules: dict[tuple[frozenset[Condition], bool], Schedule] = {}

    def schedule(self, context: Mapping[str, str] | None, foreign: bool = False) -> Schedule:
        """The prices over time under these conditions, compiled at most once.

        A foreign entry was borrowed from another provider, whose variants do not carry over. The
        number of schedules kept is bounded by the entry's own variants.
        """
        conditions = frozenset(_conditions(context or {}))
        own: set[Condition] = set()
        if not foreign:
            own = {pair for variant in self.variants for pair in variant.when} & conditions
        unanswered = any(
            key in PRICED_CONDITIONS and value not in NEUTRAL for key, value in conditions - own
        )
        if any("requests" in dated.rates for dated in self.standard):
            unanswered |= (SEARCH_CONTEXT, LISTED_SEARCH_CONTEXT) not in conditions
        key = (frozenset(own), unanswered)
        if key not in self._schedules:
            self._schedules[key] = self._compile(frozenset(own), not unanswered)
        return self._schedules[key]

    def _compile(self, own: frozenset[Condition], sure: bool) -> Schedule:
        variants = [variant for variant in self.variants if variant.when <= own]
        every = (*self.standard, *(variant.dated for variant in variants))
        starts = sorted({ALWAYS} | {dated.start for dated in every if dated.start is not None})
        clocks = {MIDNIGHT} | {clock for dated in every for clock in dated.window or ()}
        begins = sorted(clocks)
        days = []
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            periods: list[Period] = []
            for begin, until in zip(begins, [*begins[1:], MIDNIGHT], strict=True):
                probe = datetime.combine(start.date(), begin, tzinfo=UTC)
                price, answered = self._price_at(probe, variants, own)
                if periods and periods[-1].price is price:
                    periods[-1] = periods[-1]._replace(until=until)
                    continue
                periods.append(Period(start, end, begin, until, price, sure and answered))
            days.append((start, periods))
        return Schedule(days)

    def _price_at(
        self, at: datetime, variants: list[Variant], own: frozenset[Condition]
    ) -> tuple[Price | None, bool]:
        """The last standard rates that hold, each one replaced by the first variant that has it."""
        holding = [dated for dated in self.standard if dated.holds(at)]
        standard = holding[-1] if holding else self.standard[0]
        rates, answered, where = dict(standard.rates), set[Condition](), self.ref
        if standard.start is not None:
            where += f" from={standard.start:%Y-%m-%d}"
        if standard.window is not None:
            where += f" window={standard.window[0]:%H:%M}-{standard.window[1]:%H:%M}"
        replaced: set[str] = set()
        for variant in variants:
            if not variant.dated.holds(at):
                continue
            answered |= variant.when
            for counter, rate in variant.dated.rates.items():
                if counter not in replaced:
                    replaced.add(counter)
                    rates[counter] = rate
        wanted = {(key, value) for key, value in own if value not in NEUTRAL}
        for key, value in sorted(answered & wanted):
            where += f" {key}={value}"
        price = _compiled(where, tuple(rates.items()), tuple((self.least or {}).items()))
        return price, wanted <= answered


def free_of_charge() -> Rates:
    """Rates of zero for everything: known to be free, which is not the same as unknown."""
    return {name: flat(0, 1) for name in COUNTERS if name != "requests"}


def conditions_of(context: Mapping[str, str]) -> Mapping[str, str]:
    """Conditions as price lists spell them: lower case, and `batch` is a kind of processing."""
    plain = {key: value.strip().lower() for key, value in context.items()}
    if plain.get("service_tier") == "batch":
        plain = {**plain, "processing": "batch", "service_tier": "standard"}
    return plain


def _conditions(context: Mapping[str, str]) -> Iterable[Condition]:
    return conditions_of(context).items()


@lru_cache(maxsize=64)
def _compiled(
    where: str, rates: tuple[tuple[str, Rate], ...], least: tuple[tuple[str, int], ...]
) -> Price | None:
    """One object for the same price; neighbouring stretches of a day are joined by identity."""
    return compile_price(dict(rates), where, dict(least)) if rates else None
