"""A refresh changes nothing that was, and takes over everything that is to be."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.pricing.carry import carried, clipped, keyed, within
from app.pricing.diff import difference
from app.pricing.leaves import flat
from app.pricing.rows import Listing, PriceList, PriceRow

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOURS = [NOON + timedelta(hours=number) for number in range(-6, 7)]
NAMES = ("a", "b", "c")


def listing(model: str, *rows: PriceRow, layer: str = "genai") -> Listing:
    return Listing(layer, "acme", model, model, (model,), (), rows)


def price_list(*listings: Listing) -> PriceList:
    return PriceList("", (), listings)


def row(
    usd: int, start: datetime | None = None, end: datetime | None = None, name: str = "r"
) -> PriceRow:
    return PriceRow(name, (("input_tokens", flat(usd, 1)),), start=start, end=end)


@st.composite
def histories(draw: st.DrawFn) -> tuple[PriceRow, ...]:
    """Rows of a model as a list has them: the first without a start, the others dated."""
    starts = sorted(draw(st.sets(st.sampled_from(HOURS), max_size=3)))
    rows = [row(draw(st.integers(1, 4)), start) for start in [None, *starts]]
    if draw(st.booleans()):
        special = (("tier", "batch"),)
        rows.append(row(draw(st.integers(1, 4)))._replace(when=special))
    return tuple(rows)


lists = st.dictionaries(st.sampled_from(NAMES), histories()).map(
    lambda found: price_list(*(listing(name, *rows) for name, rows in found.items()))
)


def said(of: PriceList, at: datetime) -> dict[str, object]:
    """What a list charges at an instant, by model; closed models say nothing."""
    found = {}
    for key, one in keyed(of.listings).items():
        holding = clipped(one.rows, at, at + timedelta(microseconds=1))
        plain = [each.rates for each in holding if not each.when]
        special = [each.rates for each in holding if each.when]
        if holding:
            found[key[2]] = (plain[-1:], special)
    return found


@given(lists, lists)
def test_a_refresh_says_the_same_of_the_past_and_the_new_of_the_future(
    old: PriceList, new: PriceList
) -> None:
    merged = carried(old, new, NOON).price_list
    for at in HOURS:
        if at < NOON:
            before = said(old, at)
            now = said(merged, at)
            assert {name: now[name] for name in before} == before
            assert now.keys() - before.keys() <= said(new, at).keys()
        else:
            assert said(merged, at) == said(new, at)


@given(lists, lists, lists)
def test_refreshes_one_after_the_other_keep_all_of_it(
    first: PriceList, second: PriceList, third: PriceList
) -> None:
    later = NOON + timedelta(hours=3)
    merged = carried(carried(first, second, NOON).price_list, third, later, NOON).price_list
    old = said(first, NOON - timedelta(hours=1))
    assert {name: said(merged, NOON - timedelta(hours=1))[name] for name in old} == old
    for at in HOURS:
        if at >= later:
            assert said(merged, at) == said(third, at)


@given(lists)
def test_the_same_list_again_changes_nothing(old: PriceList) -> None:
    again = carried(old, old, NOON)
    assert again.price_list == old
    assert not again.changed
    assert not again.new
    assert not again.vanished
    assert difference(old, old, NOON).objections == ()


@given(lists, lists)
def test_what_says_the_same_is_carried_as_it_is(old: PriceList, new: PriceList) -> None:
    merged = keyed(carried(old, new, NOON).price_list.listings)
    after = keyed(new.listings)
    for key, one in keyed(old.listings).items():
        if key in after and within(one.rows, NOON, None) == within(after[key].rows, NOON, None):
            assert merged[key].rows == one.rows


def test_a_change_begins_when_the_source_says_if_that_is_after_the_last_import() -> None:
    imported = NOON - timedelta(hours=5)
    announced = NOON - timedelta(hours=2)
    old = price_list(listing("a", row(1)))
    new = price_list(listing("a", row(1), row(2, announced)))
    found = carried(old, new, NOON, imported)
    assert list(found.changed.values()) == [announced]
    assert [(each.start, each.end) for each in found.price_list.listings[0].rows] == [
        (None, announced),
        (announced, None),
    ]


def test_a_source_that_rewrites_its_past_is_believed_from_now_on_only() -> None:
    imported = NOON - timedelta(hours=1)
    old = price_list(listing("a", row(1)))
    for new in (listing("a", row(2)), listing("a", row(1), row(2, imported - timedelta(days=9)))):
        found = carried(old, price_list(new), NOON, imported)
        assert list(found.changed.values()) == [NOON]


def test_a_price_announced_for_later_waits_until_then() -> None:
    later = NOON + timedelta(days=3)
    old = price_list(listing("a", row(1)))
    merged = carried(old, price_list(listing("a", row(1), row(2, later))), NOON).price_list
    assert said(merged, later - timedelta(seconds=1))["a"] == said(old, NOON)["a"]
    assert said(merged, later)["a"] != said(old, NOON)["a"]


def test_a_twentieth_of_all_prices_may_move_and_none_of_them_tenfold() -> None:
    many = [listing(f"m{number}", row(100)) for number in range(100)]
    old = price_list(*many)
    few = [listing(f"m{number}", row(110)) for number in range(5)]
    assert difference(old, price_list(*few, *many[5:]), NOON).objections == ()
    more = [*few, listing("m5", row(110))]
    assert "more than 5 %" in difference(old, price_list(*more, *many[6:]), NOON).objections[0]
    for usd, fine in ((1000, True), (1001, False), (10, True), (9, False), (0, False)):
        new = price_list(listing("m0", row(usd)), *many[1:])
        assert (difference(old, new, NOON).objections == ()) is fine, usd
    assert "vanish" in difference(old, price_list(*many[6:]), NOON).objections[0]


def test_a_difference_names_every_rate_with_its_percentage() -> None:
    old = price_list(listing("a", row(100)), listing("gone", row(1)))
    new = price_list(listing("a", row(125)), listing("fresh", row(1)))
    found = difference(old, new, NOON)
    assert [(move.model, move.unit, move.percent) for move in found.moves] == [
        ("a", "input_tokens", 25)
    ]
    assert [key[2] for key in found.new] == ["fresh"]
    assert [key[2] for key in found.vanished] == ["gone"]
