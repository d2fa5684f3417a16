"""However a request's spans are divided, and in any order, the sums are the same."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.core.clock import FrozenClock
from app.ingest.otlp.groups import grouped
from app.ingest.otlp.merge import merged
from app.ingest.otlp.telling import Link, People, Spot, Telling
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import build
from tests.conftest import ADMIN, START, settings_for
from tests.otlp.scenarios import call, send_spans, span, sums_of
from tests.postgres import drop_database, new_database

_IDS = ("", "chatcmpl-1", "chatcmpl-0123456789abcdef", "msg_0123456789abcdef01")
_SCOPES = ("app", "com.anthropic.sdk.python", "opentelemetry.instrumentation.x", "pydantic-ai")


@st.composite
def traces(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Spans of a few traces: calls, wrappers and twins of them, and others that name users."""
    found: list[dict[str, Any]] = []
    for place in range(1, draw(st.integers(2, 7)) + 1):
        trace = draw(st.integers(1, 2))
        start = draw(st.sampled_from((0, 20, 1000)))
        where = {
            "trace": trace,
            "parent": draw(st.sampled_from([0, *range(1, place)])),
            "scope": draw(st.sampled_from(_SCOPES)),
            "start_ms": start,
            "end_ms": start + draw(st.sampled_from((90, 100, 300))),
        }
        who = draw(st.sampled_from(({}, {}, {"user__id": "alice"}, {"user__id": "bob"})))
        if draw(st.integers(0, 3)):
            name = draw(st.sampled_from(_IDS))
            said = {"gen_ai__response__id": name} if name else {}
            cached = draw(st.sampled_from((None, 0, 1024)))
            tokens = draw(st.sampled_from(((1200, 340), (1200, 341), (0, 0))))
            found.append(
                call(
                    place,
                    tokens=tokens,
                    gen_ai__usage__cache_read__input_tokens=cached,
                    **where,
                    **said,
                    **who,
                )
            )
        else:
            found.append(span(place, **where, **who))
    return found


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def _requests(spans: list[dict[str, Any]], chance: Any) -> list[list[dict[str, Any]]]:
    """The spans in another order, divided into requests."""
    mixed = list(spans)
    chance.shuffle(mixed)
    requests: list[list[dict[str, Any]]] = []
    while mixed:
        size = chance.randint(1, len(mixed))
        requests.append(mixed[:size])
        mixed = mixed[size:]
    return requests


@given(spans=traces(), chance=st.randoms(use_true_random=False))
@_settings(25)
def test_any_division_and_order_of_spans_gives_the_same_sums(
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    catalog: Catalog,
    spans: list[dict[str, Any]],
    chance: Any,
) -> None:
    folder = tmp_path_factory.mktemp("divided")
    found = []
    for name, parts in (("whole", [spans]), ("divided", _requests(spans, chance))):
        path = folder / f"{name}.db"
        shutil.copy(sqlite_template, path)
        found.append(asyncio.run(_sums(f"sqlite:///{path}", catalog, parts)))
    assert found[0] == found[1]


@given(spans=traces(), chance=st.randoms(use_true_random=False))
@_settings(6)
def test_any_division_and_order_gives_the_same_sums_on_postgresql(
    postgres_server: str,
    postgres_template: str,
    catalog: Catalog,
    spans: list[dict[str, Any]],
    chance: Any,
) -> None:
    found = []
    for parts in ([spans], _requests(spans, chance)):
        url = new_database(postgres_server, postgres_template)
        found.append(asyncio.run(_sums(url, catalog, [*parts, *parts])))
        drop_database(postgres_server, url)
    assert found[0] == found[1]


async def _sums(url: str, catalog: Catalog, requests: list[list[dict[str, Any]]]) -> dict[str, Any]:
    runtime = build(settings_for(url), clock=FrozenClock(START), catalog=catalog)
    await runtime.start()
    try:
        transport = httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            for spans in requests:
                answer = await send_spans(client, *spans)
                assert answer.status_code == 200, answer.text
            return await sums_of(client, "alice", "bob", "unknown")
    finally:
        await runtime.close()


# ---- the rules alone ----------------------------------------------------------------------------


def _telling(span_id: str, **said: Any) -> Telling:
    told: dict[str, Any] = {
        "trace_id": "t",
        "scope": "app",
        "instance": "i",
        "start_ns": 0,
        "end_ns": 100,
        "model": "gpt-4o",
        "operation": "chat",
        "usage": {"input_tokens": 1200, "output_tokens": 340},
        "counted": (1200, 340),
    }
    return Telling(span_id=span_id, **told | said)


def _groups(*tellings: Telling) -> list[list[str]]:
    lineage: dict[Spot, Link] = {one.spot: Link(one.parent_id, one.people) for one in tellings}
    return sorted(sorted(one.span_id for one in group) for group in grouped(tellings, lineage))


def test_a_wrapper_of_one_call_is_that_call_and_one_of_several_is_none() -> None:
    outer, first = _telling("1"), _telling("2", parent_id="1")
    assert _groups(outer, first) == [["1", "2"]]
    second = _telling("3", parent_id="1", start_ns=10**9, end_ns=2 * 10**9)
    assert _groups(outer, first, second) == [["2"], ["3"]]
    embedding = _telling("4", parent_id="1", operation="embeddings")
    assert _groups(outer, first, embedding) == [["1", "2"], ["4"]]


def test_spans_that_are_each_others_parents_do_not_hang() -> None:
    assert len(_groups(_telling("1", parent_id="2"), _telling("2", parent_id="1"))) <= 2
    assert _groups(_telling("3", parent_id="3")) == [["3"]]


def test_the_providers_library_is_believed_where_two_disagree() -> None:
    sdk = _telling("1", scope="com.anthropic.sdk.python", rank=0, response_id="msg_1")
    outside = _telling(
        "2",
        scope="opentelemetry.instrumentation.anthropic",
        rank=2,
        response_id="msg_1",
        usage={"input_tokens": 1200, "output_tokens": 341, "cache_read_tokens": 7},
        people=People("alice"),
    )
    [group] = grouped([outside, sdk], {})
    told = merged(group, {})
    assert told.disagrees
    assert told.usage == {"input_tokens": 1200, "output_tokens": 340, "cache_read_tokens": 7}
    assert told.people.user == "alice"
