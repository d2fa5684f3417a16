"""Pages of the service itself: proof, jobs, retention, archives, keys, changes, settings."""

import re
from datetime import timedelta
from html import unescape

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from app.access.changelog import Change
from app.access.keys import Key
from app.core.clock import FrozenClock
from app.dashboard.changes_page import differing
from app.dashboard.system_page import shown_settings
from app.runtime import Runtime
from app.settings import Settings
from app.summaries.tables import HourTotal
from tests.conftest import ADMIN
from tests.dashboard.conftest import SignIn, call, csrf_of, enter, new_key, send
from tests.dashboard.test_limits_page import NASTY, api, limit_on, log_of, post

pytestmark = pytest.mark.anyio
HOME = "/dashboard/system"
ARCHIVES, KEYS, CHANGES = f"{HOME}/archives", f"{HOME}/keys", f"{HOME}/changes"
TOKEN = re.compile(r'<code class="secret">(tg_[^<]+)</code>')


async def part(browser: httpx.AsyncClient, url: str, **form: str) -> httpx.Response:
    """What htmx gets for a form."""
    headers = {"HX-Request": "true", "X-CSRF-Token": await csrf_of(browser)}
    return await browser.post(url, data=form | {"some": "field"}, headers=headers)


async def test_the_page_tells_of_the_service_without_its_secrets(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    page = (await signed_in.get(HOME)).text
    for said in ("0.1.0", "as this version needs", "TOLLGATE_DATABASE_URL", "wrap-logs"):
        assert said in page
    assert runtime.db.dialect in page.lower()
    assert ADMIN not in page
    for table in ("settings", "jobs", "drift"):
        answer = await signed_in.get(HOME, params={"format": "csv", "table": table})
        assert answer.status_code == 200
        assert ADMIN not in answer.text


def test_settings_are_shown_without_what_is_secret() -> None:
    settings = Settings(
        database_url="postgresql://ann:opensesame@db.example.com:5432/t?sslpassword=opensesame",
        admin_key=SecretStr("opensesame" * 4),
        archive_url="s3://opensesame:opensesame@bucket/archives",
        foreign_cloudevents={"user_id": "data.customer"},
    )
    shown = {one.name: one.value for one in shown_settings(settings)}
    assert "opensesame" not in str(shown)
    assert shown["TOLLGATE_DATABASE_URL"] == "postgresql://…@db.example.com:5432/t?…"
    assert shown["TOLLGATE_ADMIN_KEY"] == "set, and not shown"
    assert shown["TOLLGATE_FOREIGN_CLOUDEVENTS"] == '{"user_id": "data.customer"}'
    assert len(shown) == len(Settings.model_fields)


async def test_the_proof_runs_from_a_button_names_what_differs_and_is_kept(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    assert "Nobody has asked here yet" in (await signed_in.get(HOME)).text
    await send(signed_in, call(id="1"), call(id="2"))
    found = await part(signed_in, f"{HOME}/proof")
    assert found.status_code == 200, found.text
    assert "everything agrees" in found.text
    assert "<html" not in found.text
    assert "log equals hour totals" in (await signed_in.get(HOME)).text
    wrong = update(HourTotal).values(calls=HourTotal.calls + 1)
    await runtime.db.write(lambda tx: tx.run(wrong))
    whole = await post(signed_in, f"{HOME}/proof", {})
    assert "user_id=alice" in whole.text
    kept = (await signed_in.get(HOME)).text
    assert re.search(r"\d+ values? differs?", kept)
    assert "user_id=alice" not in kept
    assert (await signed_in.post(f"{HOME}/proof", data={"csrf": "guessed"})).status_code == 403


async def test_retention_is_set_for_everyone_or_refused_beside_its_field(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    form = {"max_rows": "500", "keep_rows": "400", "max_age_days": "", "keep_ids_days": ""}
    assert (await post(signed_in, f"{HOME}/retention", form)).status_code == 303
    policy = await api(signed_in, "GET", "/v1/retention")
    assert (policy["max_rows"], policy["max_age_days"], policy["source"]) == (500, None, "default")
    refused = await post(signed_in, f"{HOME}/retention", form | {"keep_rows": "900"})
    assert refused.status_code == 422
    assert "must not be more than max_rows" in refused.text
    assert 'value="900"' in refused.text
    assert (
        "field-wrong" in (await post(signed_in, f"{HOME}/retention", form | {"max_rows": "x"})).text
    )
    assert [one.via for one in await log_of(runtime, "retention")] == ["dashboard"]


async def test_a_log_is_wrapped_and_its_archive_verified_and_restored(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(signed_in, *(call(id=str(number)) for number in range(9)))
    form = {"max_rows": "5", "keep_rows": "3", "max_age_days": "", "keep_ids_days": ""}
    await post(signed_in, f"{HOME}/retention", form)
    foreseen = await part(signed_in, f"{ARCHIVES}/wrap", user="alice", dry_run="yes")
    assert "6 of 9" in foreseen.text
    assert (await api(signed_in, "GET", "/v1/archives"))["items"] == []
    done = await part(signed_in, f"{ARCHIVES}/wrap", user="alice", dry_run="no")
    assert "6 of 9" in done.text
    archive = (await api(signed_in, "GET", "/v1/archives"))["items"][0]["id"]
    page = (await signed_in.get(ARCHIVES, params={"user": "alice"})).text
    assert archive in page
    assert archive not in (await signed_in.get(ARCHIVES, params={"user": "bob"})).text
    assert archive in (await signed_in.get(ARCHIVES, params={"format": "csv"})).text
    whole = await part(signed_in, f"{ARCHIVES}/{archive}/verify")
    assert "is whole" in whole.text
    assert (await post(signed_in, f"{ARCHIVES}/{archive}/restore", {})).status_code == 303
    assert (await api(signed_in, "GET", f"/v1/archives/{archive}"))["state"] == "restored"
    assert (await part(signed_in, f"{ARCHIVES}/arc_none/verify")).status_code == 404
    kinds = [(one.kind, one.via) for one in await log_of(runtime, "archive")]
    assert kinds == [("archive", "dashboard")]


async def test_a_key_is_made_shown_once_rotated_and_revoked(
    signed_in: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    form = {"name": NASTY, "scope_ingest": "yes", "scope_read": "yes", "user_id": "alice"}
    form |= {"expires_at": "2027-01-01T00:00", "requests_per_minute": "600"}
    nothing = {name: text for name, text in form.items() if not name.startswith("scope_")}
    assert (await post(signed_in, KEYS, nothing)).status_code == 422
    assert (
        await post(signed_in, KEYS, form | {"expires_at": "2020-01-01T00:00"})
    ).status_code == 422
    made = await post(signed_in, KEYS, form)
    assert made.status_code == 201, made.text
    token = TOKEN.search(unescape(made.text))
    assert token
    assert NASTY not in made.text
    key = await _key(signed_in, runtime, token[1], clock)
    assert (key.user_id, sorted(key.scopes), key.requests_per_minute) == (
        *("alice", ["ingest", "read"], 600),
    )
    path = f"{KEYS}/{key.id}"
    for url in (KEYS, path):
        assert token[1] not in (await signed_in.get(url)).text
    change = {"name": "gateway", "scope_ingest": "yes", "expires_at": "2027-01-01T00:00"}
    assert (await post(signed_in, path, change)).status_code == 303
    key = await _key(signed_in, runtime, token[1], clock)
    assert (key.name, key.requests_per_minute, sorted(key.scopes)) == ("gateway", None, ["ingest"])
    turned = await post(signed_in, f"{path}/rotate", {"overlap_h": "1"})
    newer = TOKEN.search(unescape(turned.text))
    assert newer
    assert (await _key(signed_in, runtime, newer[1], clock)).replaces in (None, key.id)
    assert (await post(signed_in, f"{path}/rotate", {"overlap_h": "1"})).status_code == 409
    assert "replaced" in (await signed_in.get(KEYS)).text
    clock.advance(timedelta(hours=2))
    assert key.id not in (await signed_in.get(KEYS)).text
    assert "expired" in (await signed_in.get(KEYS, params={"state": "all"})).text
    other = (await _key(signed_in, runtime, newer[1], clock)).id
    assert (await post(signed_in, f"{KEYS}/{other}/revoke", {})).status_code == 303
    assert other not in (await signed_in.get(KEYS)).text
    assert "revoked" in (await signed_in.get(f"{KEYS}/{other}")).text
    assert all(one.via == "dashboard" for one in await log_of(runtime, "key"))


async def _key(browser: httpx.AsyncClient, runtime: Runtime, token: str, clock: FrozenClock) -> Key:
    await browser.get(KEYS)  # every request sees the newest keys
    return runtime.keys.find(token, clock.now())


async def test_a_session_ends_with_its_key(
    signed_in: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    key_id, token = await new_key(runtime, clock, ["admin"])
    signed_in.cookies.clear()
    await enter(signed_in, token)
    assert (await signed_in.get(KEYS)).status_code == 200
    assert (await post(signed_in, f"{KEYS}/{key_id}/revoke", {})).status_code == 303
    assert (await signed_in.get(KEYS)).headers["location"].startswith("/dashboard/sign-in")


async def test_changes_say_who_made_what_of_what_and_are_found(
    signed_in: httpx.AsyncClient,
) -> None:
    limit_id = await limit_on(signed_in, name=NASTY)
    await api(signed_in, "PATCH", f"/v1/limits/{limit_id}", {"amount": 77})
    page = (await signed_in.get(CHANGES)).text
    assert re.search(r"<del>2</del>\s*<ins>77</ins>", page)
    assert "TOLLGATE_ADMIN_KEY" in page
    assert NASTY not in page
    assert NASTY in unescape(page)
    assert limit_id in (await signed_in.get(CHANGES, params={"kind": "limit"})).text
    assert "Nothing was changed" in (await signed_in.get(CHANGES, params={"kind": "plan"})).text
    assert limit_id in (await signed_in.get(CHANGES, params={"format": "csv"})).text


def test_a_change_is_told_by_what_differs(clock: FrozenClock) -> None:
    before = {"amount": "1", "scope": {"all": True}, "name": "same", "raised_until": None}
    after = {"amount": "2", "scope": {"user_id": "bob"}, "name": "same", "raised_until": None}
    change = Change(
        *("1", clock.now(), "k", "key", "api", None, "change", "limit", "lim"), before, after
    )
    assert differing(change) == [
        *(("amount", "1", "2"), ("scope.all", "true", None), ("scope.user_id", None, "bob"))
    ]


async def test_keys_and_changes_are_for_admins_and_nothing_here_for_bound_keys(
    signed_in_with: SignIn, runtime: Runtime, clock: FrozenClock
) -> None:
    manager = await signed_in_with("read", "manage")
    page = (await manager.get(HOME)).text
    assert KEYS not in page
    for url in (KEYS, CHANGES, f"{KEYS}/key_none"):
        assert (await manager.get(url)).status_code == 403
    assert (await post(manager, KEYS, {"name": "mine", "scope_admin": "yes"})).status_code == 403
    manager.cookies.clear()
    reader = await signed_in_with("read")
    assert 'name="max_rows"' not in (await reader.get(HOME)).text
    assert (await post(reader, f"{HOME}/retention", {"max_rows": "1"})).status_code == 403
    assert "everything agrees" in (await part(reader, f"{HOME}/proof")).text
    reader.cookies.clear()
    bound = await signed_in_with("read", "manage", user_id="alice")
    for url in (HOME, ARCHIVES, "/dashboard/limits", "/dashboard/alerts/webhooks"):
        assert (await bound.get(url)).headers["location"] == "/dashboard/users/alice"
