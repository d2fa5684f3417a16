"""After a log wrapped: rarer figures, limits that are made now, and renewals still know it all."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock, rfc3339
from app.limits.grouped import Group, shares_of
from app.limits.known import Rule
from app.limits.seed import Only
from app.plans.known import agreement_of
from app.plans.periods import calendar_months
from app.runtime import Runtime
from tests.api.test_audit_api import audit, fill
from tests.conftest import START
from tests.integration.test_rebuild import wrapped

pytestmark = pytest.mark.anyio
SERIES = "/v1/users/{}/usage/series?grain=day&group_by={}&from={}&to={}"


def series_of(user_id: str, names: str) -> str:
    return SERIES.format(user_id, names, "2026-11-01T00:00:00Z", "2026-11-21T00:00:00Z")


def without_percentiles(found: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = found["items"]
    return [
        {name: value for name, value in one.items() if name not in ("latency_ms", "ttft_ms")}
        for one in items
    ]


async def test_rarer_names_stay_answerable_and_percentiles_become_unknown(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await fill(client, runtime, clock)
    asked = series_of("bob", "endpoint,status_code,team_id")
    before = (await client.get(asked)).json()
    metrics = "/v1/analytics/metrics?user_id=bob&team_id=red&hours=1"
    assert (await client.get(metrics)).status_code == 200
    assert await wrapped(runtime, ["bob"], 5)
    answer = await client.get(asked)
    assert answer.status_code == 200, answer.text
    assert without_percentiles(answer.json()) == without_percentiles(before)
    assert answer.json() != before
    refused = await client.get(series_of("bob", "session_id"))
    assert refused.status_code == 422


async def test_figures_follow_corrections(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    for number, latency in enumerate((10, 20, 30)):
        event = {"id": str(number), "user_id": "ann", "endpoint": "/a", "latency_ms": latency}
        assert (await client.post("/v1/events", json=event)).status_code == 201
    path = "/v1/users/ann/events/{}"
    await client.post(path.format(2) + "/void", json={"reason": "r"})
    body = {"fields": {"endpoint": "/b", "latency_ms": 90}, "reason": "r"}
    answer = await client.post(path.format(1) + "/correct", json=body)
    assert answer.status_code in (200, 201), answer.text
    found = (await client.get(series_of("ann", "endpoint"))).json()["items"]
    calls = {one["group"]["endpoint"]: one["total_calls"] for one in found if one["total_calls"]}
    assert calls == {"/a": 1, "/b": 1}
    assert (await audit(client))["differences"] == []
    answer = await client.get("/v1/analytics/metrics?user_id=ann&hours=1")
    assert answer.status_code == 200


@pytest.mark.parametrize("window", ["hour", "day", "month", "lifetime"])
@pytest.mark.parametrize("endpoint", ["/chat", None])
async def test_a_limit_made_now_counts_what_was_wrapped(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    window: str,
    endpoint: str | None,
) -> None:
    await fill(client, runtime, clock)
    match = {} if endpoint is None else {"endpoint": endpoint}
    scopes: list[dict[str, Any]] = [{"user_id": "bob"}, {"team_id": "red"}, {"all": True}]
    body = {"name": "n", "metric": "tokens", "window": window, "amount": 5, "match": match}
    used = []
    for wraps in (False, True):
        if wraps:
            await wrapped(runtime, ["alice", "bob", "dave", "org/carol"], 3)
        for scope in scopes:
            answer = await client.post("/v1/limits", json=body | {"scope": scope})
            assert answer.status_code == 201, answer.text
        items = (await client.get("/v1/users/bob/limits")).json()["items"]
        used.append(sorted((one["name"], one["used"]) for one in items if one["name"] == "n"))
        for one in (await client.get("/v1/limits")).json()["items"]:
            if one["name"] == "n" and not wraps:
                await client.delete(f"/v1/limits/{one['id']}")
        assert (await audit(client))["differences"] == []
    assert used[0] == used[1]


async def test_a_period_begins_after_what_was_wrapped_too(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    ahead = rfc3339(clock.now() + timedelta(minutes=4))
    event = {"id": "1", "user_id": "ann", "timestamp": ahead, "cost_usd": "1"}
    await client.post("/v1/events", json=event)
    assert await wrapped(runtime, ["ann"], 0) == 1
    answer = await client.post("/v1/users/ann/usage/reset")
    assert answer.status_code in (200, 201), answer.text
    assert (await audit(client))["consistent"] is True


def group(minutes: float) -> Group:
    first = START - timedelta(minutes=20)  # ten past, and in Nepal a new hour begins at a quarter
    names = ("p", "m", None, None, None)
    return Group(
        "ann", "arc_1", 1, START, first, first + timedelta(minutes=minutes), *names, 3, 10, 1, 7
    )


def rule(window: str, timezone: str = "UTC") -> Rule:
    about = ("user:ann", None, None, None, "calls", window, timezone, 5, "block", ())
    return Rule("lim_1", "n", *about, START - timedelta(days=9), START - timedelta(days=9))


@pytest.mark.parametrize(
    ("window", "timezone", "minutes", "certain", "windows"),
    [
        ("minute", "UTC", 0.5, True, 1),
        ("minute", "UTC", 2, False, 3),
        ("day", "UTC", 29, True, 1),
        ("hour", "Asia/Kathmandu", 20, False, 2),
        ("billing_period", "UTC", 29, True, 1),
        ("lifetime", "UTC", 29, True, 1),
    ],
)
def test_a_group_is_certain_where_all_of_it_is_in_one_window(
    window: str, timezone: str, minutes: float, certain: bool, windows: int
) -> None:
    agreement = agreement_of([calendar_months("plan_default")])
    found = list(shares_of(group(minutes), agreement, Only(rule(window, timezone))))
    assert [share.certain for share in found] == [certain] * windows
    assert {share.amount for share in found} == {3}
    assert len({share.key for share in found}) == windows
