"""Stating prices and aliases over HTTP, reading them, and what is unpriced."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock

pytestmark = pytest.mark.anyio

USD = "/rates/input_tokens/usd"
INPUT = {"input_tokens": {"usd": "2", "per": 1_000_000}}
PRICE: dict[str, Any] = {"provider": "acme", "model": "chat", "rates": INPUT}
CALL = {"user_id": "alice", "provider": "acme", "model": "chat", "usage": {"input_tokens": 10**6}}


async def state(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    """State a price and give the answer."""
    answer = await client.post("/v1/prices", json=PRICE | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def cost(client: httpx.AsyncClient, **more: Any) -> tuple[str | None, str]:
    """What a recorded call costs, and how sure that is."""
    answer = await client.post("/v1/events", json=CALL | more)
    assert answer.status_code == 201, answer.text
    return answer.json()["cost_usd"], answer.json()["cost_status"]


async def test_a_stated_price_says_what_was_stated_and_is_charged(
    client: httpx.AsyncClient,
) -> None:
    said = {
        "match": "exact",
        "user_id": "alice",
        "effective_from": "2026-11-01T00:00:00Z",
        "effective_to": "2027-01-01T00:00:00Z",
        "context": {"region": "EU"},
        "rates": {
            "input_tokens": {
                "mode": "cliff",
                "tiers": [
                    {"up_to": 1000, "usd": "1", "per": 1_000_000},
                    {"up_to": None, "usd": "2.000000001", "per": 1_000_000},
                ],
            },
            "output_images": {
                "mode": "graduated",
                "tiers": [
                    {"up_to": 10, "usd": "0.05", "per": 1},
                    {"up_to": None, "usd": "0.3", "per": 10},
                ],
            },
            "audio_seconds": {"usd": "0.36", "per": 3600},
        },
        "multiplier": "1.5",
        "min_charge_usd": "0.01",
        "min_quantity": {"audio_seconds": 10},
        "source": "contract 4711",
    }
    made = await state(client, **said)
    assert made["id"].startswith("price_")
    for name in ("user_id", "effective_from", "effective_to", "multiplier", "min_charge_usd"):
        assert made[name] == said[name]
    assert made["origin"] == "override"
    assert made["context"] == {"region": "eu"}
    assert made["min_quantity"] == {"audio_seconds": 10}
    assert made["rates"]["input_tokens"] == said["rates"]["input_tokens"]  # type: ignore[index]
    assert made["rates"]["audio_seconds"] == {"usd": "0.36", "per": 3600}
    drawn = made["rates"]["output_images"]
    assert drawn["mode"] == "graduated"
    assert [(tier["up_to"], tier["usd"], tier["per"]) for tier in drawn["tiers"]] == [
        (10, "0.5", 10),
        (None, "0.3", 10),
    ]
    assert (await client.get(f"/v1/prices/{made['id']}")).json() == made
    assert (await client.get("/v1/prices?provider=acme")).json()["items"] == [made]
    where = {"context": {"region": "eu"}}
    assert await cost(client, **where) == ("3.000000002", "priced")
    assert await cost(client, **where, usage={"input_tokens": 1000}) == ("0.01", "priced")
    assert await cost(client, **where, usage={"output_images": 12}) == ("0.84", "priced")
    assert await cost(client, **where, usage={"audio_seconds": 200}) == ("0.03", "priced")
    assert await cost(client, **where, user_id="bob") == (None, "unpriced")
    assert await cost(client) == (None, "unpriced")
    late = {"timestamp": "2026-10-31T23:59:59Z", **where}
    assert await cost(client, **late) == (None, "unpriced")


async def test_the_nearest_statement_wins_and_retiring_it_leaves_events_as_they_are(
    client: httpx.AsyncClient,
) -> None:
    price = {"provider": "openai", "model": "gpt-4o-mini"}
    call = price | {"usage": {"input_tokens": 10**6}}
    ids = {}
    for whose, usd in (({}, "3"), ({"team_id": "red"}, "4"), ({"user_id": "alice"}, "5")):
        rates = {"input_tokens": {"usd": usd, "per": 1_000_000}}
        ids[usd] = (await state(client, **price, **whose, rates=rates))["id"]
    assert await cost(client, **call, team_id="red", id="e") == ("5", "priced")
    assert await cost(client, **call, user_id="bob", team_id="red") == ("4", "priced")
    assert await cost(client, **call, user_id="bob") == ("3", "priced")
    for query, usd in (({"user_id": "alice"}, "5"), ({"team_id": "red"}, "4"), ({}, "3")):
        estimate = await client.post("/v1/prices/estimate", json=call | query)
        assert estimate.json()["cost_usd"] == usd
        found = await client.get("/v1/prices/resolve", params=price | query)
        assert found.json()["price_ref"] == ids[usd]
        assert found.json()["origin"] == "override"
    assert (await client.delete(f"/v1/prices/{ids['5']}")).status_code == 204
    assert (await client.delete(f"/v1/prices/{ids['5']}")).status_code == 404
    assert await cost(client, **call) == ("3", "priced")
    kept = (await client.get("/v1/users/alice/events/e")).json()
    assert (kept["cost_usd"], kept["price_ref"]) == ("5", ids["5"])
    told = (await client.get("/v1/users/alice/events/e/explain")).json()
    assert [line["amount_usd"] for line in told["lines"]] == ["5"]
    assert told["lines"][0]["price_row"] == ids["5"]
    assert (await client.get(f"/v1/prices/{ids['5']}")).json()["retired_at"] is not None


async def test_a_default_prices_what_nothing_else_does_as_an_estimate(
    client: httpx.AsyncClient,
) -> None:
    assert await cost(client) == (None, "unpriced")
    await state(client, provider="*", model="*", default=True)
    assert await cost(client) == ("2", "estimated")
    mini = {"provider": "openai", "model": "gpt-4o-mini"}
    assert await cost(client, **mini) == ("0.15", "priced")


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"rates": {}}, ["/rates"]),
        ({"rates": {"tokens": INPUT["input_tokens"]}}, ["/rates/tokens"]),
        ({"rates": {"input_tokens": {"usd": "2"}}}, ["/rates/input_tokens/per"]),
        ({"rates": {"input_tokens": {"per": 1}}}, ["/rates/input_tokens/usd"]),
        ({"rates": {"input_tokens": {"usd": "-1", "per": 1}}}, ["/rates/input_tokens/usd"]),
        ({"rates": {"input_tokens": {"usd": "1e3", "per": 1}}}, ["/rates/input_tokens/usd"]),
        (
            {"rates": {"input_tokens": {"usd": "0.0000000001", "per": 1}}},
            ["/rates/input_tokens/usd"],
        ),
        ({"rates": {"input_tokens": {"usd": 2, "per": 1}}}, ["/rates/input_tokens/usd"]),
        ({"rates": {"input_tokens": {"usd": "1", "per": 0}}}, ["/rates/input_tokens/per"]),
        ({"rates": {"input_tokens": {"usd": "1", "per": 2**70}}}, ["/rates/input_tokens/per"]),
        ({"rates": {"input_tokens": {"usd": "1", "per": 1, "x": 1}}}, ["/rates/input_tokens/x"]),
        ({"multiplier": "0"}, ["/multiplier"]),
        ({"multiplier": "1.0000001"}, ["/multiplier"]),
        ({"multiplier": 1.5}, ["/multiplier"]),
        ({"min_charge_usd": "-1"}, ["/min_charge_usd"]),
        ({"min_quantity": {"seconds": 1}}, ["/min_quantity/seconds"]),
        ({"min_quantity": {"requests": 1.5}}, ["/min_quantity/requests"]),
        ({"user_id": "a", "team_id": "b"}, ["/team_id"]),
        ({"effective_from": "2026-11-01T00:00:00"}, ["/effective_from"]),
        (
            {"effective_from": "2026-11-01T00:00:00Z", "effective_to": "2026-11-01T00:00:00Z"},
            ["/effective_to"],
        ),
        ({"match": "fuzzy"}, ["/match"]),
        ({"match": "prefix", "model": "*"}, ["/match"]),
        *(
            ({"match": "regex", "model": bad}, ["/model"])
            for bad in ("(", "(a+)+$", "(a|ab)*", "x" * 201, ".*.*.*y", "[[a]", "(x)\\1", "a?" * 30)
        ),
        ({"model": " "}, ["/model"]),
        ({"provider": "", "model": ""}, ["/provider", "/model"]),
        ({"model": "a\u0000b"}, ["/model"]),
        ({"context": {"region": " "}}, ["/context/region"]),
        ({"price": 1}, ["/price"]),
        (
            {"rates": {"zz": INPUT["input_tokens"]}, "multiplier": "x", "min_charge_usd": "x"},
            ["/rates/zz", "/multiplier", "/min_charge_usd"],
        ),
    ],
)
async def test_what_is_wrong_with_a_price_is_named(
    client: httpx.AsyncClient, change: dict[str, Any], pointers: list[str]
) -> None:
    answer = await client.post("/v1/prices", json=PRICE | change)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert (await client.get("/v1/prices?provider=acme")).json()["items"] == []


@pytest.mark.parametrize(
    ("tiers", "place"),
    [
        ([], "tiers"),
        ([(100, "1"), (200, "2")], "tiers/1/up_to"),
        ([(None, "1"), (None, "2")], "tiers/0/up_to"),
        ([(200, "1"), (100, "2"), (None, "3")], "tiers/1/up_to"),
        ([(0, "1"), (None, "2")], "tiers/0/up_to"),
        ([(100, "x"), (None, "2")], "tiers/0/usd"),
    ],
)
async def test_tiers_ascend_and_the_last_one_has_no_end(
    client: httpx.AsyncClient, tiers: list[tuple[int | None, str]], place: str
) -> None:
    steps = [{"up_to": up_to, "usd": usd, "per": 1000} for up_to, usd in tiers]
    rates = {"input_tokens": {"mode": "cliff", "tiers": steps}}
    answer = await client.post("/v1/prices", json=PRICE | {"rates": rates})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/rates/input_tokens/{place}"


async def test_a_price_that_is_off_by_a_thousand_is_taken_for_a_mistake(
    client: httpx.AsyncClient,
) -> None:
    known = {"provider": "openai", "model": "gpt-4o"}
    wrong = {"input_tokens": {"usd": "2.50", "per": 1000}}
    answer = await client.post("/v1/prices", json=known | {"rates": wrong})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/rates/input_tokens"
    assert "this model's price in force, 2.5 USD per 1000000" in error["detail"]
    assert "force" in error["detail"]
    small = {"input_tokens": {"usd": "0.0025", "per": 1_000_000}}
    assert (await client.post("/v1/prices", json=known | {"rates": small})).status_code == 422
    near = {"input_tokens": {"usd": "0.0026", "per": 1_000_000}}
    await state(client, **known, rates=near)
    unknown = await client.post("/v1/prices", json=PRICE | {"rates": wrong})
    assert "the median of the catalogue" in unknown.json()["errors"][0]["detail"]
    await state(client, rates=wrong, force=True)
    free = {"input_tokens": {"usd": "0", "per": 1_000_000}}
    await state(client, **known, rates=free)
    assert await cost(client, **known) == ("0", "priced")


async def test_names_are_matched_exactly_by_prefix_or_by_expression(
    client: httpx.AsyncClient,
) -> None:
    for match, model, usd in (("prefix", "chat-", "3"), ("regex", r"x\d+-(eu|us)", "4")):
        rates = {"input_tokens": {"usd": usd, "per": 1_000_000}}
        await state(client, match=match, model=model, rates=rates)
    await state(client)
    for model, usd in (
        ("chat", "2"),
        ("CHAT", "2"),
        ("chat-7", "3"),
        ("x12-eu", "4"),
        ("x-eu", None),
    ):
        assert (await cost(client, model=model))[0] == usd, model


async def test_an_alias_gives_a_name_its_model_until_it_is_removed(
    client: httpx.AsyncClient,
) -> None:
    call = {"provider": "azure", "model": "prod-chat-eu"}
    assert await cost(client, **call) == (None, "unpriced")
    body = {"provider": "azure", "model": "prod-chat-eu", "resolves_to": "gpt-4o"}
    made = (await client.post("/v1/model-aliases", json=body)).json()
    assert made.items() >= body.items()
    assert await cost(client, **call) == ("2.5", "priced")
    again = (
        await client.post("/v1/model-aliases", json=body | {"resolves_to": "gpt-4o-mini"})
    ).json()
    assert await cost(client, **call) == ("0.15", "priced")
    assert (await client.get("/v1/model-aliases")).json()["items"] == [again]
    for wrong in ({"resolves_to": " "}, {"provider": ""}, {"model": 5}, {"to": "x"}):
        answer = await client.post("/v1/model-aliases", json=body | wrong)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(wrong))}"
    assert (await client.delete(f"/v1/model-aliases/{again['id']}")).status_code == 204
    assert (await client.delete(f"/v1/model-aliases/{again['id']}")).status_code == 404
    assert await cost(client, **call) == (None, "unpriced")
    default = {"provider": "acme", "model": None, "resolves_to": "chat"}
    assert (await client.post("/v1/model-aliases", json=default)).status_code == 201
    await state(client)
    bare = {"user_id": "alice", "provider": "acme", "usage": {"input_tokens": 10**6}}
    receipt = (await client.post("/v1/events", json=bare)).json()
    assert (receipt["cost_usd"], receipt["cost_status"]) == ("2", "priced")


async def alias(client: httpx.AsyncClient, provider: str, model: str, means: str) -> httpx.Response:
    body = {"provider": provider, "model": model, "resolves_to": means}
    return await client.post("/v1/model-aliases", json=body)


async def test_a_name_that_would_lead_back_to_itself_is_refused(client: httpx.AsyncClient) -> None:
    for said in (("acme", "a", "a"), ("acme", "A", "acme/a"), ("*", "a", " A ")):
        answer = await alias(client, *said)
        assert answer.status_code == 422, said
        assert answer.json()["errors"][0]["pointer"] == "/resolves_to"
    for said in (("acme", "a", "b"), ("acme", "b", "c"), ("*", "gpt-4o", "openai/gpt-4o")):
        assert (await alias(client, *said)).status_code == 201, said
    for said in (("acme", "b", "a"), ("acme", "c", "a"), ("acme", "c", "acme/a"), ("*", "c", "a")):
        answer = await alias(client, *said)
        assert answer.status_code == 409, said
    assert (await alias(client, "other", "b", "a")).status_code == 201
    assert (await alias(client, "acme", "a", "d")).status_code == 201
    assert (await alias(client, "acme", "b", "a")).status_code == 201
    kept = (await client.get("/v1/model-aliases")).json()["items"]
    assert len(kept) == 4


async def test_every_price_is_listed_and_pages_hold_each_once(client: httpx.AsyncClient) -> None:
    await state(client)
    query = {"provider": "openai", "limit": "100"}
    ids: list[str] = []
    cursor = None
    while True:
        page = await client.get("/v1/prices", params=query | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        ids += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert len(ids) == len(set(ids)) > 100
    found = (await client.get("/v1/prices?provider=OpenAI&model=GPT-4o")).json()["items"]
    genai = next(item for item in found if item["origin"] == "genai")
    assert genai["rates"]["input_tokens"] == {"usd": "2.5", "per": 1_000_000}
    one = await client.get(f"/v1/prices/{genai['id']}")
    assert one.json() == genai
    assert (await client.delete(f"/v1/prices/{genai['id']}")).status_code in (404, 409)
    assert (await client.get("/v1/prices/none")).status_code == 404
    assert (await client.get("/v1/prices?cursor=x")).status_code == 422


async def test_models_without_a_price_are_counted_until_they_have_one(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    assert (await client.get("/v1/prices/unpriced")).json() == {"items": [], "next_cursor": None}
    for name, at in (("chat", 0), ("chat", 2), ("voice", 0), ("gpt-4o", 0)):
        when = (clock.now() - timedelta(hours=at)).isoformat()
        provider = "openai" if name == "gpt-4o" else "acme"
        await cost(client, model=name, provider=provider, timestamp=when)
    nameless = {"user_id": "bob", "usage": {"input_tokens": 5}}
    assert (await client.post("/v1/events", json=nameless)).status_code == 201
    found = (await client.get("/v1/prices/unpriced")).json()["items"]
    assert [(one["provider"], one["model"], one["calls"], one["users"]) for one in found] == [
        (None, None, 1, 1),
        ("acme", "chat", 2, 1),
        ("acme", "voice", 1, 1),
    ]
    assert found[1]["first_hour"] == "2026-11-20T10:00:00Z"
    assert found[1]["last_hour"] == "2026-11-20T12:00:00Z"
    names, cursor = [], None
    while True:
        query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/prices/unpriced", params=query)).json()
        names += [one["model"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == [None, "chat", "voice"]
    for bad in ("x", "AAAA", "WzFd"):
        assert (await client.get(f"/v1/prices/unpriced?cursor={bad}")).status_code == 422


async def test_an_explanation_says_why_there_are_no_lines(client: httpx.AsyncClient) -> None:
    await cost(client, id="unknown")
    await cost(client, id="stated", cost_usd="7")
    mini = {"provider": "openai", "model": "gpt-4o-mini"}
    await cost(client, id="odd", **mini, usage={"video_seconds": 3})
    why = {}
    for name in ("unknown", "stated", "odd"):
        found = (await client.get(f"/v1/users/alice/events/{name}/explain")).json()
        assert found["lines"] == []
        why[name] = found["why"]
    assert why["unknown"] == "not in the catalogue"
    assert why["stated"] == "the caller stated the cost"
    assert why["odd"] == "no rate for video_seconds"
    assert (await client.get("/v1/users/alice/events/none/explain")).status_code == 404
    odd = "gen/eration"
    await cost(client, id=odd, **mini)
    path = f"/v1/users/alice/events/{odd.replace('/', '%2F')}/explain"
    assert (await client.get(path)).json()["id"] == odd


async def test_a_bound_key_sees_and_states_prices_of_its_own_user_only(
    client: httpx.AsyncClient,
) -> None:
    body = {"name": "k", "scopes": ["read", "manage"], "user_id": "alice"}
    key = (await client.post("/v1/api-keys", json=body)).json()["key"]
    signed = {"Authorization": f"Bearer {key}"}
    ids = {}
    for whose in ({}, {"team_id": "red"}, {"user_id": "bob"}, {"user_id": "alice"}):
        ids[str(whose)] = (await state(client, **whose))["id"]
        answer = await client.post("/v1/prices", json=PRICE | whose, headers=signed)
        assert answer.status_code == (201 if whose == {"user_id": "alice"} else 403)
    listed = (await client.get("/v1/prices?provider=acme", headers=signed)).json()["items"]
    assert {one["user_id"] for one in listed} == {None, "alice"}
    assert {one["team_id"] for one in listed} == {None}
    for whose, price_id in ids.items():
        mine, seen = "alice" in whose, "alice" in whose or whose == "{}"
        got = await client.get(f"/v1/prices/{price_id}", headers=signed)
        assert got.status_code == (200 if seen else 404)
        gone = await client.delete(f"/v1/prices/{price_id}", headers=signed)
        assert gone.status_code == (204 if mine else 403 if seen else 404)
