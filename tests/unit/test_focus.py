"""Charges in the columns of FOCUS 1.2: what must be there, and that nothing is lost."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.focus import COLUMNS, Charge, Kind, Late, charges_of, row_of, unit_price
from app.core.counters import NOTHING
from app.plans.known import agreement_of
from app.plans.periods import calendar_months
from app.summaries.sums import NONE, Sums
from app.usage.ledger import Entry

MANDATORY = {
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency"),
    *("BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass"),
    *("ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost"),
    *("EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit"),
    *("ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
}
MAY_BE_NULL = {"ChargeClass", "ListUnitPrice", "ContractedUnitPrice", "SubAccountId"}
HOUR = datetime(2026, 10, 20, 12, tzinfo=UTC)
KIND = Kind(HOUR, "openai", "gpt-4o", "chat")
AGREEMENT = agreement_of([calendar_months("plan")])


def entry(cost: int, recorded_at: datetime) -> Entry:
    moment = HOUR + timedelta(minutes=5)
    named: dict[str, Any] = dict.fromkeys(Entry._fields)
    named |= dict(zip(Entry._fields[11 : 11 + len(NOTHING)], NOTHING, strict=True))
    named |= {
        "user_id": "alice",
        "event_id": "e",
        "timestamp": moment,
        "recorded_at": recorded_at,
        "body_hash": 0,
        "provider": "openai",
        "model": "gpt-4o",
        "status_code": 200,
        "cost_nanos": cost,
        "cost_status": "priced",
        "price_ref": "",
        "input_tokens": 10,
        "task_type": "chat",
    }
    return Entry(**named)


def row(charge: Charge) -> dict[str, Any]:
    return dict(zip((one.name for one in COLUMNS), row_of(charge, None), strict=True))


def charge(**measures: int) -> Charge:
    sums = NONE._replace(**measures)
    return Charge("alice", KIND, sums, AGREEMENT.period_at(HOUR), False)


def test_every_mandatory_column_is_there_and_filled() -> None:
    names = [one.name for one in COLUMNS]
    assert set(names) >= MANDATORY
    assert len(names) == len(set(names))
    assert [name for name in names if not name.startswith("x_")] == sorted(
        name for name in names if not name.startswith("x_")
    )
    shown = row(charge(calls=2, input_tokens=7, cost_nanos=11))
    assert {name for name, value in shown.items() if value is None} <= MAY_BE_NULL
    for kind in (KIND, Kind(HOUR, "", "", "")):
        bare = row(charge(calls=1)._replace(kind=kind))
        assert {name for name, value in bare.items() if value is None} <= MAY_BE_NULL
    assert shown["ChargePeriodEnd"] - shown["ChargePeriodStart"] == timedelta(hours=1)
    assert shown["BillingPeriodStart"] == datetime(2026, 10, 1, tzinfo=UTC)
    assert shown["ServiceCategory"] == "AI and Machine Learning"


@given(cost=st.integers(0, 10**15), quantity=st.integers(1, 10**10))
def test_a_unit_price_times_the_quantity_is_the_cost(cost: int, quantity: int) -> None:
    price = unit_price(cost, quantity)
    assert price is not None
    assert round(price * quantity, 9) == Decimal(cost).scaleb(-9)


def test_what_was_not_counted_in_tokens_is_priced_by_requests() -> None:
    shown = row(charge(calls=3, requests=3, cost_nanos=30))
    assert (shown["PricingUnit"], shown["PricingQuantity"]) == ("Requests", 3)
    assert shown["ListUnitPrice"] == Decimal(10).scaleb(-9)


def totals(nanos: int) -> dict[Kind, Sums]:
    return {KIND: NONE._replace(calls=1, input_tokens=10, cost_nanos=nanos)}


@pytest.mark.parametrize(
    ("made", "classes"),
    [
        (datetime(2026, 10, 25, tzinfo=UTC), [None]),
        (datetime(2026, 11, 2, tzinfo=UTC), [None, "Correction"]),
    ],
)
def test_a_correction_of_an_earlier_period_is_told_apart(
    made: datetime, classes: list[str | None]
) -> None:
    """A call of 100 nano-dollars that was corrected to 60."""
    changes = [Late(-1, entry(100, made)), Late(1, entry(60, made))]
    found = charges_of("alice", totals(60), changes, AGREEMENT)
    rows = [row(one) for one in found]
    assert [one["ChargeClass"] for one in rows] == classes
    assert sum(one["BilledCost"] for one in rows) == 60
    assert sum(one["x_Calls"] for one in rows) == 1
    assert rows[0]["BilledCost"] == (60 if len(classes) == 1 else 100)
    if len(classes) == 2:
        assert rows[1]["BilledCost"] == -40
        assert rows[1]["ListUnitPrice"] is None
        assert rows[1]["BillingPeriodStart"] == datetime(2026, 11, 1, tzinfo=UTC)
        assert rows[1]["ChargePeriodStart"] == HOUR


@given(
    changes=st.lists(
        st.tuples(st.sampled_from([-1, 1]), st.integers(0, 1000), st.integers(0, 60)), max_size=8
    )
)
def test_the_charges_are_the_totals_whatever_was_corrected(
    changes: list[tuple[int, int, int]],
) -> None:
    late = [Late(sign, entry(cost, HOUR + timedelta(days=days))) for sign, cost, days in changes]
    found = charges_of("alice", totals(500), late, AGREEMENT)
    assert sum((one.sums for one in found), NONE) == totals(500)[KIND]
