"""What the client makes of the answers it gets while it delivers, and how long it waits."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tollgate_client import Tollgate, uuid7
from tollgate_client.backoff import LONGEST_ASKED_S, LONGEST_S, asked_pause_s, pause_s

Answer = tuple[int, dict[str, str], Any]
FINE: Answer = (200, {}, {"recorded": 0, "duplicates": 0, "results": []})


class Scripted:
    """A server that gives the answers it was told to, then says that all is well."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.bodies: list[bytes] = []
        self.at: list[float] = []
        handler = type("Handler", (_Handler,), {"script": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    script: Scripted

    def log_message(self, *_: object) -> None:
        return

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        self.script.bodies.append(body)
        self.script.at.append(time.monotonic())
        status, headers, said = self.script.answers.pop(0) if self.script.answers else FINE
        content = json.dumps(said).encode()
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def script() -> Iterator[Scripted]:
    found = Scripted()
    yield found
    found.close()


@pytest.fixture
def told(script: Scripted) -> Iterator[Tollgate]:
    with Tollgate(script.url, "k", flush_interval_s=30, queue_events=100_000) as gate:
        yield gate


def test_what_is_sent_again_is_the_same_and_not_before_it_was_asked_for(
    script: Scripted, told: Tollgate
) -> None:
    script.answers = [(503, {"Retry-After": "1"}, {"detail": "the queue is full"})]
    told.record(user_id="u", usage={"input_tokens": 1})
    assert told.flush(10)
    first, second = script.bodies
    assert first == second
    assert script.at[1] - script.at[0] >= 1
    assert told.stats.last_failure == "503 the queue is full"
    assert (told.stats.delivered, told.stats.failed_attempts) == (1, 1)


def test_what_is_too_large_together_is_sent_in_parts(script: Scripted, told: Tollgate) -> None:
    script.answers = [(413, {}, {"detail": "too large"})] * 2
    for place in range(4):
        told.record(user_id=f"u{place}")
    assert told.flush(10)
    assert [body.count(b"\n") for body in script.bodies] == [4, 2, 1, 1, 2]
    assert told.stats.delivered == 4


def test_many_events_go_together_and_in_order(script: Scripted, told: Tollgate) -> None:
    for place in range(2_500):
        told.record(user_id=f"u{place}")
    assert told.flush(20)
    assert all(body.count(b"\n") <= 1_000 for body in script.bodies)
    assert len(script.bodies) <= 5
    sent = [json.loads(line)["user_id"] for line in b"".join(script.bodies).splitlines()]
    assert sent == [f"u{place}" for place in range(2_500)]


def test_pauses_grow_to_a_minute_and_are_never_shorter_than_asked() -> None:
    longest = [pause_s(attempt, None, lambda: 1.0) for attempt in range(1, 40)]
    assert longest == sorted(longest)
    assert longest[0] == 0.25
    assert longest[-1] == LONGEST_S
    assert pause_s(3, None, lambda: 0.0) == 0.5
    assert all(pause_s(attempt, 7, lambda: 0.0) >= 7 for attempt in range(1, 40))
    assert pause_s(1, 1e9, lambda: 0.0) < LONGEST_ASKED_S + 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *((None, None), ("soon", None), ("7", 7), (" 30 ", 30)),
        *(("Fri, 20 Nov 2026 12:00:30 GMT", 30), ("Fri, 20 Nov 2026 11:00:00 GMT", 0)),
    ],
)
def test_a_pause_may_be_asked_for_in_seconds_or_until(
    header: str | None, seconds: float | None
) -> None:
    assert asked_pause_s(header, datetime(2026, 11, 20, 12, tzinfo=UTC)) == seconds


def test_ids_are_of_version_seven_and_sort_by_time() -> None:
    first = uuid7()
    time.sleep(0.002)
    ids = {uuid7() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(one > first and one[14] == "7" and one[19] in "89ab" for one in ids)
