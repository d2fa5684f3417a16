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
    of the others for tokens by its `multiplier_ppm`. `min_charge_nanos` is the least that a call
    with any usage costs, `least` the smallest billed amount of a counter that is used at all
    (durations in microseconds). `source` says where the figures are from.

    An `id` is unique in its list and has neither `+` nor blanks: quotes cite rows by it.
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
    conditions replace its rates counter by counter, those with more conditions before those with
    fewer and then the first that names a counter winning.

    A condition of the call that moves prices and that no row answers makes a guess of the quote, so
    the conditions of a default (`size` 1024x1024, `quality` standard) want a row of their own too.

    One that `adds` is no price by itself. Its rows join those of every listing, of whichever layer,
    that answers for the same provider and spelling: rates without conditions only where that
    listing has none for the counter (a missing cache or search rate), rates with conditions instead
    of its standard ones, multipliers (an uplift) unless the listing answers their conditions with
    rates of its own. A row that has conditions but no multiplier and no rates answers them: they
    change nothing.

    In the layer `default` the model is `*`: what a provider charges for what nobody lists by name.
    It stands behind all other layers and its quotes are estimates.
    """

    layer: str
    provider: str
    model: str
    name: str
    names: tuple[str, ...]
    patterns: tuple[tuple[str, ...], ...]
    rows: tuple[PriceRow, ...]
    adds: bool = False


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
