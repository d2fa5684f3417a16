"""The wire: both protocols say the same, in order, within deadlines, whatever is sent."""

import json
import re
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.clock import FrozenClock
from app.pricing.catalog import Catalog
from app.web import lean, server
from tests.conftest import START
from tests.faults.live import ADMIN, Answer, Live, Wire, ask, living, problem, request_bytes

EVENT = {"user_id": "wire", "provider": "openai", "model": "gpt-4o-mini", "usage": {"requests": 1}}
DOORS = ("swift", "plain")


@pytest.fixture(scope="module")
def live(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, catalog: Catalog
) -> Iterator[Live]:
    path = tmp_path_factory.mktemp("wire") / "wire.db"
    shutil.copy(sqlite_template, path)
    with living(f"sqlite:///{path}", FrozenClock(START), catalog) as found:
        yield found


@pytest.fixture
def port(live: Live, door: str) -> int:
    found: int = getattr(live, door)
    return found


every_door = pytest.mark.parametrize("door", DOORS)


def body_of(name: str, **more: object) -> bytes:
    return json.dumps(EVENT | {"id": name} | more).encode()


def event(name: str, target: str = "/v1/events") -> bytes:
    return request_bytes("POST", target, body_of(name))


def comparable(answer: Answer) -> tuple[int, dict[str, str], str]:
    """What must not depend on the door."""
    headers = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
    body = re.sub(r"req_[0-9a-f]+", "req_", answer.body.decode())
    return answer.status, headers, re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", "uuid", body)


SAME = {
    "an event": event("same"),
    "the event again": event("same"),
    "another under its id": request_bytes("POST", "/v1/events", body_of("same", method="GET")),
    "an event without an id": request_bytes("POST", "/v1/events", json.dumps(EVENT).encode()),
    "an id in the header": request_bytes(
        "POST", "/v1/events", json.dumps(EVENT).encode(), {"Idempotency-Key": "from-header"}
    ),
    "a batch": request_bytes("POST", "/v1/events", b"[" + body_of("same-b") + b"]"),
    "a mixed batch": request_bytes("POST", "/v1/events", b"[" + body_of("same-b") + b",7]"),
    "no JSON": request_bytes("POST", "/v1/events", b"{"),
    "nothing": request_bytes("POST", "/v1/events", b""),
    "a wrong field": request_bytes("POST", "/v1/events", body_of("x", nope=1)),
    "a wrong media type": request_bytes("POST", "/v1/events", b"x", {"Content-Type": "text/x"}),
    "no key": request_bytes("POST", "/v1/events", body_of("x"), key=None),
    "a wrong key": request_bytes("POST", "/v1/events", body_of("x"), key="tg_wrong"),
    "too large for one": request_bytes("POST", "/v1/events", body_of("x") + b" " * (1 << 20)),
    "a long key": request_bytes("POST", "/v1/events", body_of("x"), key="k" * 600),
    "a check": request_bytes("POST", "/v1/limits/check", b'{"user_id":"wire"}'),
    "a bad check": request_bytes("POST", "/v1/limits/check", b'{"user_id":""}'),
    "an unknown path": request_bytes("GET", "/v1/nothing"),
    "an unknown path posted to": request_bytes("POST", "/v1/nothing", b"{}"),
    "a slash too many": request_bytes("POST", "/v1/events/", b"{}"),
    "two slashes": request_bytes("POST", "//v1/events", b"{}"),
    "an escaped path": request_bytes("POST", "/v1/%65vents", body_of("escaped")),
    "a wrong method": request_bytes("GET", "/v1/events"),
    "a missing page": request_bytes("GET", "/v1/users/nobody/events/none"),
    "health": request_bytes("GET", "/healthz", key=None),
}


@pytest.mark.parametrize("what", SAME)
def test_both_ways_give_the_same_answer(live: Live, what: str) -> None:
    """A duplicate is sent first, so that neither door sees another state than the other."""
    if what != "no key":
        ask(live.plain, event("same"))
        ask(live.plain, SAME["a batch"])
    swift, plain = ask(live.swift, SAME[what]), ask(live.plain, SAME[what])
    if what in ("an id in the header", "an escaped path"):
        swift = ask(live.swift, SAME[what])
    assert comparable(swift) == comparable(plain)
    for answer in (swift, plain):
        assert answer.headers["x-request-id"]
        if answer.status >= 400:
            problem(answer)


@every_door
def test_a_request_id_is_given_back_or_made(port: int) -> None:
    seen = set()
    for given in ("trace:1234.abc-DEF_x", "12345678", "x" * 64):
        for request in (event("ids"), b"", request_bytes("GET", "/v1/nothing")):
            data = request or request_bytes("GET", "/healthz")
            marked = data.replace(b"\r\n", f"\r\nX-Request-Id: {given}\r\n".encode(), 1)
            assert ask(port, marked).headers["x-request-id"] == given
    for bad in ("short", "x" * 65, "has space", "caf\xe9-caf\xe9", "a\tb-------", '<script>"">'):
        data = event("ids").replace(b"\r\n", f"\r\nX-Request-Id: {bad}\r\n".encode("latin-1"), 1)
        made = ask(port, data).headers["x-request-id"]
        assert made.startswith("req_")
        assert made not in seen
        seen.add(made)


# ---- one connection ---------------------------------------------------------------------------


@every_door
def test_pipelined_requests_are_answered_in_their_order(port: int, door: str) -> None:
    """Swift, ordinary, swift: a fast answer never overtakes a slow one."""
    requests, expected = b"", []
    for turn in range(12):
        name = f"{door}-p{turn}"
        kinds = {
            0: (event(name), 201),
            1: (request_bytes("GET", f"/v1/nothing/{name}"), 404),
            2: (event(name, "/v1/events?atomic=false"), 201),
            3: (request_bytes("POST", "/v1/events", b"[" + body_of(name) + b"]"), 200),
            4: (request_bytes("POST", "/v1/events", b'{"user_id":7}'), 422),
        }
        data, status = kinds[turn % 5]
        marked = data.replace(b"\r\n", f"\r\nX-Request-Id: order-{turn:04}\r\n".encode(), 1)
        requests += marked
        expected.append((f"order-{turn:04}", status))
    with Wire(port) as wire:
        wire.send(requests)
        found = []
        for _ in expected:
            answer = wire.answer()
            found.append((answer.headers["x-request-id"], answer.status))
        assert found == expected
        wire.send(event(f"{door}-after"))
        assert wire.answer().status == 201


@every_door
def test_many_swift_requests_in_one_packet(port: int, door: str) -> None:
    names = [f"{door}-many-{number}" for number in range(150)]
    with Wire(port) as wire:
        wire.send(b"".join(event(name) for name in names))
        assert [json.loads(wire.answer().body)["id"] for _ in names] == names


@every_door
def test_a_connection_is_kept_and_closed_as_asked(port: int, door: str) -> None:
    with Wire(port) as wire:
        for turn in range(3):
            wire.send(event(f"{door}-k{turn}"))
            answer = wire.answer()
            assert answer.status == 201
            assert "connection" not in answer.headers
        last = event(f"{door}-last").replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        wire.send(last)
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (201, "close")
        assert wire.ended()


@every_door
def test_http_1_0_is_answered_and_closed(port: int, door: str) -> None:
    with Wire(port) as wire:
        wire.send(event(f"{door}-old").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.answer().status == 201
        assert wire.ended()


@every_door
@pytest.mark.parametrize("target", ["/v1/events", "/v1/events?atomic=false"])
def test_continue_is_said_before_the_body(port: int, door: str, target: str) -> None:
    name = f"{door}-100-{len(target)}"
    data = event(name, target).replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1)
    head, _, body = data.partition(b"\r\n\r\n")
    with Wire(port) as wire:
        wire.send(head + b"\r\n\r\n")
        assert wire.answer().status == 100
        wire.send(body)
        assert wire.answer().status == 201


@every_door
def test_no_body_is_asked_for_that_would_be_refused(port: int) -> None:
    """Without a key, or announced too large, the answer comes instead of `100 Continue`."""
    for headers, key, status in (
        ({"Content-Length": "20"}, None, 401),
        ({"Content-Length": str(17 << 20)}, ADMIN, 413),
        ({"Content-Length": "20", "Content-Type": "text/plain"}, ADMIN, 415),
    ):
        more = {"Content-Type": "application/json", "Expect": "100-continue"} | headers
        data = request_bytes("POST", "/v1/events", None, more, key=key)
        assert ask(port, data).status == status


@every_door
@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_request_in_many_packets_is_read_whole(port: int, door: str, size: int) -> None:
    data = event(f"{door}-split-{size}")
    with Wire(port) as wire:
        for start in range(0, len(data), size):
            wire.send(data[start : start + size])
            if start % (8 * size) == 0:
                time.sleep(0.001)
        assert wire.answer().status == 201
        wire.send(data[:30])
        time.sleep(0.02)
        wire.send(data[30:])
        assert wire.answer().status == 200


@every_door
def test_chunked_bodies_are_read(port: int, door: str) -> None:
    body = body_of(f"{door}-chunked")
    chunks = b"".join(
        b"%x;ext=1\r\n%b\r\n" % (len(body[n : n + 9]), body[n : n + 9])
        for n in range(0, len(body), 9)
    )
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    head = request_bytes("POST", "/v1/events", None, headers)
    with Wire(port) as wire:
        wire.send(head + chunks + b"0\r\n\r\n" + event(f"{door}-next"))
        assert [wire.answer().status, wire.answer().status] == [201, 201]


# ---- methods ----------------------------------------------------------------------------------


@every_door
@pytest.mark.parametrize("target", ["/v1/events", "/v1/limits/check", "/v1/plans/x"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PROPFIND", "PURGE"])
def test_a_method_that_is_not_there_is_405(port: int, method: str, target: str) -> None:
    if method in ("HEAD", "PUT") and target != "/v1/events":
        return  # plans and limits are put and read
    with Wire(port) as wire:
        wire.send(request_bytes(method, target))
        answer = wire.answer(head=method == "HEAD")
        assert answer.status == 405
        assert answer.headers["allow"]
        assert answer.headers["x-request-id"]
        if method != "HEAD":
            problem(answer, "method-not-allowed")
        wire.send(request_bytes("GET", "/healthz"))
        assert wire.answer().status == 200


@every_door
@pytest.mark.parametrize("target", ["/healthz", "/docs", "/metrics", "/v1/plans", "/v1/nothing"])
def test_head_is_get_without_its_body(port: int, target: str) -> None:
    with Wire(port) as wire:
        wire.send(request_bytes("GET", target))
        whole = wire.answer()
        wire.send(request_bytes("HEAD", target) + request_bytes("GET", "/healthz"))
        head = wire.answer(head=True)
        assert (head.status, head.body) == (whole.status, b"")
        kind = "content-type"
        assert head.headers[kind] == whole.headers[kind]
        assert wire.answer().body == b'{"status":"ok"}'


@every_door
@pytest.mark.parametrize(
    ("target", "methods"),
    [
        ("/v1/events", "POST"),
        ("/v1/plans", "GET, HEAD, POST"),
        ("/v1/plans/x", "GET, HEAD, PUT, PATCH, DELETE"),
        ("/v1/users/u/subscription", "GET, HEAD, PUT"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_every_method_of_a_path_is_named(port: int, target: str, methods: str) -> None:
    answer = ask(port, request_bytes("OPTIONS", target))
    assert answer.headers["allow"] == methods
    assert problem(answer, "method-not-allowed")["detail"].endswith(methods)


@every_door
def test_what_is_nowhere_says_so(port: int) -> None:
    assert problem(ask(port, request_bytes("GET", "/v1/nothing")), "not-found")["detail"]


# ---- a bug of ours ----------------------------------------------------------------------------


@every_door
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_bug_is_told_and_the_connection_stays(
    live: Live, port: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed without a word, it would break under the next request on it."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    for name in ("read", "write"):
        monkeypatch.setattr(live.runtime.db, name, broken)
    body = None if method == "GET" else b"{}"
    with Wire(port) as wire:
        for _ in range(2):
            wire.send(request_bytes(method, "/v1/retention", body))
            answer = wire.answer()
            assert answer.status == 500
            assert "a bug" not in json.dumps(problem(answer, "internal"))
        wire.send(request_bytes("GET", "/healthz"))
        assert wire.answer().status == 200


# ---- what is not HTTP -------------------------------------------------------------------------

NOISE = {
    "a greeting of TLS": bytes.fromhex("16030100a5010000a10303") + b"\x00" * 90,
    "an unknown method": b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
    "a lower-case method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version 3": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a negative length": request_bytes("POST", "/v1/events", b"", {"Content-Length": "-5"}),
    "a length in words": request_bytes("POST", "/v1/events", b"", {"Content-Length": "ten"}),
    "a length beyond 64 bits": request_bytes(
        "POST", "/v1/events", b"", {"Content-Length": "9" * 30}
    ),
    "two lengths": event("two").replace(b"\r\n", b"\r\nContent-Length: 3\r\n", 1),
    "a length and chunks": event("both").replace(b"\r\n", b"\r\nTransfer-Encoding: chunked\r\n", 1),
    "unknown coding": event("cow").replace(b"\r\n", b"\r\nTransfer-Encoding: cow\r\n", 1),
    "a chunk that is not hexadecimal": request_bytes(
        "POST", "/v1/events", None, {"Transfer-Encoding": "chunked"}
    )
    + b"zz\r\n",
    "a chunk of 16 EiB": request_bytes(
        "POST",
        "/v1/events",
        None,
        {"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
    )
    + b"ffffffffffffffff0\r\n",
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "a bell in a header": b"GET /healthz HTTP/1.1\r\nX: a\x07b\r\n\r\n",
    "only line ends": b"\r\n" * 50 + b"\x00",
}


@pytest.mark.parametrize("what", NOISE)
def test_what_is_not_http_is_refused_and_closed(live: Live, what: str) -> None:
    """A problem document too: every answer of ours is one that a client can read."""
    before = live.logged()
    with Wire(live.swift) as wire:
        wire.send(NOISE[what])
        answer = wire.answer()
        assert 400 <= answer.status < 500
        problem(answer)
        assert answer.headers["connection"] == "close"
        assert wire.ended()
    assert live.logged() == before


def test_what_follows_an_answered_request_and_is_no_http_does_not_lose_the_answer(
    live: Live,
) -> None:
    with Wire(live.swift) as wire:
        wire.send(event("first-then-noise") + b"\x00\x01 noise\r\n\r\n")
        assert wire.answer().status == 201


def test_a_head_that_is_too_large_is_431(live: Live) -> None:
    for data in (
        b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 80_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: aaaaaaaaaaaaaaaaaaa\r\n" * 5_000 + b"\r\n",
        b"GET /healthz?" + b"a" * 66_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz?" + b"a" * 33_000 + b" HTTP/1.1\r\nX: " + b"a" * 33_000 + b"\r\n\r\n",
    ):
        with Wire(live.swift) as wire:
            wire.send(data)
            answer = wire.answer()
            assert answer.status == 431
            problem(answer)
            assert wire.ended()
    fits = b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"
    assert ask(live.swift, fits).status == 200


def test_a_head_that_fits_is_read_in_whatever_pieces_it_comes(live: Live) -> None:
    body = b"x" * 200_000
    head = request_bytes("POST", "/v1/plans", None, {"X": "a" * 40_000, "Content-Length": "200000"})
    for size in (1_000, 20_000, 100_000):
        data = request_bytes("GET", "/healthz") + head + body
        with Wire(live.swift) as wire:
            for start in range(0, len(data), size):
                wire.send(data[start : start + size])
                time.sleep(0.002)
            assert wire.answer().status == 200
            assert wire.answer().status == 413


@pytest.mark.parametrize(
    "start", [b"GET /healthz HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\nX"]
)
def test_a_head_that_never_ends_is_cut_by_its_size(live: Live, start: bytes) -> None:
    """Not only by the clock: until then it would fill the memory."""
    taken = 0
    with Wire(live.swift) as wire:
        wire.send(start)
        try:
            while taken < 30_000_000:
                wire.send(b"a" * 100_000)
                taken += 100_000
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert taken < 30_000_000


# ---- who does not finish ----------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of a third of a second."""
    for module, name in (
        (server, "HEAD_SECONDS"),
        (server, "BODY_SECONDS"),
        (lean, "BODY_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.3)


SLOW = {
    "nothing": b"",
    "half a line": b"POST /v1/ev",
    "half a head": b"POST /v1/events HTTP/1.1\r\nHost: x\r\n",
    "no body": event("slow").partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    "half a body": event("slow")[:-5],
    "half a body, ordinary way": event("slow", "/v1/events?atomic=false")[:-5],
    "no body, ordinary way": event("slow", "/v1/events?atomic=false").partition(b"\r\n\r\n")[0]
    + b"\r\n\r\n",
    "no body of a check": request_bytes(
        "POST",
        "/v1/limits/check",
        None,
        {"Content-Type": "application/json", "Content-Length": "9"},
    ),
    "no chunk": request_bytes(
        "POST",
        "/v1/events",
        None,
        {"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
    ),
    "half a chunk": request_bytes(
        "POST",
        "/v1/events",
        None,
        {"Transfer-Encoding": "chunked", "Content-Type": "application/json"},
    )
    + b"ff\r\n{",
    "no body of a plan": request_bytes(
        "POST", "/v1/plans", None, {"Content-Type": "application/json", "Content-Length": "9"}
    ),
    "half a second request": request_bytes("GET", "/healthz") + b"GET /he",
}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("what", SLOW)
def test_who_does_not_finish_is_let_go(live: Live, what: str) -> None:
    with Wire(live.swift, 4) as wire:
        wire.send(SLOW[what])
        began = time.monotonic()
        if what == "half a second request":
            assert wire.answer().status == 200
        try:
            answer = wire.answer()
        except (EOFError, ConnectionResetError):
            pass
        else:
            assert answer.status in (408, 422)
            problem(answer)
        assert time.monotonic() - began < 3


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("target", ["/v1/events", "/v1/limits/check", "/v1/events?atomic=false"])
def test_whose_body_does_not_come_is_told_so(live: Live, target: str) -> None:
    with Wire(live.swift, 4) as wire:
        wire.send(event("stalled", target)[:-5])
        assert "in time" in problem(wire.answer(), "invalid-input")["detail"]


@pytest.mark.usefixtures("hasty")
def test_a_byte_now_and_then_does_not_keep_a_head_open(live: Live) -> None:
    with Wire(live.swift, 4) as wire:
        began = time.monotonic()
        try:
            for byte in b"POST /v1/events HTTP/1.1\r\nHost: " + b"x" * 100:
                wire.send(bytes([byte]))
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - began < 3


@pytest.mark.usefixtures("hasty")
def test_an_idle_connection_outlives_the_deadline_of_a_head(live: Live) -> None:
    with Wire(live.swift) as wire:
        for turn in range(3):
            wire.send(event(f"idle-{turn}"))
            assert wire.answer().status in (200, 201)
            time.sleep(0.5)
        wire.send(request_bytes("GET", "/healthz"))
        assert wire.answer().status == 200


@every_door
def test_who_stops_sending_is_answered_or_let_go(port: int, door: str) -> None:
    """uvicorn closes when the other side does; who sends again learns what became of it."""
    with Wire(port) as wire:
        wire.send(event(f"{door}-half"))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.ended() or wire.answer().status == 201
    assert ask(port, event(f"{door}-half")).status in (200, 201)


@every_door
def test_who_vanishes_in_the_middle_leaves_nothing(live: Live, port: int, door: str) -> None:
    before = live.logged()
    for target in ("/v1/events", "/v1/events?atomic=false"):
        data = event(f"{door}-gone", target)
        for cut in (10, len(data) // 2, len(data) - 3):
            wire = Wire(port)
            wire.send(data[:cut])
            time.sleep(0.01)
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.socket.close()
    assert ask(port, request_bytes("GET", "/readyz")).status == 200
    assert live.logged() == before


@every_door
def test_who_does_not_wait_for_the_answer_is_recorded_all_the_same(
    live: Live, port: int, door: str
) -> None:
    """Whoever was cut off before the answer sends again and is told that it is a duplicate."""
    with Wire(port) as wire:
        wire.send(event(f"{door}-unheard"))
    end = time.monotonic() + 3
    while time.monotonic() < end:
        answer = ask(port, request_bytes("GET", f"/v1/users/wire/events/{door}-unheard"))
        if answer.status == 200:
            break
        time.sleep(0.02)
    assert answer.status == 200
    assert json.loads(ask(port, event(f"{door}-unheard")).body)["status"] == "duplicate"
