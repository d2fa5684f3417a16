"""Corrections of events whose rows lie in an archive, whether it can be read or not."""

import random
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.analytics.audit import PROOF_S, prove
from app.core.clock import FrozenClock
from app.core.errors import Unavailable
from app.retention.store import ArchiveStore
from app.runtime import Runtime
from tests.conftest import START
from tests.integration.archived import ROWS, send, wrap_all
from tests.integration.corrections import WHY
from tests.properties.books import log_in

pytestmark = pytest.mark.anyio
ONE = "/v1/users/alice/events/e10"


async def usage(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/v1/users/alice/usage")).json()
    return found


async def assert_proven(runtime: Runtime) -> None:
    proof = await runtime.db.read(lambda tx: prove(tx, START), within_s=PROOF_S)
    assert proof.consistent, proof.differences


async def post(client: httpx.AsyncClient, verb: str, status: int = 200, **body: Any) -> Any:
    answer = await client.post(f"{ONE}/{verb}", json={"reason": WHY} | body)
    assert answer.status_code == status, answer.text
    return answer.json()


def damage(runtime: Runtime) -> None:
    for file in Path(runtime.settings.archive_url).rglob("*.parquet"):
        file.unlink()


async def test_a_wrapped_event_is_voided_and_corrected_as_any_other(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    before = await usage(client)
    await wrap_all(runtime, "alice")
    assert ("alice", "e10") not in await log_in(runtime.db)
    found = await post(client, "correct", fields={"usage": {"input_tokens": 10}})
    assert found["usage"] == {"input_tokens": 10, "output_tokens": 0}
    assert found["team_id"] == "blue"
    await assert_proven(runtime)
    after = await usage(client)
    assert after["total_tokens"] == before["total_tokens"] - 1_010 - 10 + 10
    assert (await post(client, "void"))["voided"] is True
    assert await post(client, "void") == await post(client, "void")
    assert (await usage(client))["total_calls"] == before["total_calls"] - 1
    await assert_proven(runtime)


async def test_a_correction_outlives_wrapping_and_restoring(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    await post(client, "correct", fields={"usage": {"input_tokens": 10}, "model": "gpt-4o"})
    told = await usage(client)
    (archive,) = await wrap_all(runtime, "alice")
    await assert_proven(runtime)
    assert await usage(client) | {"last_updated": None} == told | {"last_updated": None}
    await post(client, "correct", fields={"task_type": "chat"})
    answer = await client.post(f"/v1/archives/{archive.id}/restore")
    assert answer.status_code == 200, answer.text
    await assert_proven(runtime)
    shown = (await client.get(ONE)).json()
    assert (shown["model"], shown["task_type"], shown["corrections"]) == ("gpt-4o", "chat", 2)
    await post(client, "void")
    await assert_proven(runtime)


async def test_a_lost_archive_leaves_an_amount_to_correct_by(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    await wrap_all(runtime, "alice")
    before = await usage(client)
    damage(runtime)
    for verb, body in (("void", {}), ("correct", {"fields": {"task_type": "x"}})):
        refused = await post(client, verb, 409, **body)
        assert refused["archive_id"].startswith("arc")
        assert "cannot be read" in refused["detail"]
    vague = await post(client, "correct", 422, cost_usd="0.5")
    assert vague["errors"][0]["pointer"] == "/names"
    names = {"provider": "openai", "model": "gpt-4o-mini", "team_id": "blue", "status_code": 500}
    none = {"names": names | {"model": "gpt-4o"}}
    assert (await post(client, "correct", 422, cost_usd="0.5", **none))["errors"]
    found = await post(client, "correct", cost_usd="0.5", names=names)
    assert found["cost_usd"] == "0.5001575"
    after = await usage(client)
    assert after["total_calls"] == before["total_calls"]
    assert after["total_tokens"] == before["total_tokens"]
    assert after["total_cost_usd"] != before["total_cost_usd"]


async def test_an_archive_that_does_not_answer_is_503_and_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(client, "alice")
    await wrap_all(runtime, "alice")
    before = await usage(client)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("archives cannot be read now")

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveStore, "read", away)
        await post(client, "void", 503)
        asked = await client.get(f"{ONE}/explain")
        assert (asked.status_code, asked.json()["archive_id"][:4]) == (503, "arc_")
        assert (await client.get(ONE)).json()["event"] is None
    assert await usage(client) == before
    await post(client, "void")
    await assert_proven(runtime)


async def test_a_period_is_known_as_it_was_though_later_calls_were_wrapped(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, "alice")
    before = await usage(client)
    clock.advance(timedelta(hours=1))
    await send(client, "alice")
    late = {"id": "late", "user_id": "alice", "timestamp": "2026-11-20T12:20:30Z"}
    assert (await client.post("/v1/events", json=late)).status_code == 201
    await wrap_all(runtime, "alice")
    assert ("alice", "late") not in await log_in(runtime.db)
    path = "/v1/users/alice/usage?as_of=2026-11-20T12:30:00Z"
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    then = answer.json()
    assert then["providers"] == before["providers"]
    assert then["changed_since"]["calls"] == 1
    damage(runtime)
    assert (await client.get(path)).status_code == 409


FIGURES = ("calls", "errors", "cost", "input_tokens", "output_tokens", "unpriced_calls")


async def listed(client: httpx.AsyncClient, query: str = "", size: int = 100) -> dict[str, Any]:
    """What the items of all pages add up to; a detailed event that was voided is no call."""
    found: dict[str, Any] = dict.fromkeys(FIGURES, Decimal(0))
    cursor = ""
    while True:
        path = f"/v1/users/alice/events?limit={size}{query}{cursor}"
        page = (await client.get(path)).json()
        for one in page["items"]:
            is_group = one["kind"] == "wrapped"
            counts = is_group or not one["voided"]
            found["calls"] += one["calls"] if is_group else counts
            found["errors"] += one["errors"] if is_group else counts and one["status_code"] >= 400
            found["cost"] += Decimal(one["cost_usd"] or 0)
            unpriced = counts and one["cost_usd"] is None
            found["unpriced_calls"] += one["unpriced_calls"] if is_group else unpriced
            for name in ("input_tokens", "output_tokens"):
                found[name] += one["usage"].get(name, 0)
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def assert_listed_as_used(client: httpx.AsyncClient) -> None:
    told = await usage(client)
    expected = {
        "calls": told["total_calls"],
        "errors": round(told["error_rate"] * told["total_calls"] / 100),
        "cost": Decimal(told["total_cost_usd"]),
        "unpriced_calls": told["unpriced_calls"],
        **{name: told[name] for name in ("input_tokens", "output_tokens")},
    }
    for size in (1, 3, 100):
        assert await listed(client, size=size) == expected


async def test_items_of_the_list_sum_to_what_was_used_whatever_was_corrected_when(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    await client.post("/v1/users/alice/events/e11/void", json={"reason": WHY})
    await client.post(
        "/v1/users/alice/events/e1/correct", json={"reason": WHY, "fields": {"model": "gpt-4o"}}
    )
    await assert_listed_as_used(client)
    archive = (await wrap_all(runtime, "alice"))[0]
    await assert_listed_as_used(client)
    fields = {"usage": {"input_tokens": 7}, "model": "gpt-4o", "status_code": 200}
    await post(client, "correct", fields=fields)
    await assert_listed_as_used(client)
    for number in (12, 13, 14):
        path = f"/v1/users/alice/events/e{number}"
        await client.post(f"{path}/void", json={"reason": WHY})
    amount = {"reason": WHY, "cost_usd": "0.25"}
    assert (await client.post(ONE.replace("e10", "e20") + "/correct", json=amount)).is_success
    await assert_listed_as_used(client)
    assert (await listed(client, "&team_id=blue&status=error"))["calls"] == 4
    await client.post(f"/v1/archives/{archive.id}/restore")
    await assert_listed_as_used(client)


async def test_an_amount_without_the_archive_is_in_the_list_once(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    await wrap_all(runtime, "alice")
    damage(runtime)
    names = {"provider": "openai", "model": "gpt-4o-mini", "team_id": "blue", "status_code": 500}
    await post(client, "correct", cost_usd="0.5", names=names)
    await assert_listed_as_used(client)
    found = (await client.get(ONE)).json()
    assert (found["cost_usd"], found["corrections"]) == ("0.5001575", 1)
    assert found["event"] is found["usage"] is found["model"] is None


async def test_a_wrapped_event_has_one_cost_the_one_that_stands(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    await wrap_all(runtime, "alice")
    corrected = await post(client, "correct", fields={"usage": {"input_tokens": 10}})
    found = (await client.get(ONE)).json()
    assert (found["kind"], found["corrections"]) == ("wrapped_event", 1)
    assert found["cost_usd"] == corrected["cost_usd"] == found["event"]["cost_usd"]
    for name in ("provider", "model", "usage", "timestamp", "cost_status", "billing_period"):
        assert found[name] == found["event"][name] == corrected[name]
    told = (await client.get(f"{ONE}/explain")).json()
    assert told["cost_usd"] == found["cost_usd"] == told["lines"][0]["amount_usd"]
    damage(runtime)
    assert (await client.get(ONE)).json() == found
    assert (await client.get(f"{ONE}/explain")).json() == told
    await post(client, "void")
    voided = (await client.get(ONE)).json()
    assert (voided["voided"], voided["cost_usd"], voided["event"]["cost_usd"]) == (True, "0", "0")
    assert voided["usage"] == {"input_tokens": 0, "output_tokens": 0}
    told = (await client.get(f"{ONE}/explain")).json()
    assert (told["why"], told["cost_usd"]) == ("the event was voided", "0")


async def test_a_wrapped_event_is_explained_from_its_archive_or_names_it(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, "alice")
    before = (await client.get(f"{ONE}/explain")).json()
    assert before["lines"]
    (archive,) = await wrap_all(runtime, "alice")
    assert (await client.get(f"{ONE}/explain")).json() == before
    damage(runtime)
    answer = await client.get(f"{ONE}/explain")
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["archive_id"] == archive.id
    assert f"POST /v1/archives/{archive.id}/restore" in problem["detail"]
    missing = await client.get("/v1/users/alice/events/none/explain")
    assert (missing.status_code, missing.json()["detail"]) == (404, "this user has no such event")


EDITS: tuple[dict[str, Any], ...] = (
    {"fields": {"usage": {"input_tokens": 3, "cache_read_tokens": 2}}},
    {"fields": {"model": "gpt-4o", "status_code": 200}},
    {"fields": {"timestamp": "2026-11-20T09:00:00Z", "latency_ms": None}},
    {"fields": {"cost_usd": "0.125"}},
    {"cost_usd": "0.5"},
)


@pytest.mark.parametrize("seed", range(3))
async def test_in_any_order_of_wraps_restores_and_corrections_the_list_sums_to_the_usage(
    client: httpx.AsyncClient, runtime: Runtime, seed: int
) -> None:
    pick, keeps = random.Random(seed), iter(range(ROWS - 4, 0, -4))
    await send(client, "alice", "bob")

    async def change() -> None:
        path = f"/v1/users/alice/events/e{pick.randrange(ROWS)}"
        body = {"reason": WHY} | pick.choice(EDITS)
        verb = pick.choice(("correct", "correct", "void"))
        said = body if verb == "correct" else {"reason": WHY}
        answer = await client.post(f"{path}/{verb}", json=said)
        assert answer.status_code in (200, 409), answer.text

    async def put_back() -> None:
        sealed = (await client.get("/v1/archives?state=sealed")).json()["items"]
        if sealed:
            answer = await client.post(f"/v1/archives/{pick.choice(sealed)['id']}/restore")
            assert answer.status_code == 200, answer.text

    async def set_aside() -> None:
        if keep := next(keeps, None):  # a wrap looks further ahead than the one before
            await wrap_all(runtime, "alice", "bob", keep=keep)

    for _ in range(12):
        for step in pick.choices((change, set_aside, put_back), (6, 2, 1), k=4):
            await step()
        told = await usage(client)
        found = await listed(client, size=7)
        assert (found["calls"], found["cost"]) == (
            told["total_calls"],
            Decimal(told["total_cost_usd"]),
        )
        assert found["input_tokens"] == told["input_tokens"]
        assert found["unpriced_calls"] == told["unpriced_calls"]
