"""`/openapi.json` is what is served, and nothing that it allows makes a 5xx."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.clock import FrozenClock
from app.main import create_app
from app.pricing.catalog import Catalog
from app.runtime import build
from app.settings import Settings
from tests.conftest import START
from tests.faults.live import Answer, Live, Wire, ask, living, problem, request_bytes

NEED_MORE = {
    "put /v1/users/u/subscription": "a plan",
    "post /v1/webhooks": "a receiver whose name is known",
}
"""Requests of which the example speaks of something that has to be there first."""
METHODS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture(scope="module")
def live(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, catalog: Catalog
) -> Iterator[Live]:
    path = tmp_path_factory.mktemp("openapi") / "openapi.db"
    shutil.copy(sqlite_template, path)
    with living(f"sqlite:///{path}", FrozenClock(START), catalog) as found:
        body = json.dumps([{"user_id": "u", "id": f"e{n}", "provider": "openai"} for n in range(5)])
        assert ask(found.swift, request_bytes("POST", "/v1/events", body.encode())).status == 200
        yield found


@pytest.fixture(scope="module")
def document(live: Live) -> dict[str, Any]:
    answer = ask(live.swift, request_bytes("GET", "/openapi.json", key=None))
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_the_document_holds_together(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Tollgate"
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = document
        for step in reference.split("/"):
            found = found[step]
    seen = set()
    for method, path, operation in operations(document):
        assert method in METHODS
        assert path.startswith("/")
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])
        assert operation.get("description") or operation.get("summary")
        assert operation["responses"]
        named = set(re.findall(r"{(\w+)}", path))
        given_in = {(one["name"], one["in"]) for one in operation.get("parameters", [])}
        assert {name for name, where in given_in if where == "path"} == named
        for one in operation.get("parameters", []):
            assert one["schema"]
            assert one["in"] != "path" or one["required"] is True


def test_every_served_route_is_in_it(live: Live, document: dict[str, Any]) -> None:
    app = create_app(build(Settings(database_url="sqlite:///unused.db"), catalog=live._catalog))
    served = {
        (method.lower(), re.sub(r":\w+}", "}", route.path))  # type: ignore[attr-defined]
        for route in app.routes
        for method in (getattr(route, "methods", None) or ())
    }
    hidden = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
    documented = {(method, path) for method, path, _ in operations(document)}
    missing = {(m, p) for m, p in served if p not in hidden and m not in ("head", "options")}
    assert missing - documented == set()
    lean = {
        (method.lower(), path)
        for method, path in (("POST", "/v1/events"), ("POST", "/v1/limits/check"))
    }
    assert lean <= documented


def examples_of(content: dict[str, Any], document: dict[str, Any]) -> list[Any]:
    """What is shown for a body, beside it or in its schema."""
    schema = content["schema"]
    schema = schema.get("anyOf", [schema])[0]  # a body that may be left out
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = [one["value"] for one in content.get("examples", {}).values()]
    found += [content["example"]] if "example" in content else []
    return found or schema.get("examples") or [schema.get("example")]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/limits/check"])
def test_the_lean_routes_show_examples_that_work(
    live: Live, document: dict[str, Any], path: str
) -> None:
    operation = document["paths"][path]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    examples = [one["value"] for one in content.get("examples", {}).values()]
    examples += [content["example"]] if "example" in content else []
    assert examples
    for example in examples:
        answer = ask(live.swift, request_bytes("POST", path, json.dumps(example).encode()))
        assert answer.status in (200, 201), answer.body
    shown = [
        one["content"]["application/json"]
        for status, one in operation["responses"].items()
        if status.startswith("2") and "content" in one
    ]
    assert any("example" in one or "examples" in one for one in shown)


def test_every_body_of_the_management_api_shows_an_example_that_is_read(
    live: Live, document: dict[str, Any]
) -> None:
    """An example that is refused as invalid teaches the wrong thing."""
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or path in ("/v1/events", "/v1/limits/check"):
            continue
        found = examples_of(content, document)
        assert found, f"{method} {path}"
        assert found[0] is not None, f"{method} {path}"
        target = re.sub(r"{\w+}", "none", path)
        data = request_bytes(method.upper(), target, json.dumps(found[0]).encode())
        answer = ask(live.swift, data)
        assert answer.status not in (400, 415), (path, answer.body)
        if answer.status == 422:  # well-formed, but what it refers to is not here
            assert "unknown field" not in answer.body.decode()


def test_what_a_refusal_looks_like_is_said(live: Live, document: dict[str, Any]) -> None:
    """A batch of which every event is refused is no problem document, but a summary."""
    batch = request_bytes("POST", "/v1/events", b'[{"user_id":7}]')
    one = request_bytes("POST", "/v1/events", b'{"user_id":7}')
    said = document["paths"]["/v1/events"]["post"]["responses"]["422"]["content"]
    for data in (batch, one):
        answer = ask(live.swift, data)
        assert answer.status == 422
        assert answer.headers["content-type"] in said
    other = document["paths"]["/v1/plans"]["post"]["responses"]["422"]["content"]
    assert list(other) == ["application/problem+json"]


def test_examples_keep_their_nulls(document: dict[str, Any]) -> None:
    shown = document["components"]["schemas"]["PriceIn"]["examples"][0]
    assert shown["rates"]["output_tokens"]["tiers"][-1]["up_to"] is None
    hold = document["paths"]["/v1/holds"]["post"]["responses"]["201"]["content"]
    assert hold["application/json"]["example"]["closed_at"] is None


def requests_shown(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every example of a JSON body of our own routes."""
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or "other formats" in operation["tags"]:
            continue
        for example in examples_of(content, document):
            yield method, path, example


def test_every_example_of_a_request_works_when_it_is_sent(
    db_url: str, catalog: Catalog, document: dict[str, Any]
) -> None:
    """But for those that speak of things which have to be made first."""
    with living(db_url, FrozenClock(START), catalog) as fresh:
        refused = refused_examples(fresh, document)
    assert refused.keys() <= NEED_MORE.keys(), refused


def refused_examples(live: Live, document: dict[str, Any]) -> dict[str, Answer]:
    call = {"user_id": "u", "provider": "openai", "cost_usd": "1"}
    body = json.dumps([call | {"id": f"e{n}"} for n in range(5)])
    assert ask(live.swift, request_bytes("POST", "/v1/events", body.encode())).status == 200
    events = iter(range(5))
    refused = {}
    for method, shown, example in requests_shown(document):
        path = shown.replace("{user_id}", "u")
        if "{event_id}" in path:
            path = path.replace("{event_id}", f"e{next(events)}")
        if "{" not in path:
            data = request_bytes(method.upper(), path, json.dumps(example).encode())
            answer = ask(live.swift, data)
            if answer.status >= 400:
                refused[f"{method} {path}"] = answer
    return refused


# ---- nothing that is asked makes a 5xx --------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="/.%?#&=+ \x00\n\r\x7f\\'\"<>;:@{}", max_size=12),
    st.sampled_from(
        ("x" * 600, "\x00", "..", ".", "💥" * 70, "-1", "0", "9" * 400, "null", "true")
    ),
    st.sampled_from(("2026-11", "2026-13", "0000-00", "9999-12", "2026-11-31", "10000-01")),
    st.sampled_from(("2026-11-20T12:30:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00")),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
)


def _parameters(operation: dict[str, Any], where: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == where]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_question_makes_a_5xx(live: Live, document: dict[str, Any], data: st.DataObject) -> None:
    """Every GET route, each with path and query parameters that nobody has thought of."""
    with Wire(live.swift) as wire:
        for method, path, operation in operations(document):
            if method != "get":
                continue
            target = path
            for name in _parameters(operation, "path"):
                value = data.draw(st.one_of(st.just("u"), TEXTS), label=f"{path} {name}")
                target = target.replace(f"{{{name}}}", quote(value.encode(), safe=""))
            known = _parameters(operation, "query") or ["x"]
            names = st.one_of(st.sampled_from(known), st.sampled_from(known), TEXTS)
            query = data.draw(st.lists(st.tuples(names, TEXTS), max_size=3), label=path)
            if query:
                target += "?" + urlencode([(n.encode(), v.encode()) for n, v in query])
            wire.send(request_bytes("GET", target))
            answer = wire.answer()
            assert answer.status < 500, (target, answer)
            assert "x-request-id" in answer.headers
            if answer.status >= 400:
                problem(answer)


@pytest.mark.parametrize(
    "query", ["%", "%zz", "%ff", "%00=%00", "&&&", "=", "a=1&a=2", "limit", "a" * 20_000]
)
def test_no_raw_query_makes_a_5xx(live: Live, document: dict[str, Any], query: str) -> None:
    with Wire(live.swift) as wire:
        for method, path, _ in operations(document):
            if method == "get":
                target = re.sub(r"{\w+}", "u", path)
                wire.send(request_bytes("GET", f"{target}?{query}"))
                answer = wire.answer()
                assert answer.status < 500, (target, answer)


@pytest.mark.parametrize(
    "step", ["%", "%2", "%zz", "%ff%fe", "%00", "..", "%2e%2e%2fetc", "%252e", "a%2Fb", "_" * 5_000]
)
def test_no_raw_path_makes_a_5xx(live: Live, document: dict[str, Any], step: str) -> None:
    with Wire(live.swift) as wire:
        for method, path, _ in operations(document):
            if method == "get" and "{" in path:
                target = re.sub(r"{\w+}", step, path)
                wire.send(request_bytes("GET", target))
                answer = wire.answer()
                assert answer.status < 500, (target, answer)
