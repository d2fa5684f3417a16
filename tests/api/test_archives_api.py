"""Archives over HTTP: listed, proven, restored; bad input is named."""

import json
from pathlib import Path

import httpx
import pytest

from app.runtime import Runtime
from tests.conftest import START
from tests.integration.archived import ROWS, WRAPPED, archives, send, wrap_all

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ids(runtime: Runtime, client: httpx.AsyncClient) -> list[str]:
    """An archive of each of two users, oldest first."""
    await send(client, "alice", "bob")
    await wrap_all(runtime, "alice")
    await wrap_all(runtime, "bob")
    by_user = {}
    for user_id in ("alice", "bob"):
        found = await client.get("/v1/archives", params={"user_id": user_id})
        by_user[user_id] = found.json()["items"][0]["id"]
    return [by_user["alice"], by_user["bob"]]


async def test_an_archive_is_shown_with_what_it_holds(
    client: httpx.AsyncClient, ids: list[str], tmp_path: Path
) -> None:
    answer = await client.get(f"/v1/archives/{ids[0]}")
    assert answer.status_code == 200
    said = answer.json()
    assert said["state"] == "sealed"
    assert (said["month"], said["users"], said["events"]) == ("2026-11", 1, WRAPPED)
    assert (tmp_path / "archives" / said["path"]).stat().st_size == said["bytes"]
    assert said["sums"]["calls"] == WRAPPED
    assert isinstance(said["sums"]["cost_usd"], str)
    assert float(said["sums"]["cost_usd"]) > 0
    assert "cost_nanos" not in said["sums"]
    assert said["created_at"].endswith("Z")


async def test_the_list_is_paged_and_asked_for_by_state_month_and_user(
    client: httpx.AsyncClient, ids: list[str]
) -> None:
    first = (await client.get("/v1/archives", params={"limit": 1})).json()
    rest = (
        await client.get("/v1/archives", params={"limit": 1, "cursor": first["next_cursor"]})
    ).json()
    assert rest["next_cursor"] is None
    assert {one["id"] for one in (*first["items"], *rest["items"])} == set(ids)
    assert first["items"] != rest["items"]
    wanted = [
        ({"state": "sealed"}, set(ids)),
        ({"state": "restored"}, set()),
        ({"month": "2026-11"}, set(ids)),
        ({"month": "2026-10"}, set()),
        ({"user_id": "bob", "state": "sealed", "month": "2026-11"}, {ids[1]}),
        ({"user_id": "nobody"}, set()),
    ]
    for params, expected in wanted:
        found = (await client.get("/v1/archives", params=params)).json()
        assert {one["id"] for one in found["items"]} == expected, params


async def test_verify_says_that_an_archive_is_whole_or_what_is_wrong(
    client: httpx.AsyncClient, ids: list[str], tmp_path: Path
) -> None:
    said = (await client.get(f"/v1/archives/{ids[0]}")).json()
    good = await client.post(f"/v1/archives/{ids[0]}/verify")
    assert good.status_code == 200
    body = good.json()
    assert (body["id"], body["ok"], body["problems"], body["events"]) == (ids[0], True, [], WRAPPED)
    assert said["sums"].items() <= body["sums"].items()
    path = tmp_path / "archives" / said["path"]
    path.write_bytes(path.read_bytes()[:-10])
    bad = await client.post(f"/v1/archives/{ids[0]}/verify")
    assert bad.status_code == 200
    assert not bad.json()["ok"]
    assert "the file cannot be read as Parquet" in bad.json()["problems"]


async def test_restore_puts_the_rows_back_and_may_be_repeated(
    client: httpx.AsyncClient, ids: list[str]
) -> None:
    usage = (await client.get("/v1/users/alice/usage")).json()
    for _ in range(2):
        answer = await client.post(f"/v1/archives/{ids[0]}/restore")
        assert answer.status_code == 200
        assert answer.json()["state"] == "restored"
    listed = (await client.get("/v1/users/alice/events", params={"limit": 1000})).json()
    assert len(listed["items"]) == ROWS
    assert (await client.get("/v1/users/alice/usage")).json() == usage
    assert (await client.get("/v1/archives", params={"user_id": "alice"})).json()["items"] == []
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["consistent"], proof["differences"]


async def test_a_damaged_archive_is_not_restored(
    client: httpx.AsyncClient, ids: list[str], tmp_path: Path
) -> None:
    said = (await client.get(f"/v1/archives/{ids[0]}")).json()
    (tmp_path / "archives" / said["path"]).unlink()
    answer = await client.post(f"/v1/archives/{ids[0]}/restore")
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["type"] == "/docs/problems#archive-damaged"
    assert problem["problems"] == ["the file is missing"]
    assert str(tmp_path) not in answer.text


async def test_a_place_that_is_gone_says_nothing_of_the_archive(
    client: httpx.AsyncClient, ids: list[str], tmp_path: Path
) -> None:
    (tmp_path / "archives").rename(tmp_path / "unmounted")
    for verb in ("verify", "restore"):
        answer = await client.post(f"/v1/archives/{ids[0]}/{verb}")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    (tmp_path / "unmounted").rename(tmp_path / "archives")
    assert (await client.post(f"/v1/archives/{ids[0]}/verify")).json()["ok"]


@pytest.mark.parametrize(
    "query",
    [
        "state=lost",
        "state=",
        "month=2026-13",
        "month=2026-1",
        "month=%00",
        "user_id=",
        "user_id=%00",
        "user_id=" + "x" * 257,
        "cursor=!",
        "cursor=" + "A" * 600,
        "limit=0",
        "limit=1001",
        "limit=x",
    ],
)
async def test_a_bad_question_is_named(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/v1/archives?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    (error, *_) = answer.json()["errors"]
    assert error["pointer"] == f"/{query.partition('=')[0]}"


@pytest.mark.parametrize("archive_id", ["none", "..", "%2e%2e%2fx", "arc_%27", "x" * 129, "%00"])
async def test_an_id_of_nothing_is_not_found_or_refused(
    client: httpx.AsyncClient, archive_id: str
) -> None:
    for method, path in (("GET", ""), ("POST", "/verify"), ("POST", "/restore")):
        answer = await client.request(method, f"/v1/archives/{archive_id}{path}")
        assert answer.status_code in (404, 405, 422), answer.text


async def test_archives_are_described_for_machines(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()
    text = json.dumps(paths["components"]["schemas"]["ArchiveOut"])
    assert "examples" in text
    assert paths["paths"]["/v1/archives/{archive_id}/restore"]["post"]["security"]


async def test_what_was_never_wrapped_has_no_archives(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    assert (await client.get("/v1/archives")).json() == {"items": [], "next_cursor": None}
    assert await archives(runtime) == []
    assert runtime.clock.now() == START
