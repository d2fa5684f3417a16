"""What a price list says, as plain values: rows of rates, and the models that they belong to."""

from datetime import datetime, time
from typing import NamedTuple

from app.pricing.leaves import Rate

Condition = tuple[str, str]
PER_MILLION = 1_000_000


class PriceRow(NamedTuple):
    """Rates, when they hold, and under which conditions of a call.

    `start <= t < end`, and within it on `weekdays` (0 is Monday; none named: every day) in
    `windows` of UTC time (none: all day; one may pass midnight). A row without rates changes those
    of the others by its `multiplier_ppm`. `min_charge_nanos` is the least that a call with any
    usage costs, `least` the smallest billed amount of a counter that is used at all. `source` says
    where the figures are from.
    """

    id: str
    rates: tuple[tuple[str, Rate], ...]
    when: tuple[Condition, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    windows: tuple[tuple[time, time], ...] = ()
    weekdays: tuple[int, ...] = ()
    multiplier_ppm: int = PER_MILLION
    min_charge_nanos: int = 0
    least: tuple[tuple[str, int], ...] = ()
    source: str = ""


class Listing(NamedTuple):
    """One model of one provider in one layer: its spellings and its rows.

    `names` are whole spellings in lower case; each of `patterns` is regular expressions that all
    have to be found. Of the rows without conditions the last that holds applies; those with
    conditions replace its rates counter by counter, the first that names a counter winning.
    """

    layer: str
    provider: str
    model: str
    name: str
    names: tuple[str, ...]
    patterns: tuple[tuple[str, ...], ...]
    rows: tuple[PriceRow, ...]


class Provider(NamedTuple):
    """A provider, whose models it also serves, and how its models are recognised by name alone."""

    id: str
    lends: tuple[str, ...]
    names: tuple[str, ...]
    patterns: tuple[tuple[str, ...], ...]


class PriceList(NamedTuple):
    """Everything that one version of the catalogue says, best layer first."""

    version: str
    providers: tuple[Provider, ...]
    listings: tuple[Listing, ...]


class Override(NamedTuple):
    """A price that an operator states: for one user, for one team, or for everyone.

    It stands in for the whole entry: nothing of the catalogue is mixed in. `provider` and `model`
    may be `*`. With `default` it applies only where nothing else does, and marks an estimate.
    """

    row: PriceRow
    provider: str
    model: str
    match: str = "exact"
    user_id: str | None = None
    team_id: str | None = None
    default: bool = False
    created_at: datetime | None = None


class Alias(NamedTuple):
    """An operator's name for a model; without a model it is the provider's default model."""

    id: str
    provider: str
    model: str | None
    resolves_to: str
