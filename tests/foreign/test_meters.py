"""Our measures, asked for as OpenMeter's clients ask for meters."""

from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.conftest import START
from tests.foreign.requests import EVENT, made_key

pytestmark = pytest.mark.anyio
DAY = "from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z"


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START)


@pytest.fixture
async def used(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Three calls: of two users, of two models, in two hours."""
    events = [
        {"id": str(place), "user_id": user, "provider": "openai", "model": model, "timestamp": at}
        | {"usage": {"input_tokens": 1000, "output_tokens": 100, "cache_read_tokens": 400}}
        for place, (user, model, at) in enumerate(
            (
                ("alice", "gpt-4o", "2026-11-20T09:10:00Z"),
                ("alice", "gpt-4o-mini", "2026-11-20T11:10:00Z"),
                ("bob", "gpt-4o", "2026-11-20T11:59:59Z"),
            )
        )
    ]
    assert (await client.post("/v1/events", json=events)).status_code == 200
    return client


async def asked(client: httpx.AsyncClient, slug: str, query: str) -> dict[str, Any]:
    answer = await client.get(f"/api/v1/meters/{slug}/query?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_without_a_window_it_is_one_value(used: httpx.AsyncClient) -> None:
    found = await asked(used, "tokens", DAY)
    row = {
        "value": 3300,
        "windowStart": "2026-11-20T00:00:00Z",
        "windowEnd": "2026-11-21T00:00:00Z",
        "subject": None,
        "groupBy": {},
    }
    assert found == {
        "from": "2026-11-20T00:00:00Z",
        "to": "2026-11-21T00:00:00Z",
        "data": [row],
    }


async def test_windows_subjects_and_groups_cut_the_same_value(used: httpx.AsyncClient) -> None:
    hours = (await asked(used, "requests", f"{DAY}&windowSize=HOUR"))["data"]
    assert [(one["windowStart"][11:13], one["value"]) for one in hours] == [("09", 1), ("11", 2)]
    subjects = (await asked(used, "requests", f"{DAY}&subject=alice&subject=bob"))["data"]
    assert [(one["subject"], one["value"]) for one in subjects] == [("alice", 2), ("bob", 1)]
    models = (await asked(used, "input_tokens", f"{DAY}&groupBy=model&groupBy=provider"))["data"]
    assert [(one["groupBy"]["model"], one["value"]) for one in models] == [
        ("gpt-4o", 2000),
        ("gpt-4o-mini", 1000),
    ]
    mini = await asked(used, "cache_read_tokens", f"{DAY}&filterGroupBy[model]=gpt-4o-mini")
    assert [one["value"] for one in mini["data"]] == [400]
    both = await asked(used, "output_tokens", f"{DAY}&groupBy=subject&groupBy=model")
    assert sum(one["value"] for one in both["data"]) == 300
    assert len(both["data"]) == 3


async def test_cost_is_an_exact_number_and_the_same_as_everywhere(
    used: httpx.AsyncClient,
) -> None:
    totals = (await used.get("/v1/analytics/totals")).json()
    answer = await used.get(f"/api/v1/meters/cost/query?{DAY}")
    assert f'"value":{totals["total_cost_usd"]},' in answer.text


async def test_without_a_range_it_is_all_until_now_in_whole_hours(
    used: httpx.AsyncClient,
) -> None:
    found = await asked(used, "requests", "windowSize=DAY&windowTimeZone=UTC&clientId=x")
    assert (found["from"], found["to"]) == ("2026-11-20T09:00:00Z", "2026-11-20T13:00:00Z")
    assert [one["value"] for one in found["data"]] == [3]


async def test_plain_meters_are_asked_for_by_the_type_of_their_events(
    client: httpx.AsyncClient,
) -> None:
    event = {**EVENT, "type": "page_views", "data": {"value": 3}, "time": "2026-11-20T12:00:00Z"}
    for name in ("p1", "p2"):
        assert (await client.post("/api/v1/events", json={**event, "id": name})).status_code == 204
    found = await asked(client, "page_views", f"{DAY}&subject=alice")
    assert [(one["subject"], one["value"]) for one in found["data"]] == [("alice", 6)]
    answer = await client.get(f"/api/v1/meters/page_vews/query?{DAY}")
    assert answer.status_code == 404


async def test_a_bound_key_is_told_of_its_own_user(
    used: httpx.AsyncClient, runtime: Runtime
) -> None:
    token = await made_key(runtime, "read", user_id="bob")
    signed = {"authorization": f"Bearer {token}"}
    path = f"/api/v1/meters/requests/query?{DAY}"
    own = await used.get(path, headers=signed)
    assert [one["value"] for one in own.json()["data"]] == [1]
    assert (await used.get(f"{path}&subject=alice", headers=signed)).status_code == 403


async def test_meters_are_listed_and_each_one_that_is_can_be_queried(
    used: httpx.AsyncClient,
) -> None:
    listed = (await used.get("/api/v1/meters")).json()
    slugs = {one["slug"] for one in listed}
    assert {"tokens", "input_tokens", "output_tokens", "requests", "cost"} <= slugs
    for slug in slugs:
        assert (await used.get(f"/api/v1/meters/{slug}")).json()["slug"] == slug
        assert len((await asked(used, slug, DAY))["data"]) == 1
    assert (await used.get("/api/v1/meters/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("windowSize=MINUTE", "/windowSize"),
        ("windowTimeZone=Europe/Berlin", "/windowTimeZone"),
        ("groupBy=shoe", "/groupBy"),
        ("from=yesterday", "/from"),
        ("from=2026-11-20T00:00:00", "/from"),
        ("from=2026-11-21T00:00:00Z&to=2026-11-20T00:00:00Z", "/to"),
        ("from=0001-01-01T00:00:00Z", "/from"),
        ("from=1970-01-01T00:00:00Z&windowSize=HOUR", "/windowSize"),
        ("to=2026-11-20T00:00:00Z&to=2026-11-20T00:00:00Z", "/to"),
        ("filterCustomerId=c", "/filterCustomerId"),
        ("filterGroupBy[shoe]=red", "/filterGroupBy[shoe]"),
        ("subject=a%00b", "/subject"),
    ],
)
async def test_what_is_not_read_is_refused_with_its_place(
    client: httpx.AsyncClient, query: str, pointer: str
) -> None:
    answer = await client.get(f"/api/v1/meters/tokens/query?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer
