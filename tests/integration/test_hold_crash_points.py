"""The database dies at every operation of a hold in turn; who asks again holds and frees once."""

from typing import Any

import pytest

from app.analytics.audit import prove
from tests.integration.test_crash_points import Service, moment, script, service

__all__ = ("moment", "script", "service")
pytestmark = pytest.mark.anyio


async def send(service: Service, path: str, body: Any) -> tuple[int, Any]:
    """Send until answered, as a client does."""
    for _ in range(4):
        answer = await service.client.post(path, json=body)
        if answer.status_code != 503:
            break
        assert answer.headers["Retry-After"]
        if service.script.dead:
            service.script.armed = service.script.dead = False
            await service.stop()
            await service.start()
    return answer.status_code, answer.json()


async def run(service: Service, user: str, fatal: int) -> None:
    """One hold that stays, one that is settled, one that is released, one that does not fit."""
    body: dict[str, Any] = {
        "name": "l",
        "scope": {"user_id": user},
        "metric": "tokens",
        "window": "day",
    }
    body |= {"amount": 100, "thresholds": [10]}
    assert (await service.client.post("/v1/limits", json=body)).status_code == 201

    def ask(name: str, tokens: int) -> dict[str, Any]:
        return {"id": f"{user}-{name}", "user_id": user, "usage": {"input_tokens": tokens}}

    service.script.arm(fatal)
    assert (await send(service, "/v1/holds", ask("kept", 30)))[0] in (200, 201)
    assert (await send(service, "/v1/holds", ask("spent", 60)))[0] in (200, 201)
    assert (await send(service, "/v1/holds", ask("refused", 11)))[0] == 429
    event = {"event": {"usage": {"input_tokens": 20}}}
    assert (await send(service, f"/v1/holds/{user}-spent/settle", event))[0] in (200, 201)
    assert (await send(service, "/v1/holds", ask("given", 50)))[0] in (200, 201)
    code, told = await send(service, f"/v1/holds/{user}-given/release", None)
    assert (code, told["status"]) == (200, "released")
    service.script.armed = False


async def test_wherever_the_database_dies_a_hold_holds_once_and_frees_once(
    service: Service,
) -> None:
    places: list[str] = []
    while True:
        fatal = len(places) + 1
        user = f"user-{fatal}"
        await run(service, user, fatal)
        where = service.script.died_at
        [state] = (await service.client.get(f"/v1/users/{user}/limits")).json()["items"]
        assert (state["used"], state["held"]) == (20, 30), where
        alerts = (await service.client.get(f"/v1/users/{user}/alerts")).json()["items"]
        assert [one["threshold"] for one in alerts] == [10], where
        if not where:  # the script ends before that operation
            break
        places.append(where)
    assert places.count("COMMIT") >= 6
    for table in ("holds", "hold_amounts", "limit_counters", "usage_events"):
        assert any(table in place for place in places), table
    runtime = service.runtime
    proof = await runtime.db.read(lambda tx: prove(tx, runtime.clock.now()))
    assert proof.differences == []
