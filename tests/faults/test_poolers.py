"""What a pooler in transaction mode takes away, no statement of ours needs."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.core.clock import Clock, FrozenClock
from app.doctor.examine import examine
from app.pricing.catalog import Catalog
from app.runtime import build
from app.start import prepare
from tests.conftest import settings_for
from tests.faults.service import Postgres, free_port
from tests.integration.test_races import Server, assert_exact, client_of, events, hammer, limits
from tests.postgres import drop_database, new_database

pytestmark = pytest.mark.anyio
CONFIG = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 5
logfile = {folder}/log
"""


@asynccontextmanager
async def two_services(
    url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[Server, Server]]:
    """Two services on an empty database, with more connections than the pooler has."""
    await prepare(settings_for(url), Clock())
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(url).model_copy(update={"shard": shard, "pool_size": 6})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            found.append(Server(runtime, await stack.enter_async_context(client_of(runtime))))
        yield found[0], found[1]


async def _kept_exact(url: str, clock: FrozenClock, catalog: Catalog) -> None:
    async with two_services(url, clock, catalog) as (one, other):
        await limits(one.client)
        sent = events(300, seed=7)
        outcomes, *checks = await asyncio.gather(
            hammer([one.client, other.client], sent),
            *(
                server.client.post("/v1/limits/check", json={"user_id": "ann"})
                for server in (one, other)
                for _ in range(40)
            ),
        )
        assert {answer.status_code for answer in checks} == {200}
        await assert_exact(one.runtime, sent, outcomes)
        proof = (await other.client.get("/v1/audit/consistency")).json()
        assert proof["differences"] == []


@pytest.fixture
def named(postgres_server: str) -> Iterator[str]:
    """An empty database by a URL that says PgBouncer, though there is none."""
    plain = new_database(postgres_server)
    url = make_url(plain).update_query_dict({"pgbouncer": "true"})
    yield url.render_as_string(hide_password=False)
    drop_database(postgres_server, plain)


async def test_a_url_that_names_pgbouncer_sets_up_and_serves(
    named: str, clock: FrozenClock, catalog: Catalog
) -> None:
    await _kept_exact(named, clock, catalog)


@pytest.fixture
def pooled(breakable: Postgres) -> Iterator[str]:
    """An empty database, as PgBouncer shows it."""
    folder, port = Path(tempfile.mkdtemp(prefix="tollgate-pooler-")), free_port()
    folder.chmod(0o777)
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(CONFIG.format(server=breakable.port, port=port, folder=folder))
    who = "pgserver" if os.geteuid() == 0 else None  # it refuses to run as root
    quiet = subprocess.DEVNULL
    command = ["pgbouncer", str(folder / "ini")]
    with subprocess.Popen(command, user=who, stdout=quiet, stderr=quiet) as process:
        url = make_url(breakable.database()).set(port=port)
        yield url.render_as_string(hide_password=False)
        process.kill()
    shutil.rmtree(folder)


if shutil.which("pgbouncer"):  # Debian's package; it is in no package index

    async def test_two_services_behind_pgbouncer_in_transaction_mode_keep_one_exact_account(
        pooled: str, clock: FrozenClock, catalog: Catalog
    ) -> None:
        await _kept_exact(f"{pooled}?pgbouncer=true", clock, catalog)
        for url, state in ((f"{pooled}?pgbouncer=true", "ok"), (pooled, "fail")):
            (found,) = await examine(settings_for(url), {}, Clock(), wanted=["pooler"])
            assert found.state == state
