"""The spool and the process that dies: nothing is lost and nothing counts twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.service import ADMIN, ROOT, Service, environment, serving, stored, sums_of
from tollgate_client import QueueFull, Tollgate
from tollgate_client.spool import Spool

AWAY = "http://127.0.0.1:9"
WRITER = """
import sys, time
from tollgate_client import Tollgate
url, key, spool, user = sys.argv[1:]
gate = Tollgate(url, key, spool=spool, on_error="closed", flush_interval_s=0.02)
for place in range(1_000_000):
    gate.record(user_id=user, id=f"{user}-{place}", provider="openai", model="gpt-4o-mini",
                usage={"input_tokens": place, "output_tokens": 1})
    print(place, flush=True)
    time.sleep(0.001)
"""


class Writer:
    """A process that records as fast as it can and says what it was promised."""

    def __init__(self, service: Service, spool: Path, user: str) -> None:
        self.promised = -1
        sdk = os.pathsep.join((str(ROOT / "sdk"), str(ROOT)))
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, service.base, ADMIN, str(spool), user],
            env=environment("", PYTHONPATH=sdk),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                self.promised = int(line)

    def wait_for(self, number: int) -> None:
        """Wait until so many were promised."""
        end = time.monotonic() + 30
        while self.promised < number:
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> int:
        """End it as a power cut would; the last number that it was promised."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self.promised


@pytest.mark.fault
def test_killed_clients_and_a_killed_service_lose_and_double_nothing(
    url: str, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    with serving(url) as (service,):
        promised: dict[str, int] = {}
        for turn in range(2):
            writer = Writer(service, spool, f"w{turn}")
            try:
                writer.wait_for(100)
                service.kill()
                time.sleep(0.3)
                if turn < 1:
                    service.start()
                    time.sleep(0.3)
            finally:
                promised[f"w{turn}"] = writer.kill()
        service.start()
        with Tollgate(service.base, ADMIN, spool=spool) as gate:
            assert gate.flush(60)
            assert (gate.stats.refused, gate.stats.waiting) == (0, 0)
        service.kill()
    rows, totals = stored(url)
    found = {name: i for _, name, i, _ in rows}
    assert len(found) == len(rows), "an id is in the log twice"
    for user, last in promised.items():
        assert last >= 100
        assert all(found.get(f"{user}-{place}") == place for place in range(last + 1))
    extra = len(rows) - sum(last + 1 for last in promised.values())
    assert 0 <= extra <= 2, "a writer may be killed between recording and saying so"
    assert totals == sums_of(rows)
    assert not [one for one in spool.iterdir() if one.is_dir()]


def test_what_could_not_be_sent_is_sent_at_the_next_start(
    service: Service, user: str, tmp_path: Path, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Tollgate(AWAY, ADMIN, spool=tmp_path, close_within_s=0.2) as gate:
        for place in range(2500):
            gate.record(user_id=user, usage={"input_tokens": place})
    assert "delivery.kept events=2500" in caplog.text
    with Tollgate(service.base, ADMIN, spool=tmp_path) as gate:
        assert gate.flush()
    usage = said(f"/v1/users/{user}/usage")
    assert (usage["total_calls"], usage["input_tokens"]) == (2500, sum(range(2500)))
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_lives_keeps_its_files(tmp_path: Path) -> None:
    one, other = Spool(tmp_path, 1 << 20, "interval"), None
    one.put(b'{"a":1}\n')
    other = Spool(tmp_path, 1 << 20, "interval")
    assert other.take() is None
    one.close()
    other.close()
    third = Spool(tmp_path, 1 << 20, "interval")
    batch = third.take()
    assert batch is not None
    assert batch.lines == [b'{"a":1}\n']
    third.done(batch)
    third.close()


def test_a_full_spool_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = Tollgate(AWAY, "k", spool=tmp_path, spool_bytes=1000, close_within_s=0.1)
    for _ in range(50):
        gate.record(user_id="u")
    stats = gate.stats
    assert stats.taken + stats.dropped == 50
    assert stats.waiting == stats.taken > 0
    assert "the spool has its 1000 bytes" in caplog.text
    gate.close()
    closed = Tollgate(AWAY, "k", spool=tmp_path, spool_bytes=1000, on_error="closed")
    with pytest.raises(QueueFull):
        closed.record(user_id="u")
    closed.close(0.1)


def test_a_disk_that_takes_nothing_more_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, 1 << 20, "record")
    spool.put(b'{"a":1}\n')
    write = os.write

    def half(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(fd, bytes(data)[:3])

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(QueueFull, match="No space left"):
        spool.put(b'{"b":2}\n')
    monkeypatch.setattr(os, "write", write)
    spool.put(b'{"c":3}\n')
    batch = spool.take()
    assert batch is not None
    assert batch.lines == [b'{"a":1}\n', b'{"c":3}\n']
    spool.done(batch)
    spool.close()


def test_a_line_that_a_power_cut_tore_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "0190-gone"
    folder.mkdir()
    (folder / "000000000001.ndjson").write_bytes(b'{"a":1}\n{"b":')
    spool = Spool(tmp_path, 1 << 20, "interval")
    batch = spool.take()
    assert batch is not None
    assert batch.lines == [b'{"a":1}\n']
    spool.done(batch)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_refused_events_are_kept_with_the_reason(
    service: Service, user: str, tmp_path: Path
) -> None:
    with Tollgate(service.base, ADMIN, spool=tmp_path) as gate:
        name = gate.record(user_id=user, usage={"no_such_counter": 1})
        assert gate.flush()
    line = json.loads((tmp_path / "refused.ndjson").read_text())
    assert line["event"]["id"] == name
    assert "no_such_counter" in line["refused"]["pointer"] + line["refused"]["detail"]


def test_a_forked_child_sends_its_own_events_alone(
    service: Service, user: str, tmp_path: Path, said: Any
) -> None:
    code = """
import os, sys
from tollgate_client import Tollgate
url, key, spool, user = sys.argv[1:]
gate = Tollgate(url, key, spool=spool, flush_interval_s=30)
gate.record(user_id=user, usage={"input_tokens": 1})
child = os.fork()
gate.record(user_id=user, usage={"input_tokens": 10 if child else 100})
if child:
    os.waitpid(child, 0)
"""
    sdk = os.pathsep.join((str(ROOT / "sdk"), str(ROOT)))
    subprocess.run(
        [sys.executable, "-c", code, service.base, ADMIN, str(tmp_path), user],
        env=environment("", PYTHONPATH=sdk),
        check=True,
        timeout=30,
    )
    usage = said(f"/v1/users/{user}/usage")
    assert (usage["total_calls"], usage["input_tokens"]) == (3, 111)
