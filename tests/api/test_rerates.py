"""Re-rates over HTTP."""

import json
from typing import Any

import httpx
import pytest

from app.pricing.catalog import Catalog
from app.runtime import Runtime
from tests.integration.rerates import charging, event, history_of, post, send

pytestmark = pytest.mark.anyio


@pytest.fixture
async def dearer(client: httpx.AsyncClient, runtime: Runtime, catalog: Catalog) -> None:
    """Six events, recorded at half of the price that holds now."""
    await send(
        client,
        [
            event(number, user, timestamp=f"2026-11-{18 + number}T10:00:00Z")
            for number in (0, 1)
            for user in ("ann", "bob")
        ]
        + [event(2, "bob"), event(3, "cy", "mystery")],
    )
    runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=300)


@pytest.mark.usefixtures("dearer")
async def test_a_dry_run_tells_what_would_change_and_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    answer = await client.post("/v1/rerates", json={"filter": {"provider": "openai"}})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["state"], told["created_by"], told["reason"]) == ("planned", "key_environment", "")
    assert told["filter"] == {"provider": "openai"}
    assert (told["events"], told["changed"]) == (6, 5)
    assert (told["newly_priced"], told["would_be_unpriced"]) == (0, 0)
    assert [one["day"] for one in told["by_day"]] == ["2026-11-18", "2026-11-19", "2026-11-20"]
    assert [one["events"] for one in told["by_day"]] == [2, 2, 1]
    assert [one["user_id"] for one in told["by_user"]] == ["bob", "ann"]
    assert (told["user_count"], told["model_count"]) == (2, 1)
    (model,) = told["by_model"]
    assert (model["provider"], model["model"], model["events"]) == ("openai", "gpt-4o-mini", 5)
    for part in ("by_day", "by_model", "by_user"):
        assert sum(_nanos(one["delta_usd"]) for one in told[part]) == _nanos(told["delta_usd"])
        assert sum(_nanos(one["old_cost_usd"]) for one in told[part]) == _nanos(
            told["old_cost_usd"]
        )
    assert _nanos(told["new_cost_usd"]) == 2 * _nanos(told["old_cost_usd"])
    assert told["applied"] == {"scanned": 0, "changed": 0, "delta_usd": "0"}
    assert await history_of(runtime.db) == {}
    assert (await client.get(f"/v1/rerates/{told['id']}")).json() == told


def _nanos(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole + fraction.ljust(9, "0"))


@pytest.mark.usefixtures("dearer")
async def test_a_re_rate_is_applied_once_however_often_it_is_asked_for(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    planned = await post(client, "/v1/rerates", {"filter": {"user_id": "bob"}, "reason": "why"})
    first = await post(client, f"/v1/rerates/{planned['id']}/apply")
    assert (first["state"], first["reason"]) == ("applied", "why")
    assert first["applied"] == {"scanned": 3, "changed": 3, "delta_usd": planned["delta_usd"]}
    assert await post(client, f"/v1/rerates/{planned['id']}/apply") == first
    usage = (await client.get("/v1/users/bob/usage")).json()
    assert usage["total_cost_usd"] == planned["new_cost_usd"]
    one = (await client.get("/v1/users/bob/events/bob-1")).json()
    assert one["cost_usd"] == "0.0003123"
    assert len(await history_of(runtime.db)) == 3
    answer = await client.post(f"/v1/rerates/{planned['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (409, "applied")
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["consistent"], proof
    assert {"name": "adjustments_sum_to_present", "holds": True, "compared": 3} in proof[
        "identities"
    ]


@pytest.mark.usefixtures("dearer")
async def test_a_cancelled_re_rate_is_not_applied(client: httpx.AsyncClient) -> None:
    planned = await post(client, "/v1/rerates", {"filter": {}})
    cancelled = await post(client, f"/v1/rerates/{planned['id']}/cancel")
    assert cancelled["state"] == "cancelled"
    assert await post(client, f"/v1/rerates/{planned['id']}/cancel") == cancelled
    answer = await client.post(f"/v1/rerates/{planned['id']}/apply")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.usefixtures("dearer")
async def test_re_rates_are_listed_newest_first(client: httpx.AsyncClient) -> None:
    made = [(await post(client, "/v1/rerates", {"filter": {}}))["id"] for _ in range(5)]
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = f"?limit=2&cursor={cursor}" if cursor else "?limit=2"
        page = (await client.get(f"/v1/rerates{query}")).json()
        found += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(found) == sorted(made)


@pytest.mark.usefixtures("dearer")
@pytest.mark.parametrize(
    ("wanted", "events", "changed"),
    [
        ({}, 6, 5),
        ({"user_id": "ann"}, 2, 2),
        ({"user_id": "nobody"}, 0, 0),
        ({"model": "gpt-4o-mini", "from": "2026-11-19T00:00:00Z"}, 3, 3),
        ({"from": "2026-11-18T10:00:00Z", "to": "2026-11-19T10:00:00Z"}, 2, 2),
        ({"from": "2026-11-18T11:00:00+01:00", "user_id": "bob"}, 3, 3),
        ({"cost_status": ["unpriced"]}, 1, 0),
        ({"cost_status": ["priced", "estimated"]}, 5, 5),
        ({"event_ids": ["ann-0", "bob-2", "bob-2"]}, 2, 2),
        ({"event_ids": ["ann-0", "bob-2"], "user_id": "ann"}, 1, 1),
        ({"team_id": "red"}, 0, 0),
    ],
)
async def test_only_what_is_meant_is_looked_at(
    client: httpx.AsyncClient, wanted: dict[str, Any], events: int, changed: int
) -> None:
    told = await post(client, "/v1/rerates", {"filter": wanted, "dry_run": False})
    assert (told["events"], told["changed"]) == (events, changed)
    assert told["applied"]["changed"] == changed
    assert told["state"] == "applied"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/filter"),
        ({"filter": None}, "/filter"),
        ({"filter": {"colour": "red"}}, "/filter/colour"),
        ({"filter": {}, "really": True}, "/really"),
        ({"filter": {}, "dry_run": "no"}, "/dry_run"),
        ({"filter": {}, "reason": "x" * 300}, "/reason"),
        ({"filter": {}, "reason": "a\u0000b"}, "/reason"),
        ({"filter": {"user_id": ""}}, "/filter/user_id"),
        ({"filter": {"user_id": "\ud800"}}, ""),
        ({"filter": {"from": "yesterday"}}, "/filter/from"),
        ({"filter": {"from": "2026-11-01T00:00:00"}}, "/filter/from"),
        (
            {"filter": {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}},
            "/filter/to",
        ),
        ({"filter": {"cost_status": []}}, "/filter/cost_status"),
        ({"filter": {"cost_status": ["provided"]}}, "/filter/cost_status/0"),
        ({"filter": {"cost_status": "priced"}}, "/filter/cost_status"),
        ({"filter": {"event_ids": []}}, "/filter/event_ids"),
        ({"filter": {"event_ids": [""]}}, "/filter/event_ids/0"),
        ({"filter": {"event_ids": ["a\u0000"]}}, "/filter/event_ids/0"),
        ({"filter": {"event_ids": [7]}}, "/filter/event_ids/0"),
    ],
)
async def test_a_re_rate_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, body: Any, pointer: str
) -> None:
    answer = await client.post(
        "/v1/rerates", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert pointer in {one["pointer"] for one in answer.json()["errors"]} | {""}
    assert (await client.get("/v1/rerates")).json()["items"] == []


@pytest.mark.parametrize("path", ["", "/apply", "/cancel"])
async def test_a_re_rate_that_is_not_there_is_not_found(
    client: httpx.AsyncClient, path: str
) -> None:
    method = "POST" if path else "GET"
    answer = await client.request(method, f"/v1/rerates/rer_none{path}")
    assert answer.status_code == 404
    assert answer.json()["id"] == "rer_none"


async def test_a_total_that_would_pass_what_can_be_counted_is_refused(
    client: httpx.AsyncClient, runtime: Runtime, catalog: Catalog
) -> None:
    many = [event(number) | {"usage": {"input_tokens": 2**52}} for number in (1, 2, 3)]
    await send(client, many)
    runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=2_000)
    answer = await client.post("/v1/rerates", json={"filter": {}, "dry_run": False})
    assert answer.status_code == 409, answer.text
    assert await history_of(runtime.db) == {}
    assert (await client.get("/v1/audit/consistency")).json()["consistent"]
