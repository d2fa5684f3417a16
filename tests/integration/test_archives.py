"""Archives can be trusted: what was wrapped is in them, and comes back exactly as it left."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset as ds
import pytest
from sqlalchemy import func, select, text, update

from app.analytics.audit import prove
from app.core.errors import Conflict, Damaged, Unavailable
from app.db.types import table_of
from app.retention.archives import ArchiveRow, Asked, get_archive, list_archives
from app.retention.evidence import entry_of_wrapped
from app.retention.restore import restore
from app.retention.shelf import manifest_path
from app.retention.store import ArchiveStore
from app.retention.tables import Archive
from app.retention.verify import archives_equal_wrapped, verify
from app.runtime import Runtime
from app.summaries.tables import WrappedUsage
from app.usage.ledger import Entry, entry_of, find_many
from app.usage.tables import UsageAdjustment, UsageEvent, WrappedEvent
from tests.conftest import START
from tests.integration.archived import (
    KEPT,
    ROWS,
    WRAPPED,
    archives,
    event,
    files_in,
    send,
    wrap_all,
)

pytestmark = pytest.mark.anyio
KEYS = [("alice", f"e{number}") for number in range(ROWS)]


@pytest.fixture
async def logged(runtime: Runtime, client: httpx.AsyncClient) -> list[Entry]:
    """The rows of a user's log."""
    await send(client, "alice")
    return await log_of(runtime)


@pytest.fixture
async def archive(runtime: Runtime, logged: list[Entry]) -> ArchiveRow:
    """The archive that most of them went to."""
    (found,) = await wrap_all(runtime, "alice")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archives"


async def log_of(runtime: Runtime) -> list[Entry]:
    return alike(await runtime.db.read(lambda tx: find_many(tx, KEYS)))


def alike(entries: Sequence[Entry]) -> list[Entry]:
    """The entries in order, their JSON in one form: a column of JSON keeps no spelling."""
    return sorted(
        one._replace(
            tags=json.dumps(json.loads(one.tags or "{}")),
            context=json.dumps(json.loads(one.context or "{}")),
        )
        for one in entries
    )


async def count(runtime: Runtime, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return int((await runtime.db.read(lambda tx: tx.fetch(query)))[0][0])


async def run(runtime: Runtime, statement: Any) -> None:
    await runtime.db.write(lambda tx: tx.run(statement))


async def assert_consistent(runtime: Runtime) -> None:
    proof = await runtime.db.read(lambda tx: prove(tx, runtime.clock.now()))
    assert proof.consistent, proof.differences
    verdict = await runtime.db.read(archives_equal_wrapped)
    assert verdict.holds, verdict.differences


async def assert_damaged(runtime: Runtime, archive: ArchiveRow, *, why: str) -> None:
    """The file is found out, a restore refuses it, and everything stays as it was."""
    before = await log_of(runtime)
    found = await verify(runtime.db, runtime.store, archive.id)
    assert not found.ok
    assert why in " ".join(found.problems)
    with pytest.raises(Damaged) as caught:
        await restore(runtime.db, runtime.store, archive.id, START)
    assert caught.value.extra["problems"]
    assert await log_of(runtime) == before
    assert await count(runtime, WrappedEvent) == WRAPPED
    assert (await archives(runtime))[0].state == "sealed"
    await assert_consistent(runtime)


# ---- what a wrap leaves -------------------------------------------------------------------------


async def test_an_archive_holds_the_rows_that_left_the_log(
    runtime: Runtime, logged: list[Entry], archive: ArchiveRow, folder: Path
) -> None:
    assert (archive.state, archive.events, archive.users) == ("sealed", WRAPPED, 1)
    held = await runtime.store.read(archive.path, archive.sha256)
    assert alike([*held, *await log_of(runtime)]) == logged
    assert files_in(folder) == [f"_{archive.id}.json", f"{archive.id}.parquet"]
    said = json.loads((folder / manifest_path(archive.path)).read_text())
    assert (said["sha256"], said["bytes"]) == (archive.sha256, archive.bytes)
    assert said["facts"]["sums"]["input_tokens"] == archive.sums["input_tokens"]
    found = await verify(runtime.db, runtime.store, archive.id)
    assert (found.problems, found.events) == ([], WRAPPED)
    await assert_consistent(runtime)


async def test_a_reader_of_parquet_opens_the_whole_folder(
    runtime: Runtime, archive: ArchiveRow, folder: Path
) -> None:
    data = ds.dataset(folder, format="parquet", partitioning="hive")  # type: ignore[no-untyped-call]
    table = data.to_table(columns=["month", "event_id", "cost_nanos"])
    assert table.num_rows == WRAPPED
    assert set(table.column("month").to_pylist()) == {"2026-11"}


async def test_the_row_of_a_wrapped_event_is_read_from_its_archive(
    runtime: Runtime, logged: list[Entry], archive: ArchiveRow
) -> None:
    found = await entry_of_wrapped(runtime.db, runtime.store, "alice", "e20")
    assert found is not None
    assert alike([found]) == [one for one in logged if one.event_id == "e20"]
    for user_id, event_id in (("alice", "e0"), ("alice", "none"), ("bob", "e20")):
        assert await entry_of_wrapped(runtime.db, runtime.store, user_id, event_id) is None


async def test_months_and_users_share_archives_of_one_month(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    await send(client, "alice", "bob")
    older = [event(n, "bob", id=f"o{n}", timestamp="2026-10-31T23:59:59.5Z") for n in range(5)]
    assert (await client.post("/v1/events", json=older)).status_code == 200
    found = await wrap_all(runtime, "alice", "bob")
    october, november = sorted(found, key=lambda one: one.month)
    assert (f"{october.month:%Y-%m}", october.events, october.users) == ("2026-10", 5, 1)
    assert (november.events, november.users) == (2 * WRAPPED, 2)
    for one in (october, november):
        assert (await verify(runtime.db, runtime.store, one.id)).problems == []
        await restore(runtime.db, runtime.store, one.id, START)
        await assert_consistent(runtime)


# ---- damage -------------------------------------------------------------------------------------


async def test_a_changed_byte_is_found_out(
    runtime: Runtime, archive: ArchiveRow, folder: Path
) -> None:
    path = folder / archive.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    await assert_damaged(runtime, archive, why="not the one that was written")


@pytest.mark.parametrize("kept", [0, 4, 1000])
async def test_a_truncated_file_is_found_out(
    runtime: Runtime, archive: ArchiveRow, folder: Path, kept: int
) -> None:
    path = folder / archive.path
    path.write_bytes(path.read_bytes()[:kept])
    await assert_damaged(runtime, archive, why="cannot be read as Parquet")


async def test_a_missing_file_is_found_out_and_may_be_put_back(
    runtime: Runtime, logged: list[Entry], archive: ArchiveRow, folder: Path
) -> None:
    path = folder / archive.path
    path.rename(folder / "elsewhere")
    await assert_damaged(runtime, archive, why="missing")
    with pytest.raises(Damaged):
        await entry_of_wrapped(runtime.db, runtime.store, "alice", "e20")
    (folder / "elsewhere").rename(path)
    await restore(runtime.db, runtime.store, archive.id, START)
    assert await log_of(runtime) == logged


async def test_another_archive_in_its_place_is_found_out(
    runtime: Runtime, archive: ArchiveRow, folder: Path
) -> None:
    held = await runtime.store.read(archive.path, None)
    dearer = [one._replace(cost_nanos=(one.cost_nanos or 0) + 1) for one in held]
    await runtime.store.write(archive.id, archive.month, dearer)  # with a manifest that fits it
    await assert_damaged(runtime, archive, why="not the one that was written")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sha256": "0" * 64}, "sha256"),
        ({"id": "arc_other"}, "another id"),
        ({"month": "2026-10"}, "month"),
        ({"columns": ["user_id"]}, "columns"),
        ({"facts": None}, "manifest cannot be read"),
        ({"more": 1}, "manifest cannot be read"),
        (None, "manifest is missing"),
    ],
)
async def test_a_wrong_manifest_is_found_out_and_the_rows_are_safe(
    runtime: Runtime,
    logged: list[Entry],
    archive: ArchiveRow,
    folder: Path,
    change: dict[str, Any] | None,
    why: str,
) -> None:
    path = folder / manifest_path(archive.path)
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = await verify(runtime.db, runtime.store, archive.id)
    assert why in " ".join(found.problems)
    await restore(runtime.db, runtime.store, archive.id, START)  # the database knows its hash
    assert await log_of(runtime) == logged


async def test_books_that_disagree_with_an_archive_are_found_out(
    runtime: Runtime, archive: ArchiveRow
) -> None:
    more = update(WrappedUsage).values(input_tokens=WrappedUsage.input_tokens + 7)
    await run(runtime, more.where(table_of(WrappedUsage).c.group_no == 0))
    found = await verify(runtime.db, runtime.store, archive.id)
    assert [one for one in found.problems if one.startswith("input_tokens")]
    verdict = await runtime.db.read(archives_equal_wrapped)
    (difference,) = verdict.differences
    assert difference.where == {"archive_id": archive.id, "measure": "input_tokens"}
    assert int(difference.found) - int(difference.expected) == 7
    with pytest.raises(Damaged, match="not what was archived"):
        await restore(runtime.db, runtime.store, archive.id, START)
    assert len(await log_of(runtime)) == KEPT


async def test_ids_that_are_lost_or_changed_are_found_out(
    runtime: Runtime, archive: ArchiveRow
) -> None:
    first = "SELECT min(event_hash) FROM wrapped_events"
    await run(
        runtime, text(f"UPDATE wrapped_events SET cost_nanos = 5 WHERE event_hash = ({first})")
    )
    with pytest.raises(Damaged) as caught:
        await restore(runtime.db, runtime.store, archive.id, START)
    assert "not the one that was wrapped" in caught.value.extra["problems"][0]
    await run(runtime, text(f"DELETE FROM wrapped_events WHERE event_hash = ({first})"))
    found = await verify(runtime.db, runtime.store, archive.id)
    assert found.problems == [f"{WRAPPED - 1} ids are known, not {WRAPPED}"]
    verdict = await runtime.db.read(archives_equal_wrapped)
    assert [one.where["measure"] for one in verdict.differences] == ["ids"]


async def test_what_is_left_of_no_archive_is_found_out(
    runtime: Runtime, archive: ArchiveRow
) -> None:
    await run(runtime, update(Archive).values(state="restored"))
    verdict = await runtime.db.read(archives_equal_wrapped)
    assert {"calls", "ids", "cost_usd"} <= {one.where["measure"] for one in verdict.differences}
    found = await verify(runtime.db, runtime.store, archive.id)
    assert found.problems == [f"it was restored, but {name} are left" for name in ("sums", "ids")]


async def test_a_path_that_leads_elsewhere_is_not_followed(
    runtime: Runtime, archive: ArchiveRow, tmp_path: Path
) -> None:
    (tmp_path / "secret.parquet").write_bytes(b"secret")
    for path in ("../secret.parquet", "month=2026-11/../../secret.parquet", "/etc/passwd", ""):
        for verb in (runtime.store.look, runtime.store.size_and_hash, runtime.store.remove):
            with pytest.raises(RuntimeError, match="not the path of an archive"):
                await verb(path)
    with pytest.raises(RuntimeError, match="not an archive's id"):
        await runtime.store.write("../x", START, [])
    assert (tmp_path / "secret.parquet").read_bytes() == b"secret"


# ---- back into the log --------------------------------------------------------------------------


async def test_a_restore_brings_every_row_back_as_it_was(
    runtime: Runtime,
    client: httpx.AsyncClient,
    logged: list[Entry],
    archive: ArchiveRow,
    folder: Path,
) -> None:
    usage = (await client.get("/v1/users/alice/usage")).json()
    row = await restore(runtime.db, runtime.store, archive.id, START)
    assert row.state == "restored"
    assert await log_of(runtime) == logged
    assert await count(runtime, WrappedEvent) == await count(runtime, WrappedUsage) == 0
    assert (await client.get("/v1/users/alice/usage")).json() == usage
    assert len(files_in(folder)) == 2
    assert (await verify(runtime.db, runtime.store, archive.id)).problems == []
    await assert_consistent(runtime)


async def test_restored_twice_nothing_changes(
    runtime: Runtime, logged: list[Entry], archive: ArchiveRow
) -> None:
    store = ArchiveStore(runtime.settings.archive_url)
    both = await asyncio.gather(
        restore(runtime.db, runtime.store, archive.id, START),
        restore(runtime.db, store, archive.id, START),
    )
    assert [one.state for one in both] == ["restored"] * 2
    await restore(runtime.db, runtime.store, archive.id, START)
    await store.close()
    assert await log_of(runtime) == logged
    await assert_consistent(runtime)


async def test_wrapped_restored_and_wrapped_again(
    runtime: Runtime, client: httpx.AsyncClient, logged: list[Entry], archive: ArchiveRow
) -> None:
    await restore(runtime.db, runtime.store, archive.id, START)
    first, second = sorted(await wrap_all(runtime, "alice", keep=1), key=lambda one: one.events)
    assert (first.state, second.state, second.events) == ("restored", "sealed", ROWS - 1)
    await assert_consistent(runtime)
    again = await client.post("/v1/events", json=[event(number) for number in range(ROWS)])
    assert again.json()["duplicates"] == ROWS
    await restore(runtime.db, runtime.store, second.id, START)
    assert await log_of(runtime) == logged
    await assert_consistent(runtime)


async def test_restored_ids_stay_known(
    runtime: Runtime, client: httpx.AsyncClient, logged: list[Entry], archive: ArchiveRow
) -> None:
    await restore(runtime.db, runtime.store, archive.id, START)
    again = await client.post("/v1/events", json=event(20))
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    other = await client.post("/v1/events", json=event(20, usage={"input_tokens": 1}))
    assert other.status_code == 409
    assert await log_of(runtime) == logged


async def test_ingest_goes_on_while_archives_are_restored(
    runtime: Runtime, client: httpx.AsyncClient, logged: list[Entry], archive: ArchiveRow
) -> None:
    """New events, and old ones that are sent again, before, while and after they come back."""
    done = asyncio.Event()
    said: list[str] = []

    async def sending(worker: int) -> None:
        number = 0
        while not done.is_set() or number < 20:
            fresh = event(number, id=f"w{worker}-{number}")
            answer = await client.post("/v1/events", json=[fresh, event((number * 7) % ROWS)])
            assert answer.status_code == 200, answer.text
            assert (answer.json()["recorded"], answer.json()["duplicates"]) == (1, 1)
            said.append(fresh["id"])
            number += 1

    async def restoring() -> None:
        for _ in range(3):
            for one in await wrap_all(runtime, "alice"):
                await restore(runtime.db, runtime.store, one.id, START)
        done.set()

    await restore(runtime.db, runtime.store, archive.id, START)
    await asyncio.gather(sending(1), sending(2), restoring())
    assert await log_of(runtime) == logged
    assert await count(runtime, UsageEvent) == ROWS + len(said)
    await assert_consistent(runtime)


async def test_a_charge_that_was_adjusted_since_is_kept(
    runtime: Runtime, archive: ArchiveRow
) -> None:
    """An adjustment that moved what is left of an event holds for the row that comes back."""
    left = (table_of(WrappedEvent).c.cost_nanos.is_not(None),)
    query = select(func.min(WrappedEvent.cost_nanos)).where(*left)
    old = int((await runtime.db.read(lambda tx: tx.fetch(query)))[0][0])
    held = await runtime.store.read(archive.path, archive.sha256)
    entry = next(one for one in held if one.cost_nanos == old)
    row = {
        **{"user_id": "alice", "event_id": entry.event_id, "revision": 1, "adjusted_at": START},
        **{"kind": "rerate", "reason": "", "job_id": None, "actor": "test"},
        **{"timestamp": entry.timestamp, "provider": entry.provider, "model": entry.model},
        **{"old_cost_nanos": old, "new_cost_nanos": old + 9},
        **{"old_cost_status": "priced", "new_cost_status": "estimated"},
        **{"old_price_ref": entry.price_ref, "new_price_ref": "p2"},
    }
    await runtime.db.write(lambda tx: tx.run(table_of(UsageAdjustment).insert(), [row]))
    moved = update(WrappedEvent).values(cost_nanos=old + 9, cost_status="estimated")
    await run(runtime, moved.where(WrappedEvent.cost_nanos == old))
    grown = update(WrappedUsage).values(cost_nanos=WrappedUsage.cost_nanos + 9)
    group = (
        table_of(WrappedUsage).c.first_at <= entry.timestamp,
        table_of(WrappedUsage).c.last_at >= entry.timestamp,
        *(table_of(WrappedUsage).c[name] == getattr(entry, name) for name in ("model", "team_id")),
        table_of(WrappedUsage).c.status_code == entry.status_code,
    )
    await run(runtime, grown.where(*group))
    await restore(runtime.db, runtime.store, archive.id, START)
    back = next(one for one in await log_of(runtime) if one.event_id == entry.event_id)
    assert (back.cost_nanos, back.cost_status, back.price_ref) == (old + 9, "estimated", "p2")


async def test_an_archive_that_is_not_finished_is_neither_judged_nor_restored(
    runtime: Runtime, archive: ArchiveRow
) -> None:
    await run(runtime, update(Archive).values(state="writing"))
    with pytest.raises(Conflict):
        await verify(runtime.db, runtime.store, archive.id)
    with pytest.raises(Conflict):
        await restore(runtime.db, runtime.store, archive.id, START)


# ---- where they are kept ------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file", "plain", "chained"])
async def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ArchiveStore]:
    urls = {
        "memory": f"memory://{tmp_path.name}",
        "file": f"file://{tmp_path}/deep/down",
        "plain": f"{tmp_path}/deep/down",
        "chained": f"dir::file://{tmp_path}/chained",
    }
    found = ArchiveStore(urls[request.param])
    yield found
    await found.close()


async def test_archives_are_kept_wherever_a_url_says(elsewhere: ArchiveStore) -> None:
    entry = _one()
    written = await elsewhere.write("arc_1", entry.timestamp, [entry])
    assert written.path == "month=2026-11/arc_1.parquet"
    assert await elsewhere.size_and_hash(written.path) == (written.bytes, written.sha256)
    assert await elsewhere.read(written.path, written.sha256) == [entry]
    assert await elsewhere.read(written.path, None, only=[("alice", "other")]) == []
    assert (await elsewhere.look(written.path)).problems == []
    with pytest.raises(Damaged):
        await elsewhere.read(written.path, "0" * 64)
    again = await elsewhere.write("arc_1", entry.timestamp, [entry])
    assert again == written
    for _ in range(2):
        await elsewhere.remove(written.path)
        with pytest.raises((Damaged, Unavailable)):
            await elsewhere.read(written.path, written.sha256)


def _one() -> Entry:
    at = datetime(2026, 11, 3, tzinfo=UTC)
    row: list[Any] = [None] * len(Entry._fields)
    row[:11] = ["alice", "e1", at, at, 7, "openai", "m", 200, 5, "priced", ""]
    return entry_of(row)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nothing://bucket", "no driver for nothing://"),
        ("/proc/archives", "cannot be kept"),
        ("/dev/null/archives", "cannot be kept"),
        ("http://127.0.0.1:9/archives", "cannot be kept|no driver"),
    ],
)
async def test_a_place_that_cannot_be_had_is_unavailable(url: str, why: str) -> None:
    store = ArchiveStore(url)
    with pytest.raises(Unavailable, match=why):
        await store.write("arc_1", START, [_one()])
    await store.close()


async def test_the_process_that_works_apart_may_die_and_knows_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_ADMIN_KEY", "s" * 40)
    store = ArchiveStore(str(tmp_path))
    written = await store.write("arc_1", START, [_one()])
    process = store._process
    assert process is not None
    known = await asyncio.to_thread(Path(f"/proc/{process.pid}/environ").read_bytes)
    assert b"TOLLGATE_" not in known
    os.kill(process.pid, 9)
    assert await store.read(written.path, written.sha256) == [_one()]
    await store.close()
    await store.close()
    assert store._process is None


async def test_a_request_that_is_given_up_does_not_answer_the_next_one(tmp_path: Path) -> None:
    store = ArchiveStore(str(tmp_path))
    entries = [_one()._replace(event_id=f"e{number}") for number in range(3000)]
    await store.write("arc_1", START, entries)
    for delay_s in (0.0, 0.002, 0.01, 0.02):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay_s):
                await store.read("month=2026-11/arc_1.parquet", None)
        assert (await store.size_and_hash("month=2026-11/arc_1.parquet"))[0] > 0
    await store.close()


# ---- a full disk --------------------------------------------------------------------------------


async def test_a_full_disk_loses_nothing_and_leaves_nothing_behind(
    runtime: Runtime, logged: list[Entry], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12. A limit on the size of files stands for the disk, in the process that writes."""
    monkeypatch.setattr("app.retention.store._started", _started_small)
    with pytest.raises(Unavailable):
        await wrap_all(runtime, "alice")
    assert files_in(folder) == []
    assert await archives(runtime) == []
    assert await log_of(runtime) == logged
    await assert_consistent(runtime)
    monkeypatch.undo()
    await runtime.store.close()  # there is space again
    (row,) = await wrap_all(runtime, "alice")
    assert (await verify(runtime.db, runtime.store, row.id)).problems == []
    await assert_consistent(runtime)


async def _started_small() -> asyncio.subprocess.Process:
    limited = "import resource, signal, sys, runpy; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.argv = ['apart']; "
    limited += "runpy.run_module('app.retention.apart', run_name='__main__')"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", limited),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def test_lists_of_archives_are_asked_for_by_state_month_and_user(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    await send(client, "alice", "bob")
    (first,) = await wrap_all(runtime, "alice")
    (second,) = (one for one in await wrap_all(runtime, "bob") if one.id != first.id)
    november = datetime(2026, 11, 1, tzinfo=UTC)
    wanted = [
        (Asked(), [second, first]),
        (Asked(user_id="bob"), [second]),
        (Asked(user_id="nobody"), []),
        (Asked("sealed", november, "alice"), [first]),
        (Asked("restored"), []),
        (Asked(month=datetime(2026, 10, 1, tzinfo=UTC)), []),
    ]
    for asked, rows in wanted:
        found = await runtime.db.read(lambda tx: list_archives(tx, asked, None, 10))  # noqa: B023
        assert sorted(found) == sorted(rows)
    assert await runtime.db.read(lambda tx: get_archive(tx, first.id)) == first
