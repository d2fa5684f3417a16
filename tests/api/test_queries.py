"""A query parameter that a route does not take is refused, not ignored."""

import re
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio
EVENT: dict[str, Any] = {"user_id": "asker", "provider": "openai", "model": "gpt-4o-mini"}
OPEN = {"operations", "other formats"}
"""Probes add what keeps caches away; other people's clients add what they like."""


def place(answer: httpx.Response) -> str:
    assert answer.status_code == 422, (answer.url, answer.text)
    (error,) = answer.json()["errors"]
    assert error["detail"]
    return str(error["pointer"])


async def test_every_route_of_ours_refuses_a_parameter_that_it_does_not_take(
    client: httpx.AsyncClient,
) -> None:
    document = (await client.get("/openapi.json")).json()
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if OPEN.isdisjoint(operation["tags"]):
                target = re.sub(r"{\w+}", "none", path)
                body = None if method in ("get", "delete") else {"user_id": "asker"}
                answer = await client.request(method, f"{target}?nope=1", json=body)
                assert place(answer) == "/nope", (method, path)
                asked += 1
    assert asked > 90


async def test_a_misspelt_dry_run_wraps_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/users/asker/logs/wrap?dryrun=true")
    assert place(answer) == "/dryrun"
    assert (await client.get("/v1/audit/changes?kind=log")).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("backfil=true", "/backfil"),
        ("backfill=perhaps", "/backfill"),
        ("backfill=true&backfill=false", "/backfill"),
        ("atomic=maybe", "/atomic"),
        ("results=some", "/results"),
        ("results=", "/results"),
        ("atomic=%00", "/atomic"),
        ("x" * 5_000 + "=1", "/" + "x" * 64),
    ],
)
@pytest.mark.parametrize("body", [EVENT, [EVENT]], ids=["one", "many"])
async def test_events_are_asked_for_as_it_is_written_or_not_at_all(
    client: httpx.AsyncClient, body: object, query: str, pointer: str
) -> None:
    assert place(await client.post(f"/v1/events?{query}", json=body)) == pointer
    listed = await client.get("/v1/users/asker/events")
    assert listed.json()["items"] == []
    assert len(listed.text) < 100


async def test_every_parameter_of_events_is_taken(client: httpx.AsyncClient) -> None:
    query = "atomic=true&backfill=1&results=all"
    assert (await client.post(f"/v1/events?{query}", json=EVENT)).status_code == 201
    answer = await client.post(f"/v1/events?{query}", json=[EVENT, EVENT])
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 2


async def test_clients_of_other_formats_may_add_what_they_like(client: httpx.AsyncClient) -> None:
    for query, status in (("v=2&v=3&backfill=true", 200), ("backfill=1&backfill=0", 422)):
        answer = await client.post(f"/v1/traces?{query}", json={"resourceSpans": []})
        assert answer.status_code == status, answer.text
    assert (await client.get("/healthz?at=1")).status_code == 200


async def test_who_has_no_key_learns_nothing_else(client: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/v1/events"), ("GET", "/v1/plans"), ("POST", "/v1/holds")):
        answer = await client.request(method, f"{path}?x=1", headers={"Authorization": "no"})
        assert answer.status_code == 401
