"""Who is let in: plain values in, a verdict for each out."""

from collections.abc import Sequence
from datetime import timedelta

from app.core.money import CEILING
from app.limits.counters import CounterKey, Level
from app.limits.estimate import Basis, Estimate, Wanted
from app.limits.hold_judge import Denied, Granted, HoldAsk, Wish, admit
from app.limits.known import Rule
from tests.conftest import START


def rule(name: str, metric: str, amount: int | None, action: str = "block") -> Rule:
    matching = (None, None, None)
    return Rule(
        *(name, name, "user:a", *matching, metric, "month", "UTC", amount, action),
        *((80, 100), START, START),
    )


def wish(rules: Sequence[Rule], wanted: Wanted, *, expired: bool = False) -> Wish:
    basis: Basis = "usage"
    ask = HoldAsk("h", "a", 0, 60, *(None,) * 5, Estimate(basis, wanted))
    limits = [(one, ("user:a", one.id, START), START + timedelta(days=1)) for one in rules]
    return Wish(ask, limits, expired)


def levels(*rules: Rule, used: int = 0, held: int = 0) -> dict[CounterKey, Level]:
    return {("user:a", one.id, START): Level(used, held) for one in rules}


TEN = Wanted(1, 10, 10, 0, 10)


def test_wishes_are_let_in_in_their_order_until_the_limit_is_full() -> None:
    tokens = rule("t", "tokens", 25)
    found = admit([wish([tokens], TEN)] * 3, levels(tokens))
    assert [type(one) for one in found] == [Granted, Granted, Denied]


def test_a_smaller_wish_may_follow_one_that_was_denied() -> None:
    tokens = rule("t", "tokens", 25)
    wishes = [wish([tokens], Wanted(1, amount, amount, 0, None)) for amount in (20, 10, 5)]
    found = admit(wishes, levels(tokens))
    assert [type(one) for one in found] == [Granted, Denied, Granted]


def test_all_limits_hold_or_none_does() -> None:
    wide, narrow = rule("w", "tokens", 100), rule("n", "cost_usd", 5)
    standing = levels(wide, narrow)
    [denied] = admit([wish([wide, narrow], TEN)], standing)
    assert isinstance(denied, Denied)
    assert denied.binding is not None
    assert denied.binding.rule.id == "n"
    assert set(standing.values()) == {Level(0, 0)}


def test_what_is_held_counts_like_what_is_used() -> None:
    tokens = rule("t", "tokens", 25)
    assert isinstance(admit([wish([tokens], TEN)], levels(tokens, used=8, held=8))[0], Denied)
    assert isinstance(admit([wish([tokens], TEN)], levels(tokens, used=8, held=7))[0], Granted)


def test_only_a_blocking_limit_denies() -> None:
    rules = [rule("w", "tokens", 1, "warn"), rule("s", "tokens", 1, "shadow")]
    standing = levels(*rules)
    assert isinstance(admit([wish(rules, TEN)], standing)[0], Granted)
    assert set(standing.values()) == {Level(0, 10)}


def test_an_amount_that_is_not_known_needs_something_to_be_left() -> None:
    unknown = Wanted(1, None, None, None, None)
    tokens = rule("t", "tokens", 25)
    assert isinstance(admit([wish([tokens], unknown)], levels(tokens, used=24))[0], Granted)
    assert isinstance(admit([wish([tokens], unknown)], levels(tokens, used=25))[0], Denied)


def test_an_unlimited_limit_holds_up_to_what_can_be_counted() -> None:
    free = rule("f", "tokens", None)
    standing = levels(free, held=CEILING - 3)
    [granted] = admit([wish([free], TEN)], standing)
    assert isinstance(granted, Granted)
    assert [share.amount for share in granted.shares] == [3]
    assert set(standing.values()) == {Level(0, CEILING)}


def test_an_expired_subscription_lets_nothing_in() -> None:
    [denied] = admit([wish([], TEN, expired=True)], {})
    assert denied == Denied(None)


def test_the_tightest_budget_is_what_is_left() -> None:
    rules = [rule("a", "cost_usd", 30), rule("b", "cost_usd", 50), rule("c", "tokens", 11)]
    [granted] = admit([wish(rules, TEN)], levels(*rules))
    assert isinstance(granted, Granted)
    assert granted.remaining_nanos == 20
