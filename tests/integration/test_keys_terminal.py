"""`tollgate keys`: what is said, what it does to a running service, and what is written down."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app

pytestmark = pytest.mark.anyio


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_keys_are_made_changed_rotated_and_revoked_at_the_terminal(
    client: httpx.AsyncClient, db_url: str
) -> None:
    where = ["--database-url", db_url]

    async def run(*words: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, ["keys", *words, *where])

    async def works(token: str) -> bool:
        answer = await client.get("/v1/users/alice/limits", headers=bearer(token))
        return answer.status_code == 200

    rate = ("--requests-per-minute", "60")
    made = await run(
        "create", "--name", "k", "--scopes", "ingest", "--user", "alice", "--json", *rate
    )
    assert made.exit_code == 0, made.output
    key = json.loads(made.output)
    assert not await works(key["key"])
    changed = await run(
        "change", key["id"], "--scopes", "read,ingest", "--requests-per-minute", "0"
    )
    assert changed.exit_code == 0, changed.output
    assert await works(key["key"])
    shown = (await client.get(f"/v1/api-keys/{key['id']}")).json()
    assert (shown["scopes"], shown["requests_per_minute"]) == (["ingest", "read"], None)

    rotated = await run("rotate", key["id"], "--overlap-s", "600", "--json")
    assert rotated.exit_code == 0, rotated.output
    new = json.loads(rotated.output)
    assert (new["replaces"], new["user_id"]) == (key["id"], "alice")
    assert await works(key["key"])
    assert await works(new["key"])
    assert (await run("rotate", new["id"], "--overlap-s", "0")).exit_code == 0
    assert not await works(new["key"])
    assert (await run("revoke", key["id"])).exit_code == 0
    assert not await works(key["key"])
    listed = await run("list")
    assert (listed.exit_code, key["id"] in listed.output) == (0, True)

    for bad in (
        ["rotate", "key_environment"],
        ["revoke", "key_environment"],
        ["rotate", "none"],
        ["rotate", key["id"]],
        ["change", key["id"], "--name", "x"],
        ["create", "--name", "k", "--scopes", "root"],
        ["create", "--name", "k", "--scopes", "read", "--expires-at", "2020-01-01"],
    ):
        refused = await run(*bad)
        assert refused.exit_code == 1, (bad, refused.output)

    found = (await client.get("/v1/audit/changes?kind=key")).json()["items"]
    assert [one["action"] for one in found] == [
        *("revoke", "create", "rotate", "create", "rotate", "change", "create"),
    ]
    assert {(one["via"], one["key_id"]) for one in found} == {("cli", "terminal")}
    for token in (key["key"], new["key"]):
        assert token not in json.dumps(found)
