"""Prices as people state them, judged before anything is stored. Pure.

Every refusal names its place; all that is wrong with a price is told at once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import lcm
from typing import NamedTuple

from app.core.counters import INDEX, MAX_COUNT, MICROS_PER_SECOND, SECONDS
from app.core.errors import InvalidInput
from app.core.money import CEILING, from_usd
from app.pricing.expressions import complaint_about
from app.pricing.leaves import Rate, Step
from app.pricing.names import provider_id
from app.pricing.rows import PER_MILLION, Override, PriceRow

LARGEST_BLOCK = 10**12
MOST_TIERS = 64
LARGEST_MULTIPLIER = 1_000
ANY = "*"


class TierSaid(NamedTuple):
    """The rate up to a size, the last one without an end."""

    up_to: int | None
    usd: str
    per: int


class RateSaid(NamedTuple):
    """One rate for every size (`usd`, `per`), or one for each tier (`mode`, `tiers`)."""

    usd: str | None = None
    per: int | None = None
    mode: str | None = None
    tiers: tuple[TierSaid, ...] | None = None


class PriceSaid(NamedTuple):
    """A price in the words of the API."""

    provider: str
    model: str
    rates: Mapping[str, RateSaid]
    match: str = "exact"
    user_id: str | None = None
    team_id: str | None = None
    effective_from: datetime | None = None
    effective_to: datetime | None = None
    context: Mapping[str, str] = {}
    multiplier: str | None = None
    min_charge_usd: str | None = None
    min_quantity: Mapping[str, float] = {}
    default: bool = False
    source: str = ""


Refuse = Callable[[str, str], None]


def override_from(said: PriceSaid) -> Override:
    """The price as the catalogue takes it; it has no id and no date of its own yet.

    Raises:
        InvalidInput: `errors` names everything that is wrong.
    """
    wrong: list[dict[str, str]] = []

    def refuse(pointer: str, detail: str) -> None:
        wrong.append({"pointer": pointer, "detail": detail})

    _judge(said, refuse)
    rates = tuple(
        (counter, rate)
        for counter, each in said.rates.items()
        if (rate := _rate(each, f"/rates/{escaped(counter)}", refuse)) is not None
    )
    row = PriceRow(
        "",
        rates,
        when=tuple(sorted((key, value.strip().lower()) for key, value in said.context.items())),
        start=said.effective_from,
        end=said.effective_to,
        multiplier_ppm=_millionths(said.multiplier, refuse),
        min_charge_nanos=_nanos(said.min_charge_usd or "0", "/min_charge_usd", refuse),
        least=tuple(sorted(_least(said.min_quantity, refuse))),
        source=said.source,
    )
    raise_if(wrong)
    model = said.model.strip()
    return Override(
        row,
        said.provider if said.provider == ANY else provider_id(said.provider),
        model if said.match == "regex" else model.lower(),
        said.match,
        said.user_id,
        said.team_id,
        said.default,
    )


def raise_if(wrong: Sequence[Mapping[str, str]]) -> None:
    """Refuse the request if anything is wrong with it."""
    if wrong:
        detail = f"{wrong[0]['pointer'].lstrip('/')}: {wrong[0]['detail']}"
        raise InvalidInput(detail, errors=list(wrong[:50]))


def escaped(name: str) -> str:
    """A name as a step of a JSON pointer."""
    return name[:64].replace("~", "~0").replace("/", "~1")


def _judge(said: PriceSaid, refuse: Refuse) -> None:
    if not said.provider.strip():
        refuse("/provider", "must not be blank")
    if not said.model.strip():
        refuse("/model", "must not be blank")
    if said.user_id is not None and said.team_id is not None:
        refuse("/team_id", "a price is for one user, for one team, or for everyone")
    if said.model == ANY and said.match != "exact":
        refuse("/match", "`*` is every model already")
    if said.match == "regex" and (why := complaint_about(said.model)):
        refuse("/model", why)
    start, end = said.effective_from, said.effective_to
    if start is not None and end is not None and end <= start:
        refuse("/effective_to", "must be after effective_from")
    if not said.rates:
        refuse("/rates", "a price needs at least one rate")
    for key, value in said.context.items():
        if not key.strip() or not value.strip():
            refuse(f"/context/{escaped(key)}", "must not be blank")
    for counter in said.rates:
        if counter not in INDEX:
            refuse(f"/rates/{escaped(counter)}", "unknown counter")


def _rate(said: RateSaid, pointer: str, refuse: Refuse) -> Rate | None:
    if said.tiers is None:
        if said.mode is not None:
            refuse(f"{pointer}/mode", "needs `tiers`")
        tiers: Sequence[TierSaid] = ()
        if said.usd is None:
            refuse(f"{pointer}/usd", "this field is required")
        elif said.per is None:
            refuse(f"{pointer}/per", "this field is required")
        else:
            tiers = [TierSaid(None, said.usd, said.per)]
        places = [pointer]
    else:
        for name, value in (("usd", said.usd), ("per", said.per)):
            if value is not None:
                refuse(f"{pointer}/{name}", "belongs into each tier")
        tiers = said.tiers
        places = [f"{pointer}/tiers/{place}" for place in range(len(tiers))]
        _judge_tiers(tiers, pointer, refuse)
    if not tiers:
        return None
    amounts = [
        _nanos(tier.usd, f"{where}/usd", refuse) for tier, where in zip(tiers, places, strict=True)
    ]
    for tier, where in zip(tiers, places, strict=True):
        if not 1 <= tier.per <= LARGEST_BLOCK:
            refuse(f"{where}/per", "a block is of 1 to 10^12 units")
            return None
    per = lcm(*(tier.per for tier in tiers))
    scaled = [amount * (per // tier.per) for tier, amount in zip(tiers, amounts, strict=True)]
    if per > LARGEST_BLOCK or max(scaled) > CEILING:
        refuse(f"{pointer}/tiers", "these blocks have no common one that could be kept")
        return None
    starts = [-1, *(tier.up_to or 0 for tier in tiers[:-1])]
    steps = tuple(Step(above, nanos) for above, nanos in zip(starts, scaled, strict=True))
    return Rate(per, steps, said.mode == "graduated")


def _judge_tiers(tiers: Sequence[TierSaid], pointer: str, refuse: Refuse) -> None:
    if not 1 <= len(tiers) <= MOST_TIERS:
        refuse(f"{pointer}/tiers", f"1 to {MOST_TIERS} tiers")
        return
    before = 0
    for place, tier in enumerate(tiers[:-1]):
        where = f"{pointer}/tiers/{place}/up_to"
        if tier.up_to is None:
            refuse(where, "only the last tier has no end")
        elif not before < tier.up_to <= MAX_COUNT:
            refuse(where, "must be more than that of the tier before")
        before = tier.up_to or before
    if tiers[-1].up_to is not None:
        refuse(f"{pointer}/tiers/{len(tiers) - 1}/up_to", "must be null in the last tier")


def _nanos(usd: str, pointer: str, refuse: Refuse) -> int:
    try:
        nanos = from_usd(usd)
    except ValueError as error:
        refuse(pointer, str(error))
        return 0
    if nanos < 0:
        refuse(pointer, "a price is not negative")
        return 0
    return nanos


def _millionths(multiplier: str | None, refuse: Refuse) -> int:
    if multiplier is None:
        return PER_MILLION
    try:
        billionths = from_usd(multiplier)
    except ValueError:
        refuse("/multiplier", 'a decimal string is expected, such as "1.2"')
        return PER_MILLION
    millionths, rest = divmod(billionths, 1_000)
    if rest:
        refuse("/multiplier", "a multiplier has six decimal places at most")
    elif not 0 < millionths <= LARGEST_MULTIPLIER * PER_MILLION:
        refuse("/multiplier", f"must be more than 0 and at most {LARGEST_MULTIPLIER}")
    return millionths


def _least(said: Mapping[str, float], refuse: Refuse) -> list[tuple[str, int]]:
    found = []
    for counter, least in said.items():
        pointer = f"/min_quantity/{escaped(counter)}"
        scale = MICROS_PER_SECOND if counter in SECONDS else 1
        if counter not in INDEX:
            refuse(pointer, "unknown counter")
        elif not 0 < least <= 10**9 or least * scale != int(least * scale):
            refuse(pointer, "a whole number (seconds: six decimals) up to 10^9 is expected")
        else:
            found.append((counter, int(least * scale)))
    return found
