"""Rows of a price list: when they hold, what they multiply, what they charge at least."""

from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

import pytest

from app.pricing.catalog import Catalog
from app.pricing.leaves import Rate, Step, flat
from app.pricing.quote import explain, explain_rows, rows_of
from app.pricing.rows import Override, PriceRow
from tests.unit.priced import listing, price_list, row, usage

AT = datetime(2026, 11, 18, 12, tzinfo=UTC)
MILLION = usage(input_tokens=1_000_000)
PEAKS = ((time(1), time(4)), (time(6), time(10)))
WORKDAYS = (0, 1, 2, 3, 4)


def catalog(*rows: PriceRow, model: str = "chat", **rest: Any) -> Catalog:
    return Catalog(price_list(listing(model, *rows, **rest)))


def dollars(catalog: Catalog, at: datetime, context: dict[str, str] | None = None) -> float | None:
    cost = catalog.quote("acme", "chat", at, MILLION, context).cost_nanos
    return None if cost is None else cost / 10**9


@pytest.mark.parametrize(
    ("at", "paid"),
    [
        ("2026-11-18T00:59:59.999999+00:00", 1),
        ("2026-11-18T01:00:00+00:00", 2),
        ("2026-11-18T03:59:59+00:00", 2),
        ("2026-11-18T04:00:00+00:00", 1),
        ("2026-11-18T09:59:59+00:00", 2),
        ("2026-11-18T10:00:00+00:00", 1),
        ("2026-11-18T10:30:00+08:00", 2),
        ("2026-11-21T07:00:00+00:00", 1),
        ("2026-11-22T07:00:00+00:00", 1),
        ("2026-11-23T07:00:00+00:00", 2),
        ("2026-08-17T07:00:00+00:00", 0.5),
        ("2026-08-17T15:59:59+00:00", 0.5),
        ("2026-08-17T16:00:00+00:00", 1),
        ("2026-08-18T06:00:00+00:00", 2),
    ],
)
def test_dates_weekdays_and_hours_hold_together_to_the_second(at: str, paid: float) -> None:
    begin = datetime(2026, 8, 17, 16, tzinfo=UTC)
    prices = catalog(
        row("flat", {"input_tokens": "0.5"}, end=begin),
        row("calm", {"input_tokens": "1"}, start=begin),
        row("peak", {"input_tokens": "2"}, start=begin, windows=PEAKS, weekdays=WORKDAYS),
    )
    assert dollars(prices, datetime.fromisoformat(at)) == paid


def test_a_window_may_pass_midnight_and_a_day_is_that_of_the_instant() -> None:
    prices = catalog(
        row("day", {"input_tokens": "2"}),
        row("night", {"input_tokens": "1"}, windows=((time(22), time(2)),), weekdays=(0,)),
    )
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    assert dollars(prices, monday + timedelta(hours=1)) == 1
    assert dollars(prices, monday + timedelta(hours=23)) == 1
    assert dollars(prices, monday + timedelta(hours=25)) == 2
    east = timezone(timedelta(hours=9))
    assert dollars(prices, (monday + timedelta(hours=1)).astimezone(east)) == 1


def test_outside_every_row_there_is_no_price() -> None:
    start, end = AT, AT + timedelta(seconds=1)
    prices = catalog(row("second", {"input_tokens": "1"}, start=start, end=end))
    assert dollars(prices, start) == 1
    assert dollars(prices, end) is None
    assert dollars(prices, start - timedelta(microseconds=1)) is None
    assert explain(prices, "acme", "chat", end, MILLION).why == "acme/chat lists no rate"


def test_an_uplift_multiplies_tokens_exactly_and_nothing_else() -> None:
    prices = catalog(
        row("base", {"input_tokens": "0.15", "web_searches": "0.01"}),
        PriceRow("us", (), (("inference_geo", "us"),), multiplier_ppm=1_100_000),
    )
    call = usage(input_tokens=1_000_001, web_searches=2)
    here = prices.quote("acme", "chat", AT, call, {"inference_geo": "US"})
    assert here == (165_000_165 + 20_000_000, "priced", "base+us")
    assert prices.quote("acme", "chat", AT, call).price_ref == "base"
    assert prices.quote("acme", "chat", AT, call, {"inference_geo": "eu"}).status == "estimated"
    lines = explain(prices, "acme", "chat", AT, call, {"inference_geo": "us"}).lines
    assert [(line.unit, line.usd, line.block, line.row) for line in lines] == [
        ("input_uncached_text", "0.165", 1_000_000, "base+us"),
        ("web_search", "0.01", 1, "base"),
    ]


def test_a_multiplier_of_a_third_of_a_nano_dollar_is_rounded_once() -> None:
    rates = (("input_tokens", flat(1, 1_000_000)),)
    prices = catalog(PriceRow("odd", rates, multiplier_ppm=333_333))
    paid = prices.quote("acme", "chat", AT, usage(input_tokens=3_000_000)).cost_nanos
    assert paid == 1
    exact = Rate(1_000_000 * 1_000_000, (Step(-1, 333_333),))
    assert flat(1, 1_000_000).times(333_333) == exact
    assert flat(2_500_000_000, 1_000_000).times(1_100_000) == flat(2_750_000_000, 1_000_000)


def test_a_minimum_is_charged_for_any_usage_but_none() -> None:
    prices = catalog(row("base", {"input_tokens": "2.5"}, min_charge_nanos=100_000))
    assert prices.quote("acme", "chat", AT, usage(input_tokens=1)).cost_nanos == 100_000
    assert prices.quote("acme", "chat", AT, usage(input_tokens=100)).cost_nanos == 250_000
    assert prices.quote("acme", "chat", AT, usage()) == (0, "priced", "base")
    lines = explain(prices, "acme", "chat", AT, usage(input_tokens=1)).lines
    assert [(line.unit, line.amount_nanos) for line in lines] == [
        ("input_uncached_text", 2_500),
        ("minimum_charge", 97_500),
    ]


def test_a_graduated_rate_charges_each_part_at_its_own() -> None:
    steps = (Step(-1, 3), Step(10, 2), Step(20, 1))
    prices = catalog(PriceRow("steps", (("input_tokens", Rate(1, steps, graduated=True)),)))
    costs = {
        count: prices.quote("acme", "chat", AT, usage(input_tokens=count)).cost_nanos
        for count in (0, 1, 10, 11, 20, 21)
    }
    assert costs == {0: 0, 1: 3, 10: 30, 11: 32, 20: 50, 21: 51}
    lines = explain(prices, "acme", "chat", AT, usage(input_tokens=21)).lines
    assert [(line.quantity, line.amount_nanos) for line in lines] == [(10, 30), (10, 20), (1, 1)]


@pytest.mark.parametrize(
    ("count", "cost"), [(1, 10), (1_000, 10_000), (1_001, 5_005), (5_000, 25_000)]
)
def test_steps_of_what_is_no_token_are_judged_by_its_own_quantity(count: int, cost: int) -> None:
    images = Rate(1, (Step(-1, 10), Step(1_000, 5)))
    prices = catalog(PriceRow("draw", (("output_images", images),)))
    assert prices.quote("acme", "chat", AT, usage(output_images=count)).cost_nanos == cost


def test_steps_of_seconds_are_in_seconds() -> None:
    rate = Rate(1, (Step(-1, 10), Step(60, 5)))
    prices = catalog(PriceRow("hear", (("audio_seconds", rate),)))
    assert prices.quote("acme", "chat", AT, usage(audio_seconds=60)).cost_nanos == 600
    assert prices.quote("acme", "chat", AT, usage(audio_seconds=60.5)).cost_nanos == 302


def test_conditions_replace_rates_the_most_particular_first() -> None:
    prices = catalog(
        row("base", {"input_tokens": "10", "output_tokens": "20"}),
        row("batch", {"input_tokens": "5"}, when=(("processing", "batch"),)),
        row("both", {"input_tokens": "3"}, when=(("processing", "batch"), ("speed", "fast"))),
    )
    assert dollars(prices, AT, {"processing": "batch"}) == 5
    both = {"processing": "batch", "speed": "fast"}
    assert prices.quote("acme", "chat", AT, MILLION, both) == (
        3_000_000_000,
        "priced",
        "base+both",
    )
    assert prices.quote("acme", "chat", AT, MILLION, {"speed": "fast"}).status == "estimated"


def test_what_asks_for_nothing_special_may_be_left_unsaid() -> None:
    when = (("quality", "standard"), ("size", "1024x1792"))
    prices = catalog(
        row("square", {"output_images": "0.04"}),
        row("tall", {"output_images": "0.08"}, when=when),
    )
    drawn = usage(output_images=1)
    for context in ({"size": "1024x1792"}, {"size": "1024x1792", "quality": "auto"}):
        quote = prices.quote("acme", "chat", AT, drawn, context)
        assert quote == (80_000_000, "priced", "square+tall")
    fine = {"size": "1024x1792", "quality": "hd"}
    assert prices.quote("acme", "chat", AT, drawn, fine) == (40_000_000, "estimated", "square")
    assert prices.quote("acme", "chat", AT, drawn, {}).status == "priced"


def test_a_cited_quote_is_rebuilt_from_its_rows_alone() -> None:
    rows = (
        row("base", {"input_tokens": "10", "output_tokens": "20"}, min_charge_nanos=7),
        row("gone", {"input_tokens": "9"}, end=AT),
        row("batch", {"input_tokens": "5"}, when=(("processing", "batch"),)),
        PriceRow("us", (), (("region", "us"),), multiplier_ppm=1_100_000),
    )
    stored = {each.id: each for each in rows}
    prices = catalog(*rows[1:2], *rows[:1], *rows[2:])
    context = {"processing": "batch", "region": "us"}
    call = usage(input_tokens=12_345, output_tokens=678, cache_read_tokens=45)
    explained = explain(prices, "acme", "chat", AT, call, context)
    cited = rows_of(explained.quote.price_ref)
    assert cited == ["base", "batch", "us"]
    again = explain_rows([stored[id] for id in cited], call)
    assert (again.cost_nanos, again.lines) == (explained.quote.cost_nanos, explained.lines)


def test_a_quote_cites_no_row_that_changed_nothing() -> None:
    prices = catalog(
        row("base", {"input_tokens": "10"}),
        PriceRow("same", (), (("region", "home"),)),
    )
    quote = prices.quote("acme", "chat", AT, MILLION, {"region": "home"})
    assert quote == (10_000_000_000, "priced", "base")
    assert rows_of("") == []
    assert rows_of("base+two input>200000") == ["base", "two"]


@pytest.mark.parametrize(
    "wrong",
    [
        row("a+b", {"input_tokens": "1"}),
        row("a b", {"input_tokens": "1"}),
        PriceRow("a", (("tokens", flat(1, 1)),)),
        PriceRow("a", (("input_tokens", flat(1, 0)),)),
        PriceRow("a", (("input_tokens", flat(-1, 1)),)),
        PriceRow("a", (("input_tokens", Rate(1, (Step(5, 1),))),)),
        PriceRow("a", (("input_tokens", Rate(1, (Step(-1, 1), Step(-1, 1)))),)),
        PriceRow("a", (("input_tokens", Rate(1, ())),)),
        row("a", {"input_tokens": "1"}, start=AT, end=AT),
        row("a", {"input_tokens": "1"}, start=datetime(2026, 1, 1)),  # noqa: DTZ001
        row("a", {"input_tokens": "1"}, weekdays=(7,)),
        row("a", {"input_tokens": "1"}, windows=((time(1, tzinfo=UTC), time(2)),)),
        row("a", {"input_tokens": "1"}, multiplier_ppm=-1),
        row("a", {"input_tokens": "1"}, least=(("tokens", 1),)),
    ],
)
def test_rows_that_mean_nothing_are_refused_before_they_are_asked(wrong: PriceRow) -> None:
    with pytest.raises(ValueError, match=r"^a"):
        catalog(wrong).compile_all()
    with pytest.raises(ValueError, match=r"^a"):
        catalog().with_changes([Override(wrong, "acme", "chat")], ()).compile_all()
