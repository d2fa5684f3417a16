"""Every figure that is answered is what a loop over the calls comes to, on both databases."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.percentiles import percentiles_of
from app.analytics.query import across
from app.core.clock import rfc3339
from app.summaries.fold import bucket_of
from app.summaries.grains import Grain, Span, cut, floor_of, whole_hours
from tests.conftest import START

pytestmark = pytest.mark.anyio

Call = dict[str, Any]
TODAY = START.replace(hour=0, minute=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SPREAD = 40 * DAY


def calls_of(seed: int, count: int = 240) -> list[Call]:
    """Calls of three users over forty days, many of them at the edges of hours, days and months."""
    dice = random.Random(seed)
    edges = [TODAY, TODAY.replace(day=1), START.replace(minute=0), TODAY - DAY]
    found: list[Call] = []
    for number in range(count):
        at = START - dice.random() * dice.choice((HOUR, DAY, 3 * DAY, SPREAD))
        if dice.random() < 0.2:
            at = dice.choice(edges) + timedelta(microseconds=dice.choice((-1, 0, 1)))
        maybe = {
            "provider": dice.choice(("openai", "acme", None)),
            "model": dice.choice(("m1", "m2", "m3", None)),
            "endpoint": dice.choice(("/chat", "/embed", None)),
            "task_type": dice.choice(("chat", "general", None)),
            "team_id": dice.choice(("red", "blue", None)),
            "api_key_id": dice.choice(("k1", "k2", None)),
            "backend": dice.choice(("gpu-1", "gpu-2", None)),
            "pool": dice.choice(("eu", "us", None)),
            "session_id": dice.choice(("s", None)),
            "latency_ms": dice.choice((None, dice.randrange(10**7) / 1000)),
            "ttft_ms": dice.choice((None, None, dice.randrange(10**6) / 1000)),
            "cost_usd": dice.choice((None, f"0.{dice.randrange(10**9):09d}")),
        }
        found.append(
            {
                "id": str(number),
                "user_id": dice.choice(("ann", "bob", "cy")),
                "timestamp": at,
                "status_code": dice.choice((200, 200, 200, 399, 400, 429, 500)),
                "usage": {
                    "input_tokens": dice.randrange(1000),
                    "output_tokens": dice.randrange(100),
                },
            }
            | {name: value for name, value in maybe.items() if value is not None}
        )
    return found


async def send(client: httpx.AsyncClient, calls: Sequence[Call]) -> None:
    """Record the calls; each then carries what it costs."""
    body = [call | {"timestamp": rfc3339(call["timestamp"])} for call in calls]
    answer = await client.post("/v1/events?backfill=true&results=all", json=body)
    assert answer.status_code == 200, answer.text
    for call, told in zip(calls, answer.json()["results"], strict=True):
        call.pop("cost_usd", None)
        if told["cost_usd"] is not None:
            call["cost_usd"] = told["cost_usd"]


def usd(nanos: int) -> str:
    """A plain decimal without zeros at its end, made another way than ours."""
    return format((Decimal(nanos) / 10**9).normalize() + 0, "f")


def mean(values: Sequence[float]) -> float | None:
    micros = sum(round(value * 1000) for value in values)
    return round(micros / len(values) / 1000, 3) if values else None


def nanos_of(call: Call) -> int:
    return int(Decimal(call.get("cost_usd", "0")) * 10**9)


def figures_of(calls: Sequence[Call]) -> dict[str, Any]:
    """What `FiguresOut` says, by plain Python."""
    failed = sum(call["status_code"] >= 400 for call in calls)
    tokens_in = sum(call["usage"]["input_tokens"] for call in calls)
    tokens_out = sum(call["usage"]["output_tokens"] for call in calls)
    return {
        "total_calls": len(calls),
        "successful_calls": len(calls) - failed,
        "failed_calls": failed,
        "error_rate": round(failed * 100 / len(calls), 2) if calls else 0.0,
        "total_tokens": tokens_in + tokens_out,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_reasoning_tokens": 0,
        "total_cost_usd": usd(sum(map(nanos_of, calls))),
        "unpriced_calls": sum("cost_usd" not in call for call in calls),
        "avg_latency_ms": mean([call["latency_ms"] for call in calls if "latency_ms" in call]),
        "avg_ttft_ms": mean([call["ttft_ms"] for call in calls if "ttft_ms" in call]),
    }


def same(answered: dict[str, Any], calls: Sequence[Call]) -> None:
    expected = figures_of(calls)
    assert {name: answered[name] for name in expected} == expected


def percentiles_by_hand(values: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    found: dict[str, float | None] = {}
    for percent in (50, 95, 99):
        rank = next((n for n in range(1, len(ordered) + 1) if n * 100 >= percent * len(ordered)), 0)
        found[f"p{percent}"] = ordered[rank - 1] if rank else None
    return found


def between(calls: Sequence[Call], start: datetime, end: datetime) -> list[Call]:
    return [call for call in calls if start <= call["timestamp"] < end]


def grouped(calls: Sequence[Call], key: Callable[[Call], Any]) -> dict[Any, list[Call]]:
    found: dict[Any, list[Call]] = {}
    for call in calls:
        found.setdefault(key(call), []).append(call)
    return found


def values_of(names: Sequence[str]) -> Callable[[Call], Any]:
    return lambda call: tuple(call.get(name) for name in names)


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


# ---- one user -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_the_days_and_months_of_a_user_are_sums_over_the_calls(
    client: httpx.AsyncClient, seed: int
) -> None:
    calls = calls_of(seed)
    await send(client, calls)
    own = [call for call in calls if call["user_id"] == "ann"]
    for back in (0, 1, 2, 19, 20):
        start = TODAY - back * DAY
        day = await get(client, "/v1/users/ann/usage/daily", date=start.date().isoformat())
        of_day = between(own, start, start + DAY)
        same(day, of_day)
        tasks = Counter(call.get("task_type", "general") for call in of_day)
        assert day["requests_by_task"] == tasks
    for month, start, end in (
        (10, datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)),
        (11, datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
    ):
        told = await get(client, "/v1/users/ann/usage/monthly", year=2026, month=month)
        same(told, between(own, start, end))
        assert len(told["days"]) == (end - start).days
        for number, day in enumerate(told["days"]):
            begin = start + number * DAY
            assert day["date"] == begin.date().isoformat()
            same(day, between(own, begin, begin + DAY))


ALIGNED = {"from": "2026-10-30T07:00:00Z", "to": "2026-11-20T13:00:00Z"}
ODD = {"from": "2026-11-17T07:12:34.567891Z", "to": "2026-11-20T12:00:00.000001Z"}


@pytest.mark.parametrize("grain", ["hour", "day", "month"])
@pytest.mark.parametrize("span", [ALIGNED, ODD], ids=["whole hours", "any instants"])
@pytest.mark.parametrize("group_by", ["", "model", "provider,task_type", "endpoint,status_code"])
async def test_a_series_is_the_sums_over_the_calls_of_each_piece(
    client: httpx.AsyncClient, grain: Grain, span: dict[str, str], group_by: str
) -> None:
    calls = calls_of(7)
    await send(client, calls)
    query = span | {"grain": grain} | ({"group_by": group_by} if group_by else {})
    told = await get(client, "/v1/users/bob/usage/series", **query)
    names = [name for name in group_by.split(",") if name]
    start, end = when(span["from"]), when(span["to"])
    own = between([call for call in calls if call["user_id"] == "bob"], start, end)
    groups = grouped(own, values_of(names))
    if not names:
        groups = {(): own}
    items = told["items"]
    starts = sorted({when(item["start"]) for item in items})
    assert starts[0] == start
    assert when(items[-1]["end"]) == end
    assert len(items) == len(starts) * len(groups)
    assert sum(item["total_calls"] for item in items) == len(own)
    for item in items:
        group = tuple(item["group"][name] for name in names)
        piece = between(groups[group], when(item["start"]), when(item["end"]))
        same(item, piece)
        for name in ("latency_ms", "ttft_ms"):
            values = [call[name] for call in piece if name in call]
            assert item[name] == percentiles_by_hand(values)


# ---- everyone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_the_metrics_are_sums_over_the_calls(client: httpx.AsyncClient, seed: int) -> None:
    calls = calls_of(seed)
    await send(client, calls)
    for whose in (
        {},
        {"user_id": "ann"},
        {"api_key_id": "k1"},
        {"team_id": "red"},
        {"user_id": "bob", "team_id": "blue"},
        {"user_id": "bob", "team_id": "blue", "api_key_id": "k2"},
        {"user_id": "nobody"},
        {"team_id": "nobody"},
    ):
        for hours in (1, 24, 700):
            told = await get(client, "/v1/analytics/metrics", hours=hours, **whose)
            start, end = when(told["from"]), when(told["to"])
            assert start == START.replace(minute=0) - hours * HOUR
            meant = [
                call
                for call in between(calls, start, end)
                if all(call.get(name) == value for name, value in whose.items())
            ]
            same(told, meant)
            statuses = Counter(str(call["status_code"]) for call in meant)
            assert told["status_codes"] == statuses
            assert told["client_errors"] == statuses["400"] + statuses["429"]
            assert told["server_errors"] == statuses["500"]
            models = grouped(meant, lambda call: (call.get("provider"), call.get("model")))
            assert len(told["models"]) == min(10, len(models))
            for model in told["models"]:
                same(model, models[model["provider"], model["model"]])
            endpoints = grouped(meant, lambda call: call.get("endpoint"))
            assert len(told["endpoints"]) == len(endpoints)
            for endpoint in told["endpoints"]:
                same(endpoint, endpoints[endpoint["endpoint"]])
            since = min(call["timestamp"] for call in calls).replace(
                minute=0, second=0, microsecond=0
            )
            minutes = (START - max(start, since)) / timedelta(minutes=1)
            assert told["covered_minutes"] == round(minutes, 2)
            assert told["calls_per_minute"] == round(len(meant) / minutes, 4)
            _check_percentiles(told, meant, exact="user_id" in whose, known=not whose)


def _check_percentiles(
    told: dict[str, Any], meant: Sequence[Call], *, exact: bool, known: bool
) -> None:
    for name in ("latency_ms", "ttft_ms"):
        by_hand = percentiles_by_hand([call[name] for call in meant if name in call])
        if exact:
            assert told[name] == by_hand
        elif not known:
            assert told[name] is None
        else:
            for percent, value in by_hand.items():
                found = told[name][percent]
                assert (found is None) == (value is None)
                if value is not None:
                    assert max(1.0, value) <= found + 0.001
                    assert found <= max(1.0, value * 1.19) + 0.001


async def test_the_costs_are_sums_over_the_calls(client: httpx.AsyncClient) -> None:
    calls = calls_of(3)
    await send(client, calls)
    same(await get(client, "/v1/analytics/totals"), calls)
    for back in (0, 1, 25):
        day = TODAY - back * DAY
        told = await get(client, "/v1/analytics/daily-cost", date=day.date().isoformat())
        same(told, between(calls, day, day + DAY))
    for user in (None, "cy"):
        for days in (1, 30, 60):
            query = {"days": days} | ({"user_id": user} if user else {})
            told = await get(client, "/v1/analytics/costs", **query)
            start = TODAY - (days - 1) * DAY
            meant = between(calls, start, TODAY + DAY)
            meant = [call for call in meant if user in (None, call["user_id"])]
            same(told, meant)
            assert Decimal(told["total_cost_cents"]) == Decimal(told["total_cost_usd"]) * 100
            models = grouped(meant, lambda call: (call.get("provider"), call.get("model")))
            assert len(told["by_model"]) == len(models)
            for model in told["by_model"]:
                same(model, models[model["provider"], model["model"]])
            endpoints = grouped(meant, lambda call: call.get("endpoint"))
            assert len(told["by_endpoint"]) == len(endpoints)
            for endpoint in told["by_endpoint"]:
                same(endpoint, endpoints[endpoint["endpoint"]])
            assert len(told["daily"]) == days
            for number, day_told in enumerate(told["daily"]):
                begin = start + number * DAY
                assert day_told["date"] == begin.date().isoformat()
                same(day_told, between(meant, begin, begin + DAY))


async def test_backends_and_pools_are_sums_over_the_calls(client: httpx.AsyncClient) -> None:
    calls = calls_of(4)
    await send(client, calls)
    for backend in (None, "gpu-1"):
        query = {"backend": backend} if backend else {}
        told = await get(client, "/v1/analytics/backends", **query)
        assert len(told["items"]) == 169
        hours = [when(item["hour"]) for item in told["items"]]
        assert hours == [START.replace(minute=0) - back * HOUR for back in range(169)]
        for item, hour in zip(told["items"], hours, strict=True):
            by_backend = grouped(
                between(calls, hour, hour + HOUR), lambda call: call.get("backend")
            )
            by_backend.pop(None, None)
            wanted = sorted(name for name in by_backend if backend in (None, name))
            assert [one["backend"] for one in item["backends"]] == wanted
            for one in item["backends"]:
                same(one, by_backend[one["backend"]])
    told = await get(client, "/v1/analytics/pools", days=30)
    assert len(told["items"]) == 30
    for back, item in enumerate(told["items"]):
        day = TODAY - back * DAY
        assert item["date"] == day.date().isoformat()
        by_pool = grouped(between(calls, day, day + DAY), lambda call: call.get("pool"))
        by_pool.pop(None, None)
        assert [one["pool"] for one in item["pools"]] == sorted(by_pool)
        for one in item["pools"]:
            same(one, by_pool[one["pool"]])
            backends = {call["backend"] for call in by_pool[one["pool"]] if "backend" in call}
            assert one["backends"] == len(backends)


MUST_NAME = {"team_id", "api_key_id", "backend", "pool"}
"""A group of these holds the calls that name one."""


@pytest.mark.parametrize("grain", [None, "hour", "day", "month"])
async def test_a_query_is_the_sums_over_the_calls_or_is_refused(
    client: httpx.AsyncClient, grain: Grain | None
) -> None:
    calls = calls_of(5)
    await send(client, calls)
    dice = random.Random(str(grain))
    values = {
        "user_id": ("ann", "bob"),
        "provider": ("openai", "", "acme"),
        "model": ("m1", "m2"),
        "task_type": ("chat", ""),
        "endpoint": ("/chat", ""),
        "status_code": ("200", "500"),
        "team_id": ("red",),
        "api_key_id": ("k1", "k2"),
        "backend": ("gpu-1",),
        "pool": ("eu", "us"),
    }
    answered = 0
    for _ in range(40):
        names = dice.sample(sorted(values), dice.choice((0, 1, 1, 2, 2, 3)))
        narrow = dice.sample(sorted(values), dice.choice((0, 0, 1, 2)))
        filters = {name: list(dice.sample(values[name], 1)) for name in narrow}
        days = 60 if grain != "hour" else 3
        start = START.replace(minute=0) - dice.randrange(1, 24 * days) * HOUR
        body = {
            "measures": ["calls", "errors", "cost_usd", "tokens", "avg_latency_ms", "error_rate"],
            "group_by": names,
            "filters": filters,
            "grain": grain,
            "from": rfc3339(start),
            "to": rfc3339(START.replace(minute=0) + HOUR),
        }
        answer = await client.post("/v1/analytics/query", json=body)
        asked = {*names, *filters}
        possible = (
            across(asked) is not None
            or asked <= {"user_id", "provider", "model", "task_type"}
            or "user_id" in filters
        )
        assert answer.status_code == (200 if possible else 422), (body, answer.text)
        if not possible:
            assert answer.json()["errors"][0]["pointer"] in ("/group_by", "/filters")
            continue
        answered += 1
        meant = [
            call
            for call in between(calls, start, START + DAY)
            if all(str(call.get(name, "")) in wanted for name, wanted in filters.items())
        ]
        meant = [call for call in meant if all(name in call for name in asked & MUST_NAME)]
        groups = grouped(meant, values_of(names)) if names else {(): meant}
        items = answer.json()["items"]
        assert sum(item["measures"]["calls"] for item in items) == len(meant)
        for item in items:
            group = tuple(item["group"][name] for name in names)
            expected = figures_of(between(groups[group], when(item["start"]), when(item["end"])))
            assert item["measures"] == {
                "calls": expected["total_calls"],
                "errors": expected["failed_calls"],
                "cost_usd": expected["total_cost_usd"],
                "tokens": expected["total_tokens"],
                "avg_latency_ms": expected["avg_latency_ms"],
                "error_rate": expected["error_rate"],
            }
    assert answered > 10


# ---- pure ---------------------------------------------------------------------------------------

MOMENTS = st.integers(0, 32_503_680_000).map(lambda s: datetime.fromtimestamp(s, UTC))


@given(MOMENTS, st.integers(0, 10**9), st.sampled_from(("hour", "day", "month")))
def test_pieces_touch_cover_the_range_and_begin_on_the_grain(
    start: datetime, seconds: int, grain: Grain
) -> None:
    span = Span(start, start + timedelta(seconds=seconds))
    pieces = cut(span, grain, 400)
    if pieces is None:
        assert seconds > 400 * 3_000
        return
    assert sum((piece.end - piece.start for piece in pieces), timedelta()) == span.end - span.start
    at = span.start
    for piece in pieces:
        assert piece.start == at < piece.end
        assert floor_of(piece.start, grain) == floor_of(piece.end - timedelta.resolution, grain)
        at = piece.end
    for piece in pieces[1:]:
        assert floor_of(piece.start, grain) == piece.start
    assert whole_hours(whole_hours(span)) == whole_hours(span)


@given(st.lists(st.integers(0, 10**9), max_size=200))
def test_percentiles_from_buckets_are_at_most_19_percent_above_the_true_ones(
    values: list[int],
) -> None:
    counts = Counter(bucket_of(value) for value in values)
    found = percentiles_of(counts)
    exact = percentiles_by_hand([float(value) for value in values])
    for told, true in zip(found, exact.values(), strict=True):
        assert (told is None) == (true is None)
        if told is not None and true is not None:
            assert max(1000, true) <= told + 0.5
            assert told <= max(1000.0, true * 1.19) + 0.5
