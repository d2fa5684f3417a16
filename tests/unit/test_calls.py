"""Events to calls: what a response bills, and what of it is refused."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from app.core.counters import INDEX, NOTHING, Usage
from app.core.errors import AppError, InvalidInput
from app.core.money import CEILING
from app.ingest import calls
from app.ingest.calls import Call, Window, calls_from
from app.ingest.decode import NO_RESPONSE, EventIn, decode_array, decode_one
from app.ingest.responses.billed import Billed

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
SAID = {"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
EVENT = {"user_id": "ann", "id": "e", "response": SAID}


def judged(base: str = "", **more: Any) -> list[Call]:
    event, same = decode_one(json.dumps(EVENT | more).encode())
    return calls_from(event, NOW, Window(), plain=False, base=base, body=same)


def used(tokens: int) -> Usage:
    found = list(NOTHING)
    found[INDEX["input_tokens"]] = tokens
    return tuple(found)


def billing(monkeypatch: pytest.MonkeyPatch, *billed: Billed) -> None:
    """Have every response bill exactly this."""
    monkeypatch.setattr(calls, "read_response", lambda raw, *, provider, api: list(billed))


def pointers(refused: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [one["pointer"] for one in refused.value.extra["errors"]]


def test_the_hash_is_of_the_response_as_sent_whatever_its_order() -> None:
    (first,) = judged()
    (turned,) = judged(response=dict(reversed(SAID.items())))
    (other,) = judged(response=SAID | {"more": 1})
    (read,) = judged(response=None, usage={"input_tokens": 3, "output_tokens": 2})
    assert first.body_hash == turned.body_hash
    assert len({first.body_hash, other.body_hash, read.body_hash}) == 3


def test_a_call_no_longer_carries_the_response() -> None:
    (call,) = judged()
    assert call.event.response is NO_RESPONSE
    assert call.event.model == "m"


def test_an_array_reads_a_response_as_one_event_does() -> None:
    (alone,) = judged()
    (event,) = decode_array(json.dumps([EVENT], indent=1).encode())
    assert not isinstance(event, InvalidInput)
    assert calls_from(event, NOW, Window(), plain=False, base="/0") == [alone]


def test_the_parts_of_an_event_share_its_hash_and_number_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = [Billed(f"m{n}", used(n), {"tier": str(n)}, n if n > 1 else None) for n in (1, 2, 3)]
    billing(monkeypatch, *said)
    more = {"hold_id": "h", "latency_ms": 1, "ttft_ms": 1, "request_bytes": 1, "retry_count": 1}
    found = judged(model="mine", context={"tier": "0", "region": "eu"}, team_id="red", **more)
    assert [call.event_id for call in found] == ["e", "e#2", "e#3"]
    assert [call.place for call in found] == [0, 1, 2]
    assert len({call.body_hash for call in found}) == 1
    assert [call.event.model for call in found] == ["mine", "m2", "m3"]
    assert [call.event.context for call in found] == [
        {"tier": str(n), "region": "eu"} for n in (1, 2, 3)
    ]
    assert [call.cost_nanos for call in found] == [None, 2, 3]
    assert [call.event.team_id for call in found] == ["red"] * 3
    for name in more:
        assert [getattr(call.event, name) for call in found] == [more[name], None, None]


def test_the_callers_cost_is_booked_on_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    billing(monkeypatch, Billed("a", used(1), {}, 5), Billed(None, used(2), {}, None))
    found = judged(cost_usd="0.000000007", model="mine")
    assert [call.cost_nanos for call in found] == [7, 0]
    assert [call.event.model for call in found] == ["mine", "mine"]


@pytest.mark.parametrize(
    "billed",
    [
        Billed("x" * 257, NOTHING, {}, None),
        Billed("a\nb", NOTHING, {}, None),
        Billed("m", NOTHING, {"tier": "\0"}, None),
        Billed("m", NOTHING, {"tier": "x" * 513}, None),
        Billed("m", NOTHING, {"x" * 65: "y"}, None),
        Billed("m", NOTHING, {}, -1),
        Billed("m", NOTHING, {}, CEILING + 1),
    ],
)
def test_what_a_response_names_has_the_bounds_of_what_a_caller_names(
    monkeypatch: pytest.MonkeyPatch, billed: Billed
) -> None:
    billing(monkeypatch, billed)
    with pytest.raises(InvalidInput) as refused:
        judged("/3")
    assert pointers(refused) == ["/3/response"]


def test_a_response_bills_a_hundred_calls_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Billed("m", NOTHING, {}, None)
    billing(monkeypatch, *[one] * calls.MAX_BILLED)
    assert len(judged()) == calls.MAX_BILLED
    billing(monkeypatch, *[one] * (calls.MAX_BILLED + 1))
    with pytest.raises(InvalidInput) as refused:
        judged()
    assert pointers(refused) == ["/response"]


def placed(read: EventIn | InvalidInput) -> list[Call]:
    """The calls of an array's first event, wherever it is that it is refused."""
    if isinstance(read, InvalidInput):
        raise read
    return calls_from(read, NOW, Window(), plain=False, base="/0")


@pytest.mark.parametrize(
    ("response", "below"),
    [
        ("{}", ""),
        ("7", ""),
        ('{"error":{"message":"no"}}', ""),
        ('{"a":1e400}', ""),
        ('{"a":{"b":1,"b":2}}', "/a/b"),
        ('{"a":"\\u0022","a":1}', "/a"),
        ("[" * 900 + "]" * 900, ""),
    ],
)
def test_what_cannot_be_read_is_refused_below_response(response: str, below: str) -> None:
    body = f'{{"user_id":"ann","response":{response}}}'.encode()
    with pytest.raises(InvalidInput) as refused:
        calls_from(decode_one(body)[0], NOW, Window(), plain=False)
    assert all(one.startswith(f"/response{below}") for one in pointers(refused))
    (read,) = decode_array(b"[%s]" % body)
    with pytest.raises(InvalidInput) as refused:
        placed(read)
    assert all(one.startswith(f"/0/response{below}") for one in pointers(refused))


def test_usage_and_response_are_both_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        judged("/1", usage={})
    assert pointers(refused) == ["/1/usage", "/1/response"]


@pytest.mark.parametrize("raw", [b"7", b"[]", b'"x"', b'{"a":[1.5,"\\n",null,true,9e9]}'])
def test_any_json_is_kept_apart_until_it_is_judged(raw: bytes) -> None:
    event, same = decode_one(b'{"user_id":"u","response":%s}' % raw)
    assert decode_one(same)[0] == event
    assert msgspec.json.decode(event.response) == json.loads(raw)
    with pytest.raises(AppError):
        calls_from(event, NOW, Window(), plain=False, body=same)
