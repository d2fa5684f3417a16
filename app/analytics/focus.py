"""Usage as FOCUS 1.2 has it, the FinOps Open Cost and Usage Specification: one row an hour.

Rows are made of the totals by user, hour, model and task, so that they sum to what `usage` tells,
archived calls included. What a later billing period corrected is told apart, as a `Correction`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, NamedTuple

import msgspec

from app.core.clock import hour_of
from app.plans.known import Agreement
from app.plans.periods import Period
from app.summaries.fold import measures_of
from app.summaries.grains import HOUR
from app.summaries.sums import NONE, Sums
from app.usage.ledger import Entry
from app.usage.sheets import PRICE_PLACES, Column

NOT_SAID = "unspecified"
"""Who provided a service that the caller did not name; the column may not be null."""
_PRECISE = Context(prec=60)
_SMALLEST = Decimal(1).scaleb(-PRICE_PLACES)

COLUMNS = (
    Column("BilledCost", "usd"),
    Column("BillingAccountId", "text"),
    Column("BillingAccountName", "text"),
    Column("BillingAccountType", "text"),
    Column("BillingCurrency", "text"),
    Column("BillingPeriodEnd", "instant"),
    Column("BillingPeriodStart", "instant"),
    Column("ChargeCategory", "text"),
    Column("ChargeClass", "text"),
    Column("ChargeDescription", "text"),
    Column("ChargeFrequency", "text"),
    Column("ChargePeriodEnd", "instant"),
    Column("ChargePeriodStart", "instant"),
    Column("ConsumedQuantity", "count"),
    Column("ConsumedUnit", "text"),
    Column("ContractedCost", "usd"),
    Column("ContractedUnitPrice", "price"),
    Column("EffectiveCost", "usd"),
    Column("InvoiceIssuerName", "text"),
    Column("ListCost", "usd"),
    Column("ListUnitPrice", "price"),
    Column("PricingCategory", "text"),
    Column("PricingQuantity", "count"),
    Column("PricingUnit", "text"),
    Column("ProviderName", "text"),
    Column("PublisherName", "text"),
    Column("ResourceId", "text"),
    Column("ServiceCategory", "text"),
    Column("ServiceName", "text"),
    Column("ServiceSubcategory", "text"),
    Column("SkuId", "text"),
    Column("SkuPriceId", "text"),
    Column("SubAccountId", "text"),
    Column("Tags", "pairs"),
    Column("x_CacheReadTokens", "count"),
    Column("x_CacheWriteTokens", "count"),
    Column("x_Calls", "count"),
    Column("x_Errors", "count"),
    Column("x_InputTokens", "count"),
    Column("x_OutputTokens", "count"),
    Column("x_Requests", "count"),
    Column("x_UnpricedCalls", "count"),
)


class Kind(NamedTuple):
    """What the totals keep apart within one user: an hour, a model and a kind of task."""

    hour: datetime
    provider: str
    model: str
    task_type: str


class Late(NamedTuple):
    """One half of a correction, as the log keeps it: made at `recorded_at`, added `sign` times."""

    sign: int
    entry: Entry


class Charge(NamedTuple):
    """A row: what was used, in which billing period it is charged, and whether it corrects."""

    user_id: str
    kind: Kind
    sums: Sums
    period: Period
    corrects: bool


def charges_of(
    user_id: str, totals: Mapping[Kind, Sums], changes: Iterable[Late], agreement: Agreement
) -> list[Charge]:
    """The charges of some totals; together they are these totals, whatever was corrected. Pure.

    A correction that was made in the billing period of its event is part of that event's charge;
    one that was made later is a charge of its own, in the period in which it was made.
    """
    later: dict[Kind, dict[Period, Sums]] = {}
    for change in changes:
        entry = change.entry
        kind = Kind(hour_of(entry.timestamp), entry.provider, entry.model, entry.task_type or "")
        made_in = agreement.period_at(entry.recorded_at)
        if kind in totals and made_in.start > agreement.period_at(kind.hour).start:
            periods = later.setdefault(kind, {})
            periods[made_in] = periods.get(made_in, NONE) + _signed(entry, change.sign)
    found = []
    for kind, sums in totals.items():
        corrected = later.get(kind, {})
        own = sum((_times(more, -1) for more in corrected.values()), sums)
        found.append(Charge(user_id, kind, own, agreement.period_at(kind.hour), False))
        found += [Charge(user_id, kind, more, made_in, True) for made_in, more in corrected.items()]
    return found


def _signed(entry: Entry, sign: int) -> Sums:
    amounts = [0] * len(NONE)
    for place, amount in measures_of(entry):
        amounts[place] += sign * amount
    return Sums(*amounts)


def _times(sums: Sums, factor: int) -> Sums:
    return Sums(*(factor * amount for amount in sums))


def row_of(charge: Charge, issuer: str | None) -> tuple[Any, ...]:
    """A charge in the order of `COLUMNS`. Pure."""
    kind, sums = charge.kind, charge.sums
    provider = kind.provider or NOT_SAID
    service = kind.model or provider
    sku = f"{provider}/{kind.model}" if kind.model else provider
    quantity, unit = (sums.tokens, "Tokens") if sums.tokens else (sums.calls, "Requests")
    price = None if charge.corrects else unit_price(sums.cost_nanos, quantity)
    cost = sums.cost_nanos
    return (
        cost,
        charge.user_id,
        charge.user_id,
        "User",
        "USD",
        charge.period.end,
        charge.period.start,
        "Usage",
        "Correction" if charge.corrects else None,
        _description(charge, service),
        "Usage-Based",
        kind.hour + HOUR,
        kind.hour,
        quantity,
        unit,
        cost,
        price,
        cost,
        issuer or provider,
        cost,
        price,
        "Standard",
        quantity,
        unit,
        provider,
        provider,
        sku,
        "AI and Machine Learning",
        service,
        "Generative AI",
        sku,
        sku,
        None,
        _tags(kind),
        sums.cache_read_tokens,
        sums.cache_write_tokens,
        sums.calls,
        sums.errors,
        sums.input_tokens,
        sums.output_tokens,
        sums.requests,
        sums.unpriced_calls,
    )


def unit_price(cost_nanos: int, quantity: int) -> Decimal | None:
    """The mean price of one unit, so fine that times the quantity it is the cost again. Pure.

    None where nothing was used and yet something was charged.
    """
    if not quantity:
        return None if cost_nanos else Decimal(0)
    usd = Decimal(cost_nanos).scaleb(-9)
    return _PRECISE.divide(usd, Decimal(quantity)).quantize(_SMALLEST, context=_PRECISE)


def _description(charge: Charge, service: str) -> str:
    what = "Correction of calls" if charge.corrects else "Calls"
    task = f" for {charge.kind.task_type}" if charge.kind.task_type else ""
    return f"{what} to {service}{task}"


def _tags(kind: Kind) -> str:
    tags = {"task_type": kind.task_type} if kind.task_type else {}
    return msgspec.json.encode(tags).decode()


def rows_of(charges: Sequence[Charge], issuer: str | None) -> list[tuple[Any, ...]]:
    """The rows of these charges."""
    return [row_of(charge, issuer) for charge in charges]
