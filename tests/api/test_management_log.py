"""Whatever is changed by hand leaves a row that says who changed what, and never a secret."""

import json
from typing import Any

import httpx
import pytest

from app.access.changelog import list_changes
from app.db.engine import Database
from tests.api.test_auth_matrix import MATRIX

pytestmark = pytest.mark.anyio

UNNOTED = {
    ("POST", "/v1/webhooks/{webhook_id}/test"): "sends a message and changes nothing",
}
"""Routes that need `manage` and change nothing that lasts."""
WRITING = {
    route
    for route, rule in MATRIX.items()
    if route[0] != "GET" and {"manage", "admin"} & set(rule.scopes) and route not in UNNOTED
}
USER = {"user_id": "alice"}
LIMIT = {"name": "n", "metric": "calls", "window": "day", "amount": 5, "scope": USER}
PRICE = {
    "provider": "acme",
    "model": "m",
    "rates": {"input_tokens": {"usd": "1", "per": 1_000_000}},
}
ALIAS = {"provider": "azure", "model": "ours", "resolves_to": "gpt-4o"}
HOOK = "https://93.184.215.14/in/hunter2-hunter2-hunter2?token=hunter2"


class Desk:
    """Somebody who changes things, and looks in the log after each of them."""

    def __init__(self, client: httpx.AsyncClient, db: Database) -> None:
        self._client, self._db = client, db
        self.called: set[tuple[str, str]] = set()
        self.secrets = {"hunter2"}

    async def change(
        self, method: str, route: str, body: Any = None, query: str = "", **names: str
    ) -> Any:
        """Call a route, see that it left a row, and give the answer."""
        before = await self.rows()
        path = route
        for name, value in ({"user_id": "alice"} | names).items():
            path = path.replace(f"{{{name}}}", value)
        said = {"X-Request-Id": f"asked-{len(before)}-times"}
        answer = await self._client.request(method, f"{path}{query}", json=body, headers=said)
        assert answer.status_code < 300, (method, path, answer.text)
        new = (await self.rows())[: -len(before) or None]
        assert new, f"{method} {route} leaves no row in the management log"
        for row in new:
            assert row.key_id == "key_environment"
            assert (row.via, row.request_id) == ("api", said["X-Request-Id"])
        self.called.add((method, route))
        found = answer.json() if answer.content else None
        if isinstance(found, dict):
            self.secrets |= {found[name] for name in ("key", "secret") if name in found}
        return found

    async def get(self, path: str) -> Any:
        """What the API shows."""
        answer = await self._client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any) -> Any:
        """What is no change of the management."""
        before = await self.rows()
        answer = await self._client.post(path, json=body)
        assert answer.status_code < 300, answer.text
        assert await self.rows() == before
        return answer.json()

    async def rows(self) -> list[Any]:
        """Every row there is, newest first."""
        return list(await self._db.read(lambda tx: list_changes(tx, None, None, None, None, 1000)))


@pytest.fixture
async def desk(client: httpx.AsyncClient, db: Database) -> Desk:
    return Desk(client, db)


async def _plans_and_subscriptions(desk: Desk) -> None:
    plan = await desk.change("POST", "/v1/plans", {"name": "pro"})
    await desk.change("PUT", "/v1/plans/{plan_id}", {"name": "gold"}, plan_id=plan["id"])
    await desk.change("PATCH", "/v1/plans/{plan_id}", {"name": "silver"}, plan_id=plan["id"])
    of = "/v1/users/{user_id}"
    await desk.change("PUT", f"{of}/subscription", {"plan_id": plan["id"]})
    await desk.change("POST", f"{of}/subscription/renew")
    await desk.change("POST", f"{of}/usage/reset")
    gone = await desk.change("POST", "/v1/plans", {"name": "nobody's"})
    await desk.change("DELETE", "/v1/plans/{plan_id}", plan_id=gone["id"])


async def _limits_and_rules(desk: Desk) -> None:
    limit = await desk.change("POST", "/v1/limits", LIMIT)
    of = {"limit_id": limit["id"]}
    await desk.change("PATCH", "/v1/limits/{limit_id}", {"amount": 7}, **of)
    await desk.change("PUT", "/v1/limits/{limit_id}", LIMIT, **of)
    until = {"amount": 9, "until": "2027-01-01T00:00:00Z", "reason": "ask https://u:hunter2@h/?a=b"}
    await desk.change("POST", "/v1/limits/{limit_id}/raise", until, **of)
    await desk.change("DELETE", "/v1/limits/{limit_id}/raise", **of)
    await desk.change("DELETE", "/v1/limits/{limit_id}", **of)
    rule = await desk.change(
        "POST", "/v1/alert-rules", {"name": "n", "type": "anomaly", "scope": USER}
    )
    of = {"rule_id": rule["id"]}
    await desk.change("PATCH", "/v1/alert-rules/{rule_id}", {"enabled": False}, **of)
    await desk.change("DELETE", "/v1/alert-rules/{rule_id}", **of)


async def _webhooks(desk: Desk) -> None:
    hook = await desk.change("POST", "/v1/webhooks", {"url": HOOK})
    of = {"webhook_id": hook["id"]}
    await desk.change("PATCH", "/v1/webhooks/{webhook_id}", {"url": f"{HOOK}2"}, **of)
    await desk.change("POST", "/v1/webhooks/{webhook_id}/rotate-secret", {"overlap_s": 60}, **of)
    await desk.change("POST", "/v1/limits", LIMIT | {"amount": 1})
    await desk.post("/v1/events", USER | {"id": "e0"})
    sent = (await desk.get(f"/v1/webhooks/{hook['id']}/deliveries"))["items"][0]["id"]
    await desk.change("POST", "/v1/deliveries/{delivery_id}/retry", delivery_id=sent)
    await desk.change("DELETE", "/v1/webhooks/{webhook_id}", **of)


async def _prices(desk: Desk) -> None:
    price = await desk.change("POST", "/v1/prices", PRICE)
    await desk.change("DELETE", "/v1/prices/{price_id}", price_id=price["id"])
    alias = await desk.change("POST", "/v1/model-aliases", ALIAS)
    await desk.change("DELETE", "/v1/model-aliases/{alias_id}", alias_id=alias["id"])
    for end in ("apply", "cancel"):
        planned = await desk.change("POST", "/v1/rerates", {"filter": USER, "dry_run": True})
        await desk.change("POST", f"/v1/rerates/{{rerate_id}}/{end}", rerate_id=planned["id"])
    await desk.change("POST", "/v1/rerates", {"filter": USER, "dry_run": False})


async def _events_and_archives(desk: Desk) -> None:
    for place in (1, 2):
        await desk.post("/v1/events", USER | {"id": f"e{place}", "cost_usd": "0.01"})
    of = "/v1/users/{user_id}/events/{event_id}"
    said = {"fields": {"task_type": "chat"}, "reason": "it was one"}
    after = await desk.change("POST", f"{of}/correct", said, event_id="e1")
    newest = (await desk.rows())[0]
    assert (newest.kind, newest.ref) == ("event", "e1")
    assert (newest.before["task_type"], newest.after["task_type"]) == (None, after["task_type"])
    await desk.change("POST", f"{of}/void", {"reason": "twice"}, event_id="e1")
    own = "/v1/retention/users/{user_id}"
    await desk.change("PUT", "/v1/retention", {"max_age_days": 60})
    await desk.change("PUT", own, {"max_rows": 0, "keep_rows": 0})
    wrap = "/v1/users/alice/logs/wrap"
    assert not (await desk.post(f"{wrap}?dry_run=true", None))["wrapped"]
    assert (await desk.change("POST", "/v1/users/{user_id}/logs/wrap"))["wrapped"]
    await desk.change("DELETE", own)
    archive = (await desk.get("/v1/archives"))["items"][0]["id"]
    await desk.change("POST", "/v1/archives/{archive_id}/restore", archive_id=archive)
    newest = (await desk.rows())[0]
    assert (newest.before["state"], newest.after["state"]) == ("sealed", "restored")
    await desk.post("/v1/audit/rebuild", {"dry_run": True})
    await desk.change("POST", "/v1/audit/rebuild", USER)


async def _keys(desk: Desk) -> None:
    key = await desk.change("POST", "/v1/api-keys", {"name": "k", "scopes": ["read"]})
    of = {"key_id": key["id"]}
    await desk.change("PATCH", "/v1/api-keys/{key_id}", {"name": "tg_" + "x" * 43}, **of)
    desk.secrets.add("tg_" + "x" * 43)
    new = await desk.change("POST", "/v1/api-keys/{key_id}/rotate", {"overlap_s": 60}, **of)
    await desk.change("POST", "/v1/api-keys/{key_id}/revoke", **of)
    await desk.change("DELETE", "/v1/api-keys/{key_id}", key_id=new["id"])


PARTS = (
    *(_plans_and_subscriptions, _limits_and_rules, _webhooks),
    *(_prices, _events_and_archives, _keys),
)


async def test_every_route_that_manages_leaves_a_row_and_no_row_holds_a_secret(
    desk: Desk,
) -> None:
    for part in PARTS:
        await part(desk)
    assert desk.called == WRITING, "say here how a new route is called, or why it leaves no row"
    text = json.dumps([row._asdict() for row in await desk.rows()], default=str)
    for secret in desk.secrets:
        assert secret not in text


async def test_a_change_that_is_refused_or_rolled_back_leaves_nothing(
    client: httpx.AsyncClient, desk: Desk
) -> None:
    await client.post("/v1/plans", json={"name": "pro"})
    before = await desk.rows()
    assert (await client.post("/v1/plans", json={"name": "pro"})).status_code == 409
    assert (await client.delete("/v1/plans/plan_default")).status_code == 409
    assert (await client.delete("/v1/limits/none")).status_code == 404
    assert (await client.post("/v1/limits", json={"name": "n"})).status_code == 422
    assert await desk.rows() == before


async def test_the_log_tells_what_was_before_and_after_as_the_api_shows_it(
    client: httpx.AsyncClient,
) -> None:
    made = (await client.post("/v1/limits", json=LIMIT)).json()
    path = f"/v1/limits/{made['id']}"
    changed = (await client.patch(path, json={"amount": 7})).json()
    await client.delete(path)
    answer = await client.get("/v1/audit/changes", params={"kind": "limit", "ref": made["id"]})
    told = [(one["action"], one["before"], one["after"]) for one in answer.json()["items"]]
    assert told == [
        ("delete", changed, None),
        ("change", made, changed),
        ("create", None, made),
    ]
    assert {one["at"] for one in answer.json()["items"]} == {"2026-11-20T12:30:00Z"}


async def test_the_log_is_read_in_pages_and_by_kind_key_and_time(
    client: httpx.AsyncClient,
) -> None:
    key = (await client.post("/v1/api-keys", json={"name": "k", "scopes": ["manage"]})).json()
    signed = {"Authorization": f"Bearer {key['key']}"}
    for name in ("a", "b", "c"):
        answer = await client.post("/v1/plans", json={"name": name}, headers=signed)
        assert answer.status_code == 201
    asked: dict[str, Any] = {"limit": 3}
    names = []
    while True:
        page = (await client.get("/v1/audit/changes", params=asked)).json()
        names += [one["after"]["name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        asked["cursor"] = page["next_cursor"]
    assert names == ["c", "b", "a", "k"]

    async def count(**by: str) -> int:
        answer = await client.get("/v1/audit/changes", params=by)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["items"])

    assert await count(key_id=key["id"]) == 3
    assert await count(kind="key") == 1
    assert await count(ref=key["id"]) == 1
    noon = "2026-11-20T12:30:00Z"
    assert await count(**{"from": noon}) == 4
    assert await count(to=noon) == 0
    assert (await client.get("/v1/audit/changes", headers=signed)).status_code == 403


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("from=yesterday", "/from"),
        ("from=2026-11-20T00:00:00Z&to=2026-11-19T00:00:00Z", "/to"),
        ("cursor=!!", "/cursor"),
        ("limit=0", "/limit"),
        ("kind=%00", "/kind"),
        ("ref=%00", "/ref"),
        ("key_id=", "/key_id"),
    ],
)
async def test_what_is_wrong_with_a_question_is_named(
    client: httpx.AsyncClient, query: str, pointer: str
) -> None:
    answer = await client.get(f"/v1/audit/changes?{query}")
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
