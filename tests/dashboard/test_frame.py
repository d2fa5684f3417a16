"""What every page has around it, and how figures are written."""

from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from app.core.clock import rfc3339
from app.core.errors import InvalidInput
from app.dashboard import shown
from app.dashboard.frame import csv_answer
from app.dashboard.span import Span, span_from
from app.summaries.grains import DAY, HOUR

NOON = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        *((0, "$0"), (None, "unknown"), (1, "$0.000000001"), (195_000, "$0.000195")),
        *((4_320_000, "$0.00432"), (9_999_999, "$0.01"), (12_345_678, "$0.0123")),
        *((500_000_000, "$0.50"), (999_999_999, "$1.00"), (10**9, "$1.00")),
        *((1_234_565_000_000, "$1,234.56"), (-5_000_000, "-$0.005")),
    ],
)
def test_money_is_short_and_true(nanos: int | None, text: str) -> None:
    assert shown.money(nanos) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_money_is_nothing_only_where_it_is_nothing(nanos: int) -> None:
    digits = shown.money(nanos).lstrip("-$").replace(",", "").replace(".", "")
    assert (int(digits) == 0) == (nanos == 0)
    whole = shown.exact_money(nanos).replace("$", "").replace(",", "")
    assert round(float(whole), 9) == pytest.approx(nanos / 10**9)


def test_counts_and_shares_are_written_for_people() -> None:
    assert [shown.compact(one) for one in (0, 999, 1_000, 12_345, 999_950, 10**12)] == [
        *("0", "999", "1k", "12.3k", "1M", "1T")
    ]
    assert [shown.percent(one) for one in (0.999, 4.3, 8.29, 79.99, 99.9999999, 1110.62)] == [
        *("0.99%", "4.3%", "8.2%", "79.9%", "99.9%", "1,110.6%")
    ]
    assert shown.count(1_234_567) == "1,234,567"
    assert [shown.percent(one) for one in (0, 0.001, 0.04, 12.34, 100.0)] == [
        *("0%", "<0.01%", "0.04%", "12.3%", "100%")
    ]
    assert [shown.change(one) for one in (None, 0.0, 12.34, -3.0, 4_000.0)] == [
        *("new", "±0%", "+12.3%", "-3%", "+4k%")
    ]
    assert [shown.duration_ms(one) for one in (None, 1.25, 812.4, 2_410.0, 200_000.0)] == [
        *("unknown", "1.2 ms", "812 ms", "2.41 s", "3 min 20 s")
    ]
    assert shown.change_of(5, 0) is None
    assert shown.change_of(3, 2) == 50


def test_an_instant_is_told_in_utc() -> None:
    assert shown.when(NOON) == Markup(
        '<time datetime="2026-11-20T12:30:00Z">2026-11-20 12:30 UTC</time>'
    )
    assert ">3 hours ago<" in shown.ago(NOON - 3 * HOUR, NOON)
    assert ">in 1 day<" in shown.ago(NOON + DAY, NOON)
    assert shown.ago(None, NOON) == "never"
    assert "title" in shown.ago(NOON, NOON)


# ---- the picker ---------------------------------------------------------------------------------


@given(
    st.integers(0, 900 * 365 * 24),
    st.sampled_from(["24h", "7d", "30d", "90d", "month", "last_month", "custom"]),
    st.dates(date(1990, 1, 1), date(2800, 1, 1)),
    st.integers(0, 3_000),
)
def test_a_range_is_of_whole_hours_and_not_longer_than_the_one_before(
    hours: int, name: str, first: date, days: int
) -> None:
    now = datetime(2000, 1, 1, 0, 30, tzinfo=UTC) + hours * HOUR
    last = first + timedelta(days=days)
    asked = {"range": name, "from": first.isoformat(), "to": last.isoformat()}
    span = span_from(asked, now)
    assert span.before_start < span.before_end <= span.start < span.end
    if name != "last_month":
        assert span.before_end - span.before_start <= span.end - span.start
    for moment in span[1:5]:
        assert rfc3339(moment).endswith(":00:00Z")  # type: ignore[arg-type]
    again = span_from(dict(pair.split("=") for pair in span.query.split("&")), now)
    assert again == span


def test_half_a_day_is_compared_with_half_a_day() -> None:
    span: Span = span_from({"range": "7d"}, NOON)
    assert (span.start, span.end) == (NOON.replace(day=14, hour=0, minute=0), _hour(20, 13))
    assert (span.before_start, span.before_end) == (_hour(7, 0), _hour(13, 13))
    month = span_from({"range": "month"}, NOON)
    assert (month.start, month.end) == (_hour(1, 0), _hour(20, 13))
    assert month.before_end == datetime(2026, 10, 20, 13, tzinfo=UTC)
    day = span_from({"range": "custom", "from": "2026-11-20", "to": "2026-11-20"}, NOON)
    assert (day.start, day.end, day.grain) == (_hour(20, 0), _hour(20, 13), "hour")
    with pytest.raises(InvalidInput):
        span_from({"range": "for ever"}, NOON)


def _hour(day: int, hour: int) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


# ---- tables to take along -----------------------------------------------------------------------


def test_no_cell_of_a_csv_is_a_formula() -> None:
    columns = [{"name": "A", "key": "a"}, {"name": "B", "key": "b"}, {"name": "", "key": "c"}]
    rows = [
        {"a": "=1+1", "b": Markup("<b>@x</b>"), "c": "not told"},
        {"a": " -cmd", "b": -5, "c": ""},
        {"a": "\t=1", "b": "-$1,234.50", "c": ""},
        {"a": 'say "hi", you', "b": None, "c": ""},
    ]
    answer = csv_answer("a/b\r\nc", columns, rows)
    assert bytes(answer.body).decode().splitlines() == [
        "A,B",
        "'=1+1,'@x",
        "' -cmd,-5",
        '\'\t=1,"-$1,234.50"',
        '"say ""hi"", you",',
    ]
    assert answer.headers["content-disposition"] == 'attachment; filename="tollgate-a-b--c.csv"'


# ---- around a page ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_every_page_forbids_what_it_does_not_need(signed_in: httpx.AsyncClient) -> None:
    page = await signed_in.get("/dashboard")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-request-id"]
    assert " style=" not in page.text
    assert " onclick=" not in page.text


@pytest.mark.anyio
async def test_files_are_kept_for_ever_under_the_address_of_their_content(
    signed_in: httpx.AsyncClient,
) -> None:
    page = (await signed_in.get("/dashboard")).text
    for part in page.split('"'):
        if not part.startswith("/dashboard/static/"):
            continue
        file = await signed_in.get(part)
        assert file.status_code == 200, part
        assert "immutable" in file.headers["cache-control"]
        other = await signed_in.get(part.partition("?")[0])
        assert other.headers["cache-control"] == "no-cache"
        kept = {"If-None-Match": other.headers["etag"]}
        assert (await signed_in.get(part, headers=kept)).status_code == 304
    for name in ("nothing.js", "LICENSES.md", "..%2fframe.py", "%2e%2e/frame.py"):
        assert (await signed_in.get(f"/dashboard/static/{name}")).status_code == 404


@pytest.mark.anyio
async def test_the_theme_of_the_browser_is_in_the_page(signed_in: httpx.AsyncClient) -> None:
    assert "data-theme" not in (await signed_in.get("/dashboard")).text.split("<head>")[0]
    for theme, told in (("dark", True), ("light", True), ('"><script>', False)):
        headers = {"Cookie": f"tollgate_theme={theme}"}
        page = (await signed_in.get("/dashboard/sign-in", headers=headers)).text
        assert (f'data-theme="{theme}"' in page) is told


@pytest.mark.anyio
async def test_a_page_that_is_not_there_is_told_as_a_page(signed_in: httpx.AsyncClient) -> None:
    page = await signed_in.get("/dashboard/nothing")
    assert page.status_code == 404
    assert "There is no such thing" in page.text
    api = await signed_in.get("/dashboards")
    assert api.headers["content-type"] == "application/problem+json"
