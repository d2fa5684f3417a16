"""Whatever bytes are sent: an event, or a refusal that names its place and echoes nothing."""

import gzip
import json
import re
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import AppError, InvalidInput, TooLarge, UnsupportedMedia
from app.ingest.calls import Window, calls_from
from app.ingest.decode import EventIn, canonical, decode_array, decode_lines, decode_one
from app.web.strict import check_name, inflate, is_plain

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["\0", "\ud800", "a" * 600, "~/`.[$]"]))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXTS,
    st.sampled_from(["2026-11-20T12:30:00Z", "2026-11-20", "0001-01-01T00:00:00+14:00", "0.1"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*EventIn.__struct_fields__, "usage", "timestamp", "nonsense"])
USAGES = st.dictionaries(
    st.sampled_from(["input_tokens", "cache_read_tokens", "audio_seconds", "x" * 200]), VALUES
)
SECRET = "s3cret-" * 12
EVENTS = st.builds(
    lambda base, more, usage: base | more | usage,
    st.sampled_from([{}, {"user_id": "ann"}, {"user_id": "ann", "id": "1", "model": "m"}]),
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.one_of(st.just({}), USAGES.map(lambda usage: {"usage": usage})),
)


def written(value: object) -> bytes:
    return json.dumps(value).encode()


def assert_refusal(error: AppError, body: bytes) -> None:
    assert isinstance(error, InvalidInput | TooLarge), error
    if isinstance(error, InvalidInput):
        for place in error.extra["errors"]:
            pointer = place["pointer"]
            assert pointer == "" or pointer.startswith("/")
            assert all(len(step) <= 64 for step in pointer.split("/"))
            assert len(place["detail"]) <= 200


def judged(body: bytes) -> None:
    try:
        event, same = decode_one(body)
    except AppError as error:
        assert_refusal(error, body)
        return
    assert isinstance(event, EventIn)
    assert decode_one(same)[0] == event
    assert canonical(event) == same
    try:
        calls = calls_from(event, NOW, Window(), plain=is_plain(body), body=same)
    except AppError as error:
        assert_refusal(error, body)
        return
    assert [call.place for call in calls] == list(range(len(calls)))
    for call in calls:
        assert call.at.tzinfo is UTC
        assert all(type(value) is int and value >= 0 for value in call.usage)
        assert -(2**63) <= call.body_hash < 2**63


@settings(max_examples=300)
@given(st.one_of(EVENTS, VALUES))
def test_any_json_value_is_an_event_or_refused(value: Any) -> None:
    judged(written(value))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(body: bytes) -> None:
    judged(body)
    for decode in (decode_array, decode_lines):
        try:
            decode(body)
        except AppError as error:
            assert_refusal(error, body)


@settings(max_examples=150)
@given(st.lists(st.one_of(EVENTS, VALUES), max_size=4), st.booleans())
def test_an_array_refuses_only_what_alone_would_be_refused(values: list[Any], lines: bool) -> None:
    bodies = [written(value) for value in values]
    body = b"\n".join(bodies) if lines else b"[%s]" % b",".join(bodies)
    try:
        found = decode_lines(body) if lines else decode_array(body)
    except AppError as error:
        assert_refusal(error, body)
        assert not values or not is_json(body)
        return
    assert len(found) == len(values)
    for place, (one, alone) in enumerate(zip(found, bodies, strict=True)):
        if isinstance(one, EventIn):
            assert one == decode_one(alone)[0]
            continue
        assert_refusal(one, body)
        assert one.extra["errors"][0]["pointer"].split("/")[1] == str(place)
        with pytest.raises(InvalidInput):
            decode_one(alone)


def is_json(body: bytes) -> bool:
    """Strictly: `json` reads NaN, and half a character, where there is no such thing."""
    return b"\\ud8" not in body and not re.search(rb"\bNaN\b|\bInfinity\b", body)


WRONG: list[Any] = [
    SECRET,
    [SECRET],
    {SECRET: 1},
    {"user_id": [SECRET]},
    {"user_id": "ann", SECRET: 1},
    {"user_id": "ann", "usage": {SECRET: 1}},
    {"user_id": "ann", "usage": {"input_tokens": SECRET}},
    {"user_id": "ann", "timestamp": SECRET},
    {"user_id": "ann", "cost_usd": SECRET[:40]},
    {"user_id": "ann", "tags": {SECRET: SECRET}},
    {"user_id": "ann", "tags": {"k": {SECRET: 1}}},
    {"user_id": SECRET * 9},
    {"user_id": "ann", "endpoint": f"{SECRET}\n"},
]


@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_a_refusal_never_echoes_what_was_sent(value: Any) -> None:
    body = written(value)
    with pytest.raises(AppError) as refused:
        calls_from(decode_one(body)[0], NOW, Window(), plain=is_plain(body))
    told = f"{refused.value.detail} {refused.value.extra}"
    assert SECRET[:65] not in told


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id":"a","user_id":"b"}',
        b'{"user_id":"a","usage":{"input_tokens":1,"input_tokens":2}}',
        b'{"user_id":"a","tags":{"k":"1","k":"2"}}',
        b'{"user_id":"a","\\u0075ser_id":"b"}',
        b'{"user_id":"a","id":"","id":""}',
    ],
)
def test_a_key_given_twice_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_one(body)
    assert all(isinstance(one, InvalidInput) for one in decode_array(b"[%s]" % body))


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b'{"tags":' * 5_000])
def test_deep_nesting_is_refused(deep: bytes) -> None:
    for decode in (decode_one, decode_array, decode_lines):
        try:
            found = decode(deep)
        except AppError as error:
            assert_refusal(error, deep)
        else:
            assert isinstance(found, list)
            assert all(isinstance(one, InvalidInput) for one in found)


@given(st.text())
def test_a_name_is_good_or_refused(value: str) -> None:
    try:
        assert check_name(value, "/x", 64) == value
    except InvalidInput:
        return
    assert len(value.encode()) <= 64
    assert not any(ord(char) < 32 or ord(char) == 127 for char in value)


@given(st.text(max_size=40))
def test_plain_bodies_hold_only_good_names(value: str) -> None:
    body = written({"user_id": value})
    if is_plain(body):
        assert json.loads(body)["user_id"] == value
        assert value.isascii()
        assert check_name(value, "/user_id") == value


@given(st.binary(max_size=2_000), st.integers(0, 2_000))
def test_inflating_gives_what_was_deflated_or_says_too_large(data: bytes, bound: int) -> None:
    packed = gzip.compress(data)
    if len(data) > bound:
        with pytest.raises(TooLarge):
            inflate(packed, "gzip", bound)
    else:
        assert inflate(packed, "gzip", bound) == data


@given(st.binary(max_size=200))
def test_inflating_anything_ends(data: bytes) -> None:
    for body in (data, b"\x1f\x8b" + data, gzip.compress(b"x" * 100)[: len(data)]):
        try:
            assert len(inflate(body, "gzip", 1_000)) <= 1_000
        except (InvalidInput, TooLarge):
            continue


def test_a_bomb_is_stopped_at_the_bound() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    many = b"".join(gzip.compress(bytes(100)) for _ in range(2_000))
    for body, bound in ((bomb, 1 << 20), (many, 1_000), (bomb * 2, 1 << 20)):
        with pytest.raises(TooLarge):
            inflate(body, "gzip", bound)


def test_only_gzip_is_undone() -> None:
    assert inflate(b"as is", "identity", 1) == b"as is"
    for encoding in ("br", "zstd", "deflate", "gzip, gzip"):
        with pytest.raises(UnsupportedMedia):
            inflate(zlib.compress(b"x"), encoding, 100)
