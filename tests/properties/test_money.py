"""Money is exact: what goes in comes out, and what is rounded is rounded half to even."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.money import CEILING, divide_half_even, exact_nanos, from_usd, to_usd

NANOS = st.integers(-CEILING, CEILING)


@given(NANOS)
def test_money_comes_back_as_it_went_out(nanos: int) -> None:
    text = to_usd(nanos)
    assert from_usd(text) == nanos
    assert Decimal(text) * 10**9 == nanos
    assert exact_nanos(Decimal(text)) == nanos
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith("0"))


@given(NANOS, st.integers(0, 9), st.integers(0, 3))
def test_zeros_at_either_end_change_nothing(nanos: int, behind: int, before: int) -> None:
    sign, body = ("-", to_usd(nanos)[1:]) if nanos < 0 else ("", to_usd(nanos))
    body = body if "." in body else f"{body}."
    assert from_usd(f"{sign}{'0' * before}{body}{'0' * max(1, behind)}") == nanos


@given(st.text(alphabet="0123456789.-+eE_ ,\u0663\u00b2Nan", max_size=45))
def test_a_text_is_money_or_refused(text: str) -> None:
    try:
        nanos = from_usd(text)
    except ValueError:
        return
    assert abs(nanos) <= CEILING
    assert Decimal(text) * 10**9 == nanos


@pytest.mark.parametrize(
    "text", ["", "-", ".", "-.", ".5", "1.", "1e3", "+1", " 1", "1_0", "٣", "²", "NaN", "Infinity"]
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="money is"):
        from_usd(text)


@pytest.mark.parametrize("text", ["9223372036.854775808", "-9223372036.854775808", "1" + "0" * 30])
def test_money_beyond_the_ceiling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="beyond"):
        from_usd(text)


def test_finer_than_a_nano_dollar_is_refused() -> None:
    with pytest.raises(ValueError, match="nine decimal places"):
        from_usd("0.0000000001")


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**20))
def test_division_rounds_half_to_even(numerator: int, denominator: int) -> None:
    with localcontext() as context:
        context.prec = 120
        expected = (Decimal(numerator) / denominator).to_integral_value(ROUND_HALF_EVEN)
    assert divide_half_even(numerator, denominator) == expected


@given(st.integers(-(10**18), 10**18), st.integers(1, 10**9))
def test_a_tie_goes_to_the_even_side(whole: int, half: int) -> None:
    found = divide_half_even((2 * whole + 1) * half, 2 * half)
    assert found % 2 == 0
    assert found in (whole, whole + 1)
