"""P13: no input makes a 5xx, a hang, unbounded memory or an account that cannot be read.

What is refused is a problem document that names the place, says nothing of what was sent, and
leaves nothing behind; what is taken comes back exactly as it was sent. Every request goes through
two doors: the swift one, and FastAPI behind plain uvicorn.
"""

import gzip
import json
import random
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from app.core.clock import FrozenClock
from app.core.counters import COUNTERS, SECONDS
from app.pricing.catalog import Catalog
from tests.conftest import ENGINES, START
from tests.faults.live import Answer, Live, Wire, ask, living, problem, request_bytes
from tests.postgres import drop_database, new_database

GIVEN = json.loads((Path(__file__).parents[1] / "fixtures" / "badinputs.json").read_text())
DOORS = ("swift", "plain")
EVENT = {"id": "i", "user_id": "u", "provider": "openai", "model": "gpt-4o-mini"}
GZIP = {"Content-Encoding": "gzip"}
PARTS = (
    *("cache_read_tokens", "cache_write_tokens", "cache_write_5m_tokens", "input_audio_tokens"),
    *("cache_audio_read_tokens", "input_image_tokens", "output_reasoning_tokens"),
    *("output_audio_tokens", "output_image_tokens"),
)


class Bad(NamedTuple):
    """A request to `POST /v1/events` and what must be said of it."""

    what: str
    body: bytes
    pointer: str | None = None
    """Where the fault is; None: anywhere."""
    status: tuple[int, ...] = (422,)
    headers: dict[str, str | None] = {}  # noqa: RUF012
    query: str = ""


def _with(field: str, raw: str) -> bytes:
    """An event with one field given as raw JSON."""
    rest = json.dumps({name: value for name, value in EVENT.items() if name != field})
    return f'{rest[:-1]}, "{field}": {raw}}}'.encode()


def _broken() -> Iterator[Bad]:
    for what, text in GIVEN["broken"]:
        yield Bad(what, text.encode(), "" if text[:1] != "[" else None)
        if text.strip():
            yield Bad(f"{what}, in an array", b"[" + text.encode() + b"]")
    for what, text, pointer in GIVEN["shapes"]:
        yield Bad(what, text.encode(), pointer)
        if pointer is not None and text[:1] in "{n":
            yield Bad(f"{what}, in an array", b"[" + text.encode() + b"]")


def _names() -> Iterator[Bad]:
    bounds = {"id": 512, "user_id": 256, "provider": 128, "model": 256, "team_id": 256}
    bounds |= {"api_key_id": 256, "session_id": 256, "backend": 256, "pool": 256, "hold_id": 256}
    bounds |= {"endpoint": 512, "user_agent": 512, "method": 16, "ip_address": 64}
    bounds |= {"task_type": 128, "error_message": 4096}
    free = ("error_message", "user_agent", "method", "ip_address", "hold_id")
    for field, longest in bounds.items():
        at = f"/{field}"
        yield Bad(f"{field} too long", _with(field, json.dumps("x" * (longest + 1))), at)
        yield Bad(f"{field} with NUL", _with(field, r'"a\u0000b"'), at)
        yield Bad(f"{field} that is a number", _with(field, "7"), at)
        yield Bad(f"{field} that is a list", _with(field, '["a"]'), at)
        yield Bad(f"{field} with half a character", _with(field, r'"\ud800"'), at)
        if field not in free:
            yield Bad(f"{field} with a bell", _with(field, r'"a\u0007"'), at)
            yield Bad(f"{field} with DEL", _with(field, '"a\x7f"'), at)
            yield Bad(f"{field} with a line end", _with(field, r'"a\nb"'), at)
    yield Bad("a long emoji id", _with("id", json.dumps("😀" * 512)), "/id")
    yield Bad("ten megabytes of name", _with("user_id", f'"{"x" * 10_000_000}"'), None, (413,))
    yield Bad("a megabyte of name", _with("user_id", f'"{"x" * 1_000_000}"'), "/user_id")
    tags = {f"t{n}": "" for n in range(17)}
    yield Bad("seventeen tags", _with("tags", json.dumps(tags)), "/tags")
    yield Bad(
        "a hundred thousand tags",
        _with("tags", json.dumps(dict.fromkeys(map(str, range(50_000)), ""))),
        "/tags",
    )
    yield Bad("a tag with NUL", _with("tags", r'{"a":"\u0000"}'), "/tags")
    yield Bad("a tag named NUL", _with("tags", r'{"\u0000":"a"}'), "/tags")
    yield Bad("a tag too long", _with("tags", json.dumps({"a": "x" * 513})))
    yield Bad("a tag's name too long", _with("tags", json.dumps({"x" * 65: "a"})))
    yield Bad("seventeen conditions", _with("context", json.dumps(tags)), "/context")
    yield Bad("a condition with NUL", _with("context", r'{"a":"\u0000"}'), "/context")


def _numbers() -> Iterator[Bad]:
    for raw in GIVEN["numbers"]:
        if raw not in ("null", "1e-400"):
            at = "" if "e400" in raw or "E+2" in raw else "/usage/input_tokens"
            body = _with("usage", f'{{"input_tokens": {raw}}}')
            yield Bad(f"{raw} tokens", body, at or None)
    digits = "9" * 100_000
    for raw in (digits, f"-{digits}", f"1e{digits}", f"0.{digits}"):
        yield Bad("a number of many digits", _with("usage", f'{{"input_tokens": {raw}}}'))
        yield Bad("seconds of many digits", _with("latency_ms", raw) if raw[0] != "0" else b"{")
    for counter in COUNTERS:
        name = f"/usage/{counter}"
        yield Bad(f"{counter}: -1", _with("usage", f'{{"{counter}": -1}}'), name)
        yield Bad(f"{counter}: true", _with("usage", f'{{"{counter}": true}}'), name)
        beyond = "1000000001" if counter in SECONDS else str(2**53)
        yield Bad(f"{counter}: {beyond}", _with("usage", f'{{"{counter}": {beyond}}}'), name)
        if counter in PARTS:
            whole = "output_tokens" if counter.startswith("output_") else "input_tokens"
            usage = json.dumps({whole: 5, counter: 6})
            yield Bad(f"{counter} beyond its whole", _with("usage", usage))
    both = json.dumps({"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 5})
    yield Bad("two parts beyond their whole", _with("usage", both), "/usage/cache_read_tokens")


def _instants() -> Iterator[Bad]:
    for text in GIVEN["instants"]:
        yield Bad(f"the instant {text!r}", _with("timestamp", json.dumps(text)), "/timestamp")
    for raw in ("1795177800", "1795177800.5", "-1", "true", "[]", "{}"):
        yield Bad(f"the instant {raw}", _with("timestamp", raw), "/timestamp")


def _encodings() -> Iterator[Bad]:
    plain = json.dumps(EVENT)
    for name in ("utf-16", "utf-16-le", "utf-32", "cp500"):
        yield Bad(f"in {name}", plain.encode(name))
    for what, raw in (
        ("a byte of Latin-1", b"\xe4"),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong NUL", b"\xc0\x80"),
        ("half a character", b"\xf0\x9f\x98"),
        ("a surrogate in UTF-8", b"\xed\xa0\xbd"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
        ("bytes that are none", b"\xff\xfe"),
        ("NUL itself", b"\x00"),
    ):
        yield Bad(what, b'{"user_id":"a' + raw + b'"}')
        yield Bad(f"{what}, in an array", b'[{"user_id":"a' + raw + b'"}]')
        yield Bad(f"{what}, in a name", b'{"user_id":"a","' + raw + b'":1}')
    yield Bad("a megabyte of noise", random.Random(1).randbytes(1 << 20))
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        deep = opened * 100_000 + ("1" if opened[0] == "{" else "") + closed * 100_000
        yield Bad(f"deep {opened}", deep.encode())
        yield Bad(f"deep {opened} as a tag", _with("tags", deep))
        yield Bad(f"deep {opened}, never closed", (opened * 1_000_000).encode(), None, (413, 422))


def _media() -> Iterator[Bad]:
    body = json.dumps(EVENT).encode()
    for kind in (
        *("text/plain", "application/xml", "application/x-www-form-urlencoded", "json", "*/*"),
        *("multipart/form-data; boundary=x", "application/jsonp", "application/json-seq", "a/b/c"),
        *("application/json; charset=utf-16", "application/json;charset=latin1", "x" * 10_000),
    ):
        yield Bad(f"as {kind[:50]}", body, None, (415,), {"Content-Type": kind})
    yield Bad("of no kind", body, None, (415,), {"Content-Type": None})
    for coding in ("br", "deflate", "zstd", "gzip, gzip", "identity, gzip", "compress", "nonsense"):
        yield Bad(f"packed as {coding}", body, None, (415,), {"Content-Encoding": coding})
    packed = gzip.compress(body)
    for what, sent in (
        ("not packed at all", body),
        ("cut", packed[:-9]),
        ("a byte changed", packed[:20] + b"\x00\xff" + packed[22:]),
        ("a wrong checksum", packed[:-8] + b"1234" + packed[-4:]),
        ("a wrong length", packed[:-4] + b"1234"),
        ("a tail", packed + b"tail"),
        ("packed twice", gzip.compress(packed)),
        ("the magic alone", b"\x1f\x8b"),
        ("nothing", b""),
        ("nothing, packed", gzip.compress(b"")),
    ):
        yield Bad(f"gzip: {what}", sent, "", (422,), GZIP)
    bomb = gzip.compress(b" " * (64 << 20))
    yield Bad("gzip: a bomb", bomb, None, (413,), GZIP)
    yield Bad(
        "gzip: a bomb of an event",
        gzip.compress(_with("model", f'"{"x" * (2 << 20)}"')),
        None,
        (413,),
        GZIP,
    )
    yield Bad("gzip: a bomb in pieces", gzip.compress(b" " * (1 << 20)) * 20, None, (413,), GZIP)
    huge = b"[" + body + b" " * (16 << 20) + b"]"
    yield Bad("more than 16 MiB", huge, None, (413,))
    yield Bad("more than a mebibyte for one", body + b" " * (1 << 20), None, (413,))
    many = b"[" + b",".join([b"{}"] * 10_001) + b"]"
    yield Bad("10,001 events", many, None, (413,))
    lines = {"Content-Type": "application/x-ndjson"}
    yield Bad("10,001 lines", b"{}\n" * 10_001, None, (413,), lines)
    yield Bad("lines of nothing", b"\n" * 100_000, "", (422,), lines)
    yield Bad("an array as lines", b"[" + body + b"]", None, (422,), lines)
    yield Bad("lines of junk", b"a\nb\nc", None, (422,), lines)


def _around() -> Iterator[Bad]:
    body = json.dumps(EVENT).encode()
    name = {"Idempotency-Key": "other"}
    yield Bad("another id in the header", body, "/id", (422,), name)
    for what, given in (("empty", ""), ("long", "x" * 513), ("Latin-1", "\xe4" * 513)):
        yield Bad(
            f"an {what} id in the header",
            b'{"user_id":"u"}',
            None,
            (422,),
            {"Idempotency-Key": given},
        )
    for query in ("atomic=maybe", "atomic=", "backfill=2", "backfill=%00"):
        yield Bad(
            f"?{query}",
            body if query[0] == "b" else b"[" + body + b"]",
            None,
            (422,),
            {},
            f"?{query}",
        )
    atomic = b"[" + body + b',{"user_id":7}]'
    yield Bad("one bad in an atomic batch", atomic, "/1/user_id", (422,), {}, "?atomic=true")
    old = _with("timestamp", '"1969-12-31T23:59:59Z"')
    yield Bad("a backfill before the epoch", old, "/timestamp", (422,), {}, "?backfill=true")
    ahead = _with("timestamp", '"2026-11-20T12:36:00Z"')
    yield Bad("a backfill ahead of time", ahead, "/timestamp", (422,), {}, "?backfill=true")


BAD = [*_broken(), *_names(), *_numbers(), *_instants(), *_encodings(), *_media(), *_around()]


# ---- the service ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, catalog: Catalog
) -> Iterator[Live]:
    """One service for every refusal: nothing that is refused may change it."""
    path = tmp_path_factory.mktemp("bad") / "bad.db"
    shutil.copy(sqlite_template, path)
    with living(f"sqlite:///{path}", FrozenClock(START), catalog) as found:
        yield found


@pytest.fixture(scope="module", params=ENGINES)
def keeping(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, catalog: Catalog
) -> Iterator[Live]:
    """A service on either engine, for what is taken."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("kept") / "kept.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        with living(f"sqlite:///{path}", FrozenClock(START), catalog) as found:
            yield found
        return
    server = request.getfixturevalue("postgres_server")
    url = new_database(server, request.getfixturevalue("postgres_template"))
    with living(url, FrozenClock(START), catalog) as found:
        yield found
    drop_database(server, url)


def sent(live: Live, door: str, bad: Bad) -> Answer:
    """Send it; the connection is refused or answered, and never waits."""
    target = f"/v1/events{bad.query}"
    data = request_bytes("POST", target, bad.body, bad.headers)  # type: ignore[arg-type]
    with Wire(getattr(live, door)) as wire:
        try:
            wire.send(data)
        except (BrokenPipeError, ConnectionResetError):
            assert 413 in bad.status  # it did not wait for the rest
        return wire.answer()


def assert_silent(answer: Answer, body: bytes) -> None:
    """No run of 100 bytes of what was sent is in the answer."""
    said, heard = answer.body, body[:200_000]
    for start in range(0, len(said) - 99, 25):
        assert said[start : start + 100] not in heard


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("bad", BAD, ids=[bad.what[:60] for bad in BAD])
def test_refused_with_its_place_and_nothing_kept(live: Live, door: str, bad: Bad) -> None:
    before = live.logged()
    began = time.monotonic()
    answer = sent(live, door, bad)
    assert time.monotonic() - began < 5
    assert answer.status in bad.status, answer
    assert_silent(answer, bad.body)
    if answer.headers["content-type"] == "application/json":  # a batch, refused item by item
        found = json.loads(answer.body)
        assert found["recorded"] == 0
        assert found["rejected"] == len(found["results"]) > 0
        places = [one["pointer"] for one in found["results"]]
        assert all(place.startswith("/") for place in places)
    else:
        found = problem(answer)
        places = [one["pointer"] for one in found.get("errors", [])]
        assert answer.status != 422 or places
        assert all(one["detail"] for one in found.get("errors", []))
    if bad.pointer is not None:
        assert bad.pointer in places
    assert live.logged() == before


@pytest.mark.parametrize("door", DOORS)
def test_after_all_of_that_the_service_is_as_it_was(live: Live, door: str) -> None:
    for number in range(20):
        body = json.dumps(EVENT | {"id": f"{door}-{number}", "user_id": "after"}).encode()
        assert ask(getattr(live, door), request_bytes("POST", "/v1/events", body)).status == 201
    assert ask(live.swift, request_bytes("GET", "/readyz", key=None)).status == 200
    usage = ask(live.swift, request_bytes("GET", "/v1/users/after/usage"))
    assert json.loads(usage.body)["total_calls"] >= 20


# ---- what is bounded --------------------------------------------------------------------------


HEAVY = {
    "an array of eight million numbers": gzip.compress(b"[" + b"0," * 8_000_000 + b"0]"),
    "an array of five million objects": gzip.compress(b"[" + b"{}," * 5_000_000 + b"{}]"),
    "an object of a million names in an array": gzip.compress(
        b"[{" + b",".join(b'"%x":1' % n for n in range(1_200_000)) + b"}]"
    ),
    "five million lines": gzip.compress(b"00\n" * 5_000_000),
    "ten thousand bad events": gzip.compress(
        b"[" + b",".join([b'{"user_id":"u","user_id":"v"}'] * 10_000) + b"]"
    ),
    "thousands of empty gzip members": gzip.compress(b"") * 200_000,
}


@pytest.mark.parametrize("what", HEAVY)
def test_a_small_request_cannot_take_much_memory_or_time(live: Live, what: str) -> None:
    """Others wait while one is read; 16 MiB are to be refused or read within a moment."""
    kind = "application/x-ndjson" if "lines" in what else "application/json"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    bad = Bad(what, HEAVY[what], headers=GZIP | {"Content-Type": kind})
    answer = sent(live, "swift", bad)
    took = time.monotonic() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert answer.status in (413, 422)
    assert took < 2.5, f"{took:.1f} s"
    assert grown < 200, f"{grown:.0f} MB"


@pytest.mark.parametrize("door", DOORS)
def test_one_account_at_its_ceiling_does_not_stop_another(keeping: Live, door: str) -> None:
    """The totals of all users share rows; one caller's numbers must never fill them up."""
    port = getattr(keeping, door)
    ceiling = {"user_id": f"rich-{door}", "cost_usd": "9223372036.854775807"}
    tokens = {"user_id": f"many-{door}", "usage": {"input_tokens": 2**53 - 1}}
    timestamp = {"timestamp": f"2026-11-1{DOORS.index(door)}T10:00:00Z"}
    for turn in range(3):
        ask(port, request_bytes("POST", "/v1/events", _json(ceiling | timestamp)))
        many = [tokens | timestamp | {"id": f"{turn}-{n}"} for n in range(1_000)]
        ask(port, request_bytes("POST", "/v1/events", _json(many)))
    poor = EVENT | {"user_id": f"poor-{door}", "usage": {"input_tokens": 10}} | timestamp
    answer = ask(port, request_bytes("POST", "/v1/events", _json(poor)))
    assert answer.status == 201, answer.body
    for user in ("rich", "many", "poor"):
        target = f"/v1/users/{user}-{door}/usage"
        assert ask(port, request_bytes("GET", target)).status == 200


def test_a_sum_beyond_64_bits_is_refused_whole(keeping: Live) -> None:
    """Never a float, never a wrapped number: the event that would pass the ceiling is refused."""
    at = {"user_id": "ceiling", "timestamp": "2026-11-14T10:00:00Z"}
    costs = ["4611686018.427387904", "4611686018.427387903", "0.000000001"]
    answers = [
        ask(keeping.swift, request_bytes("POST", "/v1/events", _json(at | {"cost_usd": cost})))
        for cost in costs
    ]
    taken = [cost for cost, answer in zip(costs, answers, strict=True) if answer.status == 201]
    assert all(
        answer.status == 201 or problem(answer, "invalid-input")["errors"] for answer in answers
    )
    usage = ask(keeping.swift, request_bytes("GET", "/v1/users/ceiling/usage"))
    assert usage.status == 200
    total = sum(int(cost.replace(".", "")) for cost in taken)
    found = json.loads(usage.body)["total_cost_usd"]
    whole, _, part = found.partition(".")
    assert int(whole) * 10**9 + int(part.ljust(9, "0")) == total


# ---- what is taken ----------------------------------------------------------------------------


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _spelt(value: Any) -> Any:
    """`x*3` in the fixture is `xxx`."""
    if isinstance(value, str) and value.rpartition("*")[2].isdigit() and "*" in value:
        text, _, times = value.rpartition("*")
        return text.replace("LETTER", "L") * int(times)
    return value


KEPT = [(what, {k: _spelt(v) for k, v in event.items()}) for what, event in GIVEN["kept"]]


@pytest.mark.parametrize("number", range(len(KEPT)), ids=[what for what, _ in KEPT])
def test_what_is_taken_comes_back_exactly_as_sent(keeping: Live, number: int) -> None:
    what, event = KEPT[number]
    for door in DOORS:
        name = event["id"]
        if door == "swift":  # another id of the same length
            name = name[:-1] + chr(0x100 + number)
        one = {"session_id": what} | event | {"id": name}
        answer = ask(getattr(keeping, door), request_bytes("POST", "/v1/events", _json(one)))
        assert answer.status == 201, answer.body
        receipt = json.loads(answer.body)
        assert (receipt["id"], receipt["user_id"]) == (name, event["user_id"])
        again = request_bytes("POST", "/v1/events", json.dumps(one).encode())  # with escapes
        assert json.loads(ask(getattr(keeping, door), again).body)["status"] == "duplicate"
        target = f"/v1/users/{quote(event['user_id'], safe='')}/events/{quote(name, safe='')}"
        read = ask(getattr(keeping, door), request_bytes("GET", target))
        assert read.status == 200, read.body
        found = json.loads(read.body)
        assert found["tags"] == one.get("tags", {})
        usage = {"input_tokens": 0, "output_tokens": 0} | one.get("usage", {"requests": 1})
        assert found["usage"] == usage
        for field in one.keys() - {"tags", "usage", "timestamp"}:
            assert found[field] == one[field], field


def test_names_that_look_alike_are_not_the_same(keeping: Live) -> None:
    """No collation and no normal form may fold two ids into one."""
    alike = ("\u00c5", "A\u030a", "\u212b", "\u00e5", "A", "a", "a ", "\uff41", "\u00df", "ss")
    for name in (*alike, "\u0131", "i", "I", "\u0130"):
        body = _json({"id": name, "user_id": "alike"})
        answer = ask(keeping.swift, request_bytes("POST", "/v1/events", body))
        assert answer.status == 201, name


# ---- the other endpoints ----------------------------------------------------------------------

ODD_BODIES = [
    *(b"", b" ", b"null", b"[]", b"{}", b"0", b'"x"', b"[[]]", b"{", b"\xff", b"\x00", b"true"),
    *(b"[" * 60_000, b'{"a":' * 10_000, b"9" * 60_000, b"1e999999", b"NaN", b'{"\xed\xa0\xbd":1}'),
]
ODD_VALUES: list[str] = [
    *("null", "true", "-1", "0.5", "1e400", "9" * 5_000, '""', '"x"', '"\\u0000"', '"\\ud800"'),
    *('"\\n"', "[]", "{}", "[null]", '{"a":null}', json.dumps("x" * 60_000), "9223372036854775808"),
    *('"-1"', '"1e5"', '"NaN"', '"2026-13-01T00:00:00Z"', '"9999-12-31T23:59:59-14:00"', '"../x"'),
    *('"Europe/../Berlin"', '["admin","x"]', '{"user_id":"\\u0000"}', '{"user_id":"u","all":true}'),
]
FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("POST", "/v1/limits/check"): (
        *("user_id", "provider", "model", "endpoint", "team_id", "api_key_id", "usage"),
        *("cost_usd", "context"),
    ),
    ("POST", "/v1/limits"): (
        *("name", "scope", "match", "metric", "window", "amount", "action", "thresholds"),
    ),
    ("POST", "/v1/plans"): ("name", "default", "id"),
    ("POST", "/v1/api-keys"): ("name", "scopes", "user_id", "expires_at"),
    ("POST", "/v1/prices/estimate"): (
        *("provider", "model", "usage", "timestamp", "context", "user_id"),
    ),
    ("PUT", "/v1/users/u/subscription"): ("plan_id", "anchor", "timezone", "interval"),
}
GOOD: dict[str, Any] = {
    "user_id": "u",
    "provider": "openai",
    "model": "gpt-4o",
    "usage": {"input_tokens": 5},
    "scope": {"user_id": "u"},
    "metric": "tokens",
    "window": "day",
    "amount": 10,
    "name": "n",
    "scopes": ["read"],
    "plan_id": "plan_none",
}


def _odd(method: str, path: str) -> Iterator[bytes]:
    yield from ODD_BODIES
    fields = FIELDS[method, path]
    good = {name: GOOD[name] for name in fields if name in GOOD}
    for field in (*fields, "__class__"):
        rest = json.dumps({k: v for k, v in good.items() if k != field})
        for raw in ODD_VALUES:
            comma = "," if rest != "{}" else ""
            yield f'{rest[:-1]}{comma}"{field}":{raw}}}'.encode()
        yield f'{{"{field}":1,"{field}":2}}'.encode()


@pytest.mark.parametrize(("method", "path"), FIELDS)
def test_no_odd_body_breaks_an_endpoint(keeping: Live, method: str, path: str) -> None:
    """A body is taken or refused with a problem; nothing is a 5xx and nothing is echoed."""
    with Wire(keeping.swift) as wire:
        for body in _odd(method, path):
            wire.send(request_bytes(method, path, body))
            answer = wire.answer()
            assert answer.status < 500, (body[:200], answer)
            assert "x-request-id" in answer.headers
            if answer.status >= 400:
                problem(answer)
                assert_silent(answer, body)
            else:
                json.loads(answer.body)


def test_a_check_names_the_place_of_what_is_wrong(live: Live) -> None:
    for body, pointer in (
        (b'{"user_id":7}', "/user_id"),
        (b'{"provider":"x"}', "/user_id"),
        (b'{"user_id":"u","usage":{"tokens":1}}', "/usage/tokens"),
        (b'{"user_id":"u","usage":{"input_tokens":1.5}}', "/usage/input_tokens"),
        (b'{"user_id":"u","cost_usd":"-1"}', "/cost_usd"),
        (b'{"user_id":"u","more":1}', "/more"),
        (b'{"user_id":"a\\u0000b"}', "/user_id"),
        (b'{"user_id":"u","team_id":"a\\u0000b"}', "/team_id"),
    ):
        answer = ask(live.swift, request_bytes("POST", "/v1/limits/check", body))
        assert answer.status == 422, body
        assert [one["pointer"] for one in problem(answer)["errors"]] == [pointer]
