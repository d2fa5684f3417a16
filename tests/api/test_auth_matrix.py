"""P14: a key sees and changes only what it may. Every route is tried with every kind of key."""

import base64
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.access.keys import create_key
from app.core.clock import FrozenClock
from app.db.engine import Tx
from app.main import create_app, create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, START, settings_for

pytestmark = pytest.mark.anyio

OPEN = "open"
ALL = "all"
"""Concerns every user: a key that is bound to one is refused."""
OWN = "own"
"""Concerns one user: a bound key does it for its own and for no other."""
ANY = "any"
"""Concerns no user: bound or not is the same."""


class Rule(NamedTuple):
    """Who may: the scopes, any one of which is enough, and whose things it touches."""

    scopes: tuple[str, ...]
    reach: str
    body: dict[str, Any] | None = None


READ, MANAGE, WRITE = ("read",), ("manage",), ("ingest",)
USER = {"user_id": "{user}"}
LIMIT = {"name": "n", "metric": "calls", "window": "day", "amount": 5, "scope": USER}
PRICE = USER | {
    "provider": "acme",
    "model": "m",
    "rates": {"input_tokens": {"usd": "1", "per": 1_000_000}},
}
ALIAS = {"provider": "azure", "model": "ours", "resolves_to": "gpt-4o"}
RAISE = {"amount": 9, "until": "2027-01-01T00:00:00Z"}
RULE = {"name": "n", "type": "anomaly", "scope": USER}
CLOUD = {"specversion": "1.0", "id": "c", "source": "s", "type": "t", "subject": "{user}"}
LAGO = {"transaction_id": "l", "external_subscription_id": "{user}", "code": "c"}
STRIPE = {
    "event_name": "m",
    "identifier": "m",
    "payload": {"value": 1, "stripe_customer_id": "{user}"},
}
MATRIX: dict[tuple[str, str], Rule] = {
    ("GET", "/healthz"): Rule((), OPEN),
    ("GET", "/readyz"): Rule((), OPEN),
    ("GET", "/docs/problems"): Rule((), OPEN),
    ("GET", "/metrics"): Rule(READ, ALL),
    ("POST", "/v1/events"): Rule(WRITE, OWN, USER),
    ("POST", "/api/v1/events"): Rule(WRITE, OWN, CLOUD),
    ("POST", "/api/v1/events/batch"): Rule(WRITE, OWN, {"events": [LAGO]}),
    ("GET", "/api/v1/meters"): Rule(READ, ANY),
    ("GET", "/api/v1/meters/{slug}"): Rule(READ, ANY),
    ("GET", "/api/v1/meters/{slug}/query"): Rule(READ, ANY),
    ("POST", "/v1/ingest/litellm"): Rule(
        WRITE, OWN, {"litellm_call_id": "l", "end_user": "{user}", "model": "m"}
    ),
    ("POST", "/v1/traces"): Rule(WRITE, ANY, {"resourceSpans": []}),
    ("POST", "/api/public/otel/v1/traces"): Rule(WRITE, ANY, {"resourceSpans": []}),
    ("POST", "/v1/logs"): Rule(WRITE, ANY, {"resourceLogs": []}),
    ("POST", "/v1/metrics"): Rule(WRITE, ANY, {"resourceMetrics": []}),
    ("POST", "/api/public/ingestion"): Rule(WRITE, ANY, {"batch": []}),
    ("GET", "/api/public/projects"): Rule(WRITE, ANY),
    ("POST", "/v1/billing/meter_events"): Rule(WRITE, ANY),
    ("POST", "/v2/billing/meter_events"): Rule(WRITE, OWN, STRIPE),
    ("POST", "/v2/billing/meter_event_session"): Rule(WRITE, ANY),
    ("POST", "/v2/billing/meter_event_stream"): Rule(WRITE, OWN, {"events": [STRIPE]}),
    ("POST", "/v1/limits/check"): Rule(("check",), OWN, USER),
    ("POST", "/v1/holds"): Rule(("check",), OWN, USER),
    ("POST", "/v1/holds/{hold_id}/settle"): Rule(("ingest", "check"), OWN, {"event": USER}),
    ("POST", "/v1/holds/{hold_id}/release"): Rule(("check",), ANY),
    ("POST", "/v1/holds/{hold_id}/extend"): Rule(("check",), ANY, {"ttl_s": 60}),
    ("GET", "/v1/holds/{hold_id}"): Rule(("check",), ANY),
    ("GET", "/v1/users/{user_id}/holds"): Rule(("check",), OWN),
    ("GET", "/v1/users/{user_id}/usage"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/usage/trends"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/usage/daily"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/usage/monthly"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/usage/series"): Rule(READ, OWN),
    ("GET", "/v1/analytics/metrics"): Rule(READ, ALL),
    ("GET", "/v1/analytics/health"): Rule(READ, ALL),
    ("GET", "/v1/analytics/costs"): Rule(READ, ALL),
    ("GET", "/v1/analytics/totals"): Rule(READ, ALL),
    ("GET", "/v1/analytics/daily-cost"): Rule(READ, ALL),
    ("GET", "/v1/analytics/backends"): Rule(READ, ALL),
    ("GET", "/v1/analytics/pools"): Rule(READ, ALL),
    ("GET", "/v1/analytics/drift"): Rule(READ, ALL),
    ("POST", "/v1/analytics/query"): Rule(READ, ALL, {"measures": ["calls"]}),
    ("GET", "/v1/users/{user_id}/events"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/events/{event_id}"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/events/{event_id}/explain"): Rule(READ, OWN),
    ("POST", "/v1/users/{user_id}/events/{event_id}/void"): Rule(MANAGE, OWN, {"reason": "r"}),
    ("POST", "/v1/users/{user_id}/events/{event_id}/correct"): Rule(
        MANAGE, OWN, {"fields": {"task_type": "t"}, "reason": "r"}
    ),
    ("GET", "/v1/users/{user_id}/alerts"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/limits"): Rule(READ, OWN),
    ("GET", "/v1/users/{user_id}/subscription"): Rule(READ, OWN),
    ("PUT", "/v1/users/{user_id}/subscription"): Rule(MANAGE, OWN, {"plan_id": "none"}),
    ("POST", "/v1/users/{user_id}/subscription/renew"): Rule(MANAGE, OWN),
    ("POST", "/v1/users/{user_id}/usage/reset"): Rule(MANAGE, OWN),
    ("GET", "/v1/users/{user_id}/periods"): Rule(READ, OWN),
    ("POST", "/v1/limits/{limit_id}/raise"): Rule(MANAGE, ANY, RAISE),
    ("DELETE", "/v1/limits/{limit_id}/raise"): Rule(MANAGE, ANY),
    ("GET", "/v1/limits/{limit_id}/raises"): Rule(READ, ANY),
    ("POST", "/v1/limits"): Rule(MANAGE, OWN, LIMIT),
    ("GET", "/v1/limits"): Rule(READ, ANY),
    ("GET", "/v1/limits/{limit_id}"): Rule(READ, ANY),
    ("PATCH", "/v1/limits/{limit_id}"): Rule(MANAGE, ANY, {"amount": 7}),
    ("PUT", "/v1/limits/{limit_id}"): Rule(MANAGE, ANY, LIMIT),
    ("DELETE", "/v1/limits/{limit_id}"): Rule(MANAGE, ANY),
    ("POST", "/v1/alerts/{alert_id}/read"): Rule(READ, ANY),
    ("GET", "/v1/alerts"): Rule(READ, ALL),
    ("GET", "/v1/users/{user_id}/forecast"): Rule(READ, OWN),
    ("POST", "/v1/alert-rules"): Rule(MANAGE, OWN, RULE),
    ("GET", "/v1/alert-rules"): Rule(READ, ANY),
    ("GET", "/v1/alert-rules/{rule_id}"): Rule(READ, ANY),
    ("PATCH", "/v1/alert-rules/{rule_id}"): Rule(MANAGE, ANY, {"enabled": False}),
    ("DELETE", "/v1/alert-rules/{rule_id}"): Rule(MANAGE, ANY),
    ("POST", "/v1/webhooks"): Rule(MANAGE, ALL, {"url": "https://93.184.215.14/matrix"}),
    ("GET", "/v1/webhooks"): Rule(READ, ALL),
    ("GET", "/v1/webhooks/{webhook_id}"): Rule(READ, ALL),
    ("PATCH", "/v1/webhooks/{webhook_id}"): Rule(MANAGE, ALL, {"enabled": False}),
    ("DELETE", "/v1/webhooks/{webhook_id}"): Rule(MANAGE, ALL),
    ("POST", "/v1/webhooks/{webhook_id}/rotate-secret"): Rule(MANAGE, ALL, {"overlap_s": 60}),
    ("POST", "/v1/webhooks/{webhook_id}/test"): Rule(MANAGE, ALL),
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): Rule(READ, ALL),
    ("POST", "/v1/deliveries/{delivery_id}/retry"): Rule(MANAGE, ALL),
    ("POST", "/v1/plans"): Rule(MANAGE, ALL, {"name": "matrix"}),
    ("GET", "/v1/plans"): Rule(READ, ALL),
    ("GET", "/v1/plans/{plan_id}"): Rule(READ, ALL),
    ("PUT", "/v1/plans/{plan_id}"): Rule(MANAGE, ALL, {"name": "x"}),
    ("PATCH", "/v1/plans/{plan_id}"): Rule(MANAGE, ALL, {"default": False}),
    ("DELETE", "/v1/plans/{plan_id}"): Rule(MANAGE, ALL),
    ("POST", "/v1/prices/estimate"): Rule(
        ("read", "check"), ANY, {"provider": "openai", "usage": {}}
    ),
    ("GET", "/v1/prices/resolve"): Rule(READ, ANY),
    ("GET", "/v1/models"): Rule(READ, ANY),
    ("GET", "/v1/prices"): Rule(READ, ANY),
    ("POST", "/v1/prices"): Rule(MANAGE, OWN, PRICE),
    ("GET", "/v1/prices/unpriced"): Rule(READ, ALL),
    ("GET", "/v1/prices/{price_id}"): Rule(READ, ANY),
    ("DELETE", "/v1/prices/{price_id}"): Rule(MANAGE, ANY),
    ("POST", "/v1/model-aliases"): Rule(MANAGE, ALL, ALIAS),
    ("GET", "/v1/model-aliases"): Rule(READ, ANY),
    ("DELETE", "/v1/model-aliases/{alias_id}"): Rule(MANAGE, ALL),
    ("GET", "/v1/audit/consistency"): Rule(READ, ALL),
    ("GET", "/v1/audit/changes"): Rule(("admin",), ALL),
    ("POST", "/v1/audit/rebuild"): Rule(MANAGE, OWN, USER),
    ("GET", "/v1/exports/events"): Rule(READ, ANY),
    ("GET", "/v1/exports/focus"): Rule(READ, ANY),
    ("POST", "/v1/rerates"): Rule(MANAGE, ALL, {"filter": USER}),
    ("GET", "/v1/rerates"): Rule(MANAGE, ALL),
    ("GET", "/v1/rerates/{rerate_id}"): Rule(MANAGE, ALL),
    ("POST", "/v1/rerates/{rerate_id}/apply"): Rule(MANAGE, ALL),
    ("POST", "/v1/rerates/{rerate_id}/cancel"): Rule(MANAGE, ALL),
    ("GET", "/v1/archives"): Rule(READ, ALL),
    ("GET", "/v1/archives/{archive_id}"): Rule(READ, ALL),
    ("POST", "/v1/archives/{archive_id}/verify"): Rule(READ, ALL),
    ("POST", "/v1/archives/{archive_id}/restore"): Rule(MANAGE, ALL),
    ("GET", "/v1/retention"): Rule(READ, ANY),
    ("PUT", "/v1/retention"): Rule(MANAGE, ALL, {"max_age_days": 90}),
    ("GET", "/v1/retention/users/{user_id}"): Rule(READ, OWN),
    ("PUT", "/v1/retention/users/{user_id}"): Rule(MANAGE, OWN, {"max_age_days": 90}),
    ("DELETE", "/v1/retention/users/{user_id}"): Rule(MANAGE, OWN),
    ("POST", "/v1/users/{user_id}/logs/wrap"): Rule(MANAGE, OWN),
    ("GET", "/v1/api-keys"): Rule(("admin",), ALL),
    ("POST", "/v1/api-keys"): Rule(("admin",), ALL, {"name": "k", "scopes": ["read"]}),
    ("GET", "/v1/api-keys/{key_id}"): Rule(("admin",), ALL),
    ("PATCH", "/v1/api-keys/{key_id}"): Rule(("admin",), ALL, {"name": "k"}),
    ("POST", "/v1/api-keys/{key_id}/rotate"): Rule(("admin",), ALL, {"overlap_s": 60}),
    ("POST", "/v1/api-keys/{key_id}/revoke"): Rule(("admin",), ALL),
    ("DELETE", "/v1/api-keys/{key_id}"): Rule(("admin",), ALL),
}
SCOPES = ("ingest", "check", "read", "manage", "admin")
BOUND = {f"bound {scope}": (scope,) for scope in SCOPES}
KINDS = ("none", "empty", "wrong", "revoked", "expired", *SCOPES, *BOUND)
NOBODY = ("none", "empty", "wrong", "revoked", "expired")
MINE, OTHER = "mine", "other"


@pytest.fixture(scope="module")
async def house(
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    catalog: Catalog,
) -> AsyncIterator[tuple[Runtime, dict[str, str]]]:
    """A service with one key of every kind."""
    path = tmp_path_factory.mktemp("auth") / "auth.db"
    shutil.copy(sqlite_template, path)
    clock = FrozenClock(START)
    runtime = build(settings_for(f"sqlite:///{path}"), clock=clock, catalog=catalog)
    await runtime.start()
    tokens = {"none": "", "empty": "", "wrong": "tg_" + "x" * 43}

    async def make(tx: Tx, kind: str, scopes: tuple[str, ...], user_id: str | None) -> str:
        expires = START + timedelta(minutes=1) if kind == "expired" else None
        key, tokens[kind] = await create_key(
            tx, name=kind, scopes=scopes, user_id=user_id, expires_at=expires, now=START
        )
        return key.id

    async def work(tx: Tx) -> str:
        for kind in SCOPES:
            await make(tx, kind, (kind,), None)
        for kind, scopes in BOUND.items():
            await make(tx, kind, scopes, MINE)
        await make(tx, "expired", ("admin",), None)
        return await make(tx, "revoked", ("admin",), None)

    revoked = await runtime.db.write(work, alone=True)
    clock.advance(timedelta(minutes=2))
    async with _client(runtime) as client:
        answer = await client.delete(f"/v1/api-keys/{revoked}", headers=_bearer(ADMIN))
        assert answer.status_code == 204
        for user in (MINE, OTHER):
            event = {"user_id": user, "id": "e"}
            answer = await client.post("/v1/events", json=event, headers=_bearer(ADMIN))
            assert answer.status_code == 201
    yield runtime, tokens
    await runtime.close()


_served: dict[int, Any] = {}
"""What serves a runtime: its routes are costly, and every case asks one of them."""


def _client(runtime: Runtime) -> httpx.AsyncClient:
    if id(runtime) not in _served:
        _served[id(runtime)] = create_asgi(runtime)
    transport = httpx.ASGITransport(_served[id(runtime)], raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _fill(value: Any, user: str) -> Any:
    if isinstance(value, dict):
        return {name: _fill(one, user) for name, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, user) for one in value]
    return user if value == "{user}" else value


async def _try(
    client: httpx.AsyncClient, method: str, path: str, rule: Rule, token: str, user: str
) -> httpx.Response:
    target = path.replace("{user_id}", user).replace("{event_id}", "e")
    target = "/".join("none" if step.startswith("{") else step for step in target.split("/"))
    headers = _bearer(token) if token else {}
    return await client.request(method, target, json=_fill(rule.body, user), headers=headers)


def _scopes(kind: str) -> tuple[str, ...]:
    return BOUND.get(kind, (kind,))


async def test_the_matrix_has_every_route(house: tuple[Runtime, dict[str, str]]) -> None:
    """A new route is not served before somebody has said here who may use it."""
    found = create_app(house[0]).openapi()["paths"]
    served = {(method.upper(), path) for path, methods in found.items() for method in methods}
    assert served == MATRIX.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "path"), MATRIX, ids=[" ".join(route) for route in MATRIX])
async def test_every_route_with_every_kind_of_key(
    house: tuple[Runtime, dict[str, str]], method: str, path: str, kind: str
) -> None:
    runtime, tokens = house
    rule = MATRIX[method, path]
    async with _client(runtime) as client:
        users = (MINE, OTHER) if rule.reach == OWN else (MINE,)
        for user in users:
            answer = await _try(client, method, path, rule, tokens[kind], user)
            said = f"{answer.status_code} {answer.text}"
            if rule.reach == OPEN:
                assert answer.status_code == 200, said
                continue
            if kind in NOBODY:
                assert answer.status_code == 401, said
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["type"] == "/docs/problems#unauthenticated"
                assert not tokens[kind] or tokens[kind] not in answer.text
                continue
            held = _scopes(kind)
            if "admin" not in held and not set(held) & set(rule.scopes):
                assert answer.status_code == 403, said
                assert answer.json()["scope"] in rule.scopes
                assert f"`{answer.json()['scope']}`" in answer.json()["detail"]
                continue
            outside = kind in BOUND and (rule.reach == ALL or (rule.reach == OWN and user == OTHER))
            if outside:
                assert answer.status_code == 403, said
                assert "scope" not in answer.json()
            else:
                assert answer.status_code not in (401, 403), said
                assert answer.status_code < 500, said


@pytest.mark.parametrize("kind", ["bound manage", "bound read", "bound admin"])
async def test_a_bound_key_cannot_reach_another_users_limit_by_its_id(
    house: tuple[Runtime, dict[str, str]], kind: str
) -> None:
    runtime, tokens = house
    async with _client(runtime) as client:
        ids = {}
        scopes = {
            "theirs": {"user_id": OTHER},
            "everyone's": {"all": True},
            "own": {"user_id": MINE},
        }
        for whose, scope in scopes.items():
            body = LIMIT | {"scope": scope, "name": f"{kind} {whose}"}
            made = await client.post("/v1/limits", json=body, headers=_bearer(ADMIN))
            assert made.status_code == 201, made.text
            ids[whose] = made.json()["id"]
        signed = _bearer(tokens[kind])
        for whose in ("theirs", "everyone's"):
            path = f"/v1/limits/{ids[whose]}"
            answers = [
                await client.get(path, headers=signed),
                await client.patch(path, json={"amount": None}, headers=signed),
                await client.put(path, json=LIMIT | {"scope": {"user_id": MINE}}, headers=signed),
                await client.delete(path, headers=signed),
            ]
            changing = [answer.status_code for answer in answers[1:]]
            assert set(changing) <= {403, 404}, changing
            if whose == "theirs":
                assert answers[0].status_code in (403, 404)
            kept = await client.get(path, headers=_bearer(ADMIN))
            assert kept.json()["amount"] == 5
        listed = await client.get("/v1/limits?limit=1000", headers=signed)
        if listed.status_code == 200:
            assert ids["theirs"] not in {one["id"] for one in listed.json()["items"]}
        if kind != "bound read":  # nor may it make its own limit into somebody else's
            path = f"/v1/limits/{ids['own']}"
            body = LIMIT | {"scope": {"user_id": OTHER}}
            moved = await client.put(path, json=body, headers=signed)
            assert moved.status_code in (403, 409, 422), moved.text
            wide = await client.post(
                "/v1/limits", json=LIMIT | {"scope": {"all": True}}, headers=signed
            )
            assert wide.status_code == 403


async def test_a_batch_of_a_bound_key_records_its_own_user_only(
    house: tuple[Runtime, dict[str, str]],
) -> None:
    runtime, tokens = house
    async with _client(runtime) as client:
        signed = _bearer(tokens["bound ingest"])
        mixed = [{"user_id": MINE, "id": "b1"}, {"user_id": OTHER, "id": "b2"}]
        answer = await client.post("/v1/events", json=mixed, headers=signed)
        assert answer.status_code == 207
        assert [one["index"] for one in answer.json()["results"]] == [1]
        atomic = await client.post("/v1/events?atomic=true", json=mixed[::-1], headers=signed)
        assert atomic.status_code in (403, 422)
        other = await client.get(f"/v1/users/{OTHER}/events/b2", headers=_bearer(ADMIN))
        assert other.status_code == 404


@pytest.mark.parametrize("path", ["/v1/events", "/v1/limits/check", "/v1/api-keys"])
async def test_a_key_is_taken_wherever_clients_put_it(
    house: tuple[Runtime, dict[str, str]], path: str
) -> None:
    """Bearer in any case, `X-API-Key`, or Basic with it as password or alone; at every door."""
    runtime, _ = house
    token = ADMIN
    method = "GET" if path.endswith("keys") else "POST"
    body = None if method == "GET" else {"user_id": MINE, **({"id": "e"} if "ev" in path else {})}
    ways = [
        *({"Authorization": f"{word} {token}"} for word in ("Bearer", "bearer", "BEARER")),
        {"Authorization": f"Bearer   {token} "},
        {"X-API-Key": token},
        {"x-api-key": token, "Authorization": ""},
        *(
            {"Authorization": f"{word} {base64.b64encode(f'{user}:{token}'.encode()).decode()}"}
            for word, user in (("Basic", ""), ("basic", "anyone"), ("BASIC", "käthe"))
        ),
        {"Authorization": "Basic " + base64.b64encode(f"{token}:".encode()).decode()},
    ]
    refused = [
        {},
        {"Authorization": token},
        {"Authorization": f"Token {token}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Bearer {token.upper()}"},
        {"Authorization": f"Bearer {token}, Bearer {token}"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(f"{token}:x".encode()).decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode()},
        {"Authorization": "Bearer " + "x" * 100_000},
        {"Authorization": b"Bearer \xff\xfe\xe4"},
        {"X-API-Key": ""},
        {"X-API-Key": f"Bearer {token}"},
        {"Cookie": f"key={token}"},
    ]
    async with _client(runtime) as client:
        for headers in ways:
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 200, (headers, answer.text)
        for given in refused:
            answer = await client.request(method, path, json=body, headers=given)  # type: ignore[arg-type]
            assert answer.status_code == 401, (given, answer.text)
            assert token not in answer.text
        answer = await client.request(method, f"{path}?api_key={token}&key={token}", json=body)
        assert answer.status_code == 401


async def test_unknown_expired_and_revoked_keys_learn_nothing_of_what_exists(
    house: tuple[Runtime, dict[str, str]],
) -> None:
    runtime, tokens = house
    async with _client(runtime) as client:
        for kind in NOBODY:
            headers = _bearer(tokens[kind]) if tokens[kind] else {}
            for path in ("/v1/users/mine/events/e", "/v1/users/nobody/events/e", "/v1/plans/x"):
                assert (await client.get(path, headers=headers)).status_code == 401
