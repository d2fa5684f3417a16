"""`tollgate archives`: what is said, and how it ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.runtime import Runtime
from tests.integration.archived import ROWS, WRAPPED, send, wrap_all

pytestmark = pytest.mark.anyio


async def test_archives_are_listed_proven_and_restored(
    runtime: Runtime, client: httpx.AsyncClient, db_url: str, tmp_path: Path
) -> None:
    where = ["--database-url", db_url]
    place = ["--archive-url", str(tmp_path / "archives")]
    await send(client, "alice")
    (archive,) = await wrap_all(runtime, "alice")

    async def run(*words: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, ["archives", *words, *where])

    listed = await run("list", "--json", "--month", "2026-11", "--user", "alice")
    assert listed.exit_code == 0, listed.output
    said = json.loads(listed.output)
    assert (said["id"], said["state"], said["events"]) == (archive.id, "sealed", WRAPPED)
    assert (await run("list")).exit_code == 0
    for bad in (["verify"], ["list", "--month", "11"], ["verify", "none"], ["restore", "none"]):
        assert (await run(*bad)).exit_code == 1

    whole = await run("verify", "--all", *place)
    assert (whole.exit_code, "1 archives are whole" in whole.output) == (0, True)
    path = tmp_path / "archives" / archive.path
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    broken = await run("verify", archive.id, "--json", *place)
    assert broken.exit_code == 1
    assert not json.loads(broken.output)["ok"]
    assert (await run("verify", "--all", *place)).exit_code == 1
    assert (await run("restore", archive.id, *place)).exit_code == 1

    path.write_bytes(data)
    restored = await run("restore", archive.id, *place)
    assert (restored.exit_code, f"{WRAPPED} events" in restored.output) == (0, True)
    found = await client.get("/v1/users/alice/events", params={"limit": 1000})
    assert len(found.json()["items"]) == ROWS
