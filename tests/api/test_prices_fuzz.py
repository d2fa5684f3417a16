"""Whatever is sent to the endpoints of prices, the answer is a result or says what is wrong."""

import json
import random
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

RATE = {"usd": "2.5", "per": 1_000_000}
TIERS = {
    "mode": "graduated",
    "tiers": [{"up_to": 1000, "usd": "1", "per": 1000}, {"up_to": None, "usd": "0.5", "per": 7}],
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/prices": {
        "provider": "acme",
        "model": "chat",
        "match": "exact",
        "user_id": "alice",
        "team_id": None,
        "effective_from": "2026-11-01T00:00:00Z",
        "effective_to": None,
        "context": {"region": "eu"},
        "rates": {"input_tokens": RATE, "output_tokens": TIERS},
        "multiplier": "1.5",
        "min_charge_usd": "0.01",
        "min_quantity": {"audio_seconds": 10},
        "default": False,
        "source": "contract",
        "force": True,
    },
    "/v1/model-aliases": {"provider": "azure", "model": "prod", "resolves_to": "gpt-4o"},
    "/v1/prices/estimate": {
        "provider": "acme",
        "model": "chat",
        "usage": {"input_tokens": 10, "output_tokens": 5, "audio_seconds": 1.5},
        "timestamp": "2026-11-18T12:00:00Z",
        "context": {"region": "eu"},
        "user_id": "alice",
    },
}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63, 2**70, 1.5, -0.0, 1e300, 1e-300),
    *(
        "",
        " ",
        "*",
        "0",
        "-0",
        "1e9",
        "NaN",
        "Infinity",
        "9" * 39,
        "0." + "0" * 9 + "1",
        "٣",
        "\ud83d",
    ),
    *(
        "\u0000",
        "a" * 300,
        "+",
        "a+b c",
        "é" * 40,
        "(",
        ".*",
        "ft:",
        "arn:aws:bedrock:::",
        "//",
        ":",
    ),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "2026-11-18"),
    *([], {}, [[]], {"": ""}, {"input_tokens": None}, {"usd": "1", "per": 1}, [{"up_to": None}]),
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a body, its own members and those further inside."""
    if isinstance(value, dict):
        inside = list(value.items())
    else:
        inside = list(enumerate(value)) if isinstance(value, list) else []
    return [spot for key, each in inside for spot in [(*path, key), *spots(each, (*path, key))]]


def changed(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The body with one or two places removed, renamed or filled with something odd."""
    made: dict[str, Any] = json.loads(json.dumps(body))
    for _ in range(chance.randint(1, 2)):
        *way, last = chance.choice(spots(made))
        holder: Any = made
        for key in way:
            holder = holder[key]
        what = chance.random()
        if what < 0.1:
            del holder[last]
        elif what < 0.2 and isinstance(holder, dict):
            holder[chance.choice(("zz", "cache_read_tokens", "requests", "\u0000", "~/"))] = (
                holder.pop(last)
            )
        else:
            holder[last] = chance.choice(ODD)
        if not made:
            return made
    return made


@pytest.mark.parametrize("path", BODIES)
async def test_no_body_makes_the_service_fail(client: httpx.AsyncClient, path: str) -> None:
    chance = random.Random(path)
    taken = 0
    for _ in range(250):
        body = changed(BODIES[path], chance)
        sent = json.dumps(body).encode("utf-8", "surrogatepass")
        answer = await client.post(path, content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 201, 400, 422), (body, answer.text)
        taken += answer.status_code < 300
        if answer.status_code == 422:
            assert answer.json()["errors"][0]["pointer"].startswith("/"), answer.text
    assert taken > 10
    call = {"provider": "acme", "model": "chat", "usage": {"input_tokens": 10}}
    for made in (call, call | {"user_id": "alice"}, call | {"context": {"region": "eu"}}):
        answer = await client.post("/v1/prices/estimate", json=made)
        assert answer.status_code in (200, 422), answer.text
    assert (await client.get("/v1/prices?provider=acme&limit=1000")).status_code == 200
    assert (await client.get("/v1/model-aliases?limit=1000")).status_code == 200


async def test_a_cost_that_cannot_be_kept_is_refused_and_free_is_not_unknown(
    client: httpx.AsyncClient,
) -> None:
    most = {"input_tokens": 2**53 - 1, "output_tokens": 2**53 - 1}
    call: dict[str, Any] = {"provider": "openai", "model": "gpt-4o", "usage": most}
    event = {"user_id": "alice", **call}
    assert (await client.post("/v1/prices/estimate", json=call)).status_code == 422
    assert (await client.post("/v1/events", json=event)).status_code == 422
    batch = await client.post("/v1/events", json=[event, event | {"model": "gpt-4o-mini"}])
    assert batch.status_code in (207, 422)
    for model, cost, status in (
        ("omni-moderation-latest", "0", "priced"),
        ("gpt-4o-mini-nobody", None, "unpriced"),
    ):
        made = event | {"model": model, "usage": {"input_tokens": 500}}
        receipt = (await client.post("/v1/events", json=made)).json()
        assert (receipt["cost_usd"], receipt["cost_status"]) == (cost, status), model
