"""Corrections of events whose rows lie in an archive, whether it can be read or not."""

from datetime import timedelta
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
from tests.integration.archived import send, wrap_all
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
