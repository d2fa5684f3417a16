"""`GET /metrics`: what it shows is what happened, in bounded words."""

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from app.access.keys import create_key
from app.core.errors import Unavailable
from app.runtime import Runtime
from tests.faults.service import HEADERS, Service

pytestmark = pytest.mark.anyio


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a page by its name and its labels."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


class Page:
    """A page that was read."""

    def __init__(self, text: str) -> None:
        self.text, self.samples = text, samples_of(text)

    def of(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))


async def scraped(client: httpx.AsyncClient) -> Page:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def event(name: str, **more: Any) -> dict[str, Any]:
    given = {
        "id": name,
        "user_id": "alice",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": 1000, "cache_read_tokens": 100, "output_tokens": 500},
    }
    return given | more


async def test_the_page_counts_what_was_posted(client: httpx.AsyncClient) -> None:
    posted = [event("a"), event("b"), event("b"), event("c", usage={"input_tokens": -1})]
    answer = (await client.post("/v1/events", json=posted)).json()
    single = (await client.post("/v1/events", json=event("d", status_code=500))).json()
    unknown = event("e", provider="acme", model="house-llm")
    assert (await client.post("/v1/events", json=unknown)).json()["cost_usd"] is None
    assert (await client.post("/v1/events", json={"user_id": 7})).status_code == 422
    page = await scraped(client)
    events = "tollgate_events_total"
    assert page.of(events, door="events", outcome="recorded") == 4
    assert page.of(events, door="events", outcome="duplicate") == 1
    assert page.of(events, door="events", outcome="rejected") == 2
    assert page.of("tollgate_calls_total", provider="openai") == 3
    assert page.of("tollgate_failed_calls_total", provider="openai") == 1
    assert page.of("tollgate_unpriced_calls_total", provider="other") == 1
    tokens = "tollgate_tokens_total"
    assert page.of(tokens, provider="openai", kind="input") == 3000
    assert page.of(tokens, provider="openai", kind="cache_read") == 300
    assert page.of(tokens, provider="other", kind="output") == 500
    cost = Decimal(answer["cost_usd"]) + Decimal(single["cost_usd"])
    assert page.of("tollgate_cost_usd_total", provider="openai") == float(cost)
    assert page.of("tollgate_batch_events_sum", intake="events") == 5
    assert page.of("tollgate_commit_seconds_count", intake="events") == 3
    assert page.of("tollgate_intake_queued_calls", intake="events") == 0


async def test_checks_holds_and_alerts_are_counted(client: httpx.AsyncClient) -> None:
    limit = {
        "name": "calls",
        "scope": {"user_id": "alice"},
        "metric": "calls",
        "window": "day",
        "amount": 2,
        "action": "block",
        "thresholds": [50, 100],
    }
    assert (await client.post("/v1/limits", json=limit)).status_code == 201
    ask = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini", "cost_usd": "0.01"}
    assert (await client.post("/v1/limits/check", json=ask)).json()["allowed"]
    for name, status in (("h1", 201), ("h1", 200), ("h2", 201), ("h3", 429)):
        answer = await client.post("/v1/holds", json=ask | {"id": name})
        assert answer.status_code == status, answer.text
    assert not (await client.post("/v1/limits/check", json=ask)).json()["allowed"]
    page = await scraped(client)
    assert page.of("tollgate_holds_open") == 2
    settled = await client.post("/v1/holds/h1/settle", json={"event": {"usage": {}}})
    assert settled.status_code == 201, settled.text
    assert (await client.post("/v1/holds/h2/release")).status_code == 200
    assert (await client.post("/v1/events", json=event("last"))).status_code == 201
    page = await scraped(client)
    checks = "tollgate_checks_total"
    assert [page.of(checks, verdict=one) for one in ("allowed", "denied")] == [1, 1]
    holds = {"granted": 2, "repeated": 1, "denied": 1, "settled": 1, "released": 1}
    assert {one: page.of("tollgate_holds_total", outcome=one) for one in holds} == holds
    assert page.of("tollgate_events_total", door="settle", outcome="recorded") == 1
    raised = [page.of("tollgate_alerts_raised_total", severity=one) for one in ("info", "error")]
    assert raised == [1, 1]


async def test_what_is_rolled_back_is_not_counted(runtime: Runtime) -> None:
    async def work(tx: Any) -> None:
        tx.note("tollgate_holds", "granted")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await runtime.db.write(work)
    assert dict(runtime.figures.holds.values) == {}


async def test_other_programs_events_are_counted_by_their_door(client: httpx.AsyncClient) -> None:
    cloud = {"specversion": "1.0", "id": "c1", "source": "s", "type": "t", "subject": "alice"}
    for _ in range(2):
        assert (await client.post("/api/v1/events", json=cloud)).status_code == 204
    span = {
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "name": "chat",
        "startTimeUnixNano": "1763641800000000000",
        "endTimeUnixNano": "1763641801000000000",
        "attributes": [
            {"key": name, "value": value}
            for name, value in (
                ("gen_ai.operation.name", {"stringValue": "chat"}),
                ("gen_ai.provider.name", {"stringValue": "openai"}),
                ("gen_ai.request.model", {"stringValue": "gpt-4o-mini"}),
                ("gen_ai.usage.input_tokens", {"intValue": "10"}),
                ("user.id", {"stringValue": "alice"}),
            )
        ],
    }
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    answer = await client.post("/v1/traces?backfill=true", json=spans)
    assert answer.status_code == 200, answer.text
    page = await scraped(client)
    for door, outcome in (
        ("cloudevents", "recorded"),
        ("cloudevents", "duplicate"),
        ("otlp", "recorded"),
    ):
        assert page.of("tollgate_events_total", door=door, outcome=outcome) == 1
        assert page.of("tollgate_foreign_total", source=door, what=outcome) == 1
    assert page.of("tollgate_tokens_total", provider="openai", kind="input") == 10
    assert page.of("tollgate_commit_seconds_count", intake="otlp") == 1


async def test_a_proof_and_a_job_are_shown(client: httpx.AsyncClient, runtime: Runtime) -> None:
    assert (await scraped(client)).of("tollgate_consistent") is None
    assert (await client.get("/v1/audit/consistency")).json()["consistent"]
    page = await scraped(client)
    assert page.of("tollgate_consistent") == 1
    assert page.of("tollgate_consistency_differences") == 0
    assert page.of("tollgate_consistency_checked_timestamp_seconds") == (
        runtime.clock.now().timestamp()
    )


async def test_requests_are_shown_by_the_template_of_their_route(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/v1/events", json=event("a"))
    await client.post("/v1/holds/none/settle", json={"event": {"user_id": "alice"}})
    await client.get("/v1/users/alice/usage")
    await client.get("/v1/users/bob/usage")
    await client.get("/no/such/route")
    await client.request("BREW", "/v1/events")
    page = await scraped(client)

    name = "tollgate_request_seconds_count"

    def count(method: str, route: str, status: str) -> float | None:
        return page.of(name, method=method, route=route, status=status)

    assert count("POST", "/v1/events", "2xx") == 1
    assert count("POST", "/v1/holds/{hold_id}/settle", "4xx") == 1
    assert count("GET", "/v1/users/{user_id}/usage", "2xx") == 2
    assert count("GET", "none", "4xx") == 1
    assert sum(value for (one, _), value in page.samples.items() if one == name) == 6


async def test_labels_stay_few_whatever_is_sent(client: httpx.AsyncClient) -> None:
    def junk(start: int) -> list[dict[str, Any]]:
        return [
            event(f"j{n}", user_id=f"u{n}", provider=f"p{n}", model=f"m{n}", endpoint=f"/e{n}")
            for n in range(start, start + 500)
        ]

    async def send(start: int) -> set[Any]:
        assert (await client.post("/v1/events", json=junk(start))).status_code == 200
        for number in range(start, start + 20):
            await client.get(f"/junk/{number}")
            await client.request(f"X{number}", f"/junk/{number}")
            await client.get(f"/v1/users/u{number}/usage")
            await client.post("/v1/limits/check", json={"user_id": f"u{number}"})
        page = await scraped(client)
        assert not [one for one in ("u7", "p7", "m7", "/e7", "/junk") if f'"{one}' in page.text]
        return set(page.samples)

    assert await send(1000) | await send(2000) == await send(3000)


async def test_both_formats_are_well_formed(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json=event("a"))
    plain = await client.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"})
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {one.name: one for one in text_string_to_metric_families(plain.text)}
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    answer = await client.get("/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    strict = {one.name: one for one in openmetrics.text_string_to_metric_families(answer.text)}
    assert strict.keys() == families.keys()
    assert all(one.documentation for one in strict.values())
    assert all(name.startswith(("tollgate_", "process_")) for name in strict)
    junk = await client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text;version=x"}
    )
    assert junk.status_code == 200


async def test_it_answers_though_the_database_is_down(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.post("/v1/events", json=event("a"))

    async def down(*_: object, **__: object) -> None:
        raise Unavailable("the database did not answer in time")

    monkeypatch.setattr(type(runtime.db), "read", down)
    monkeypatch.setattr(type(runtime.db), "glance", down)
    page = await scraped(client)
    assert page.of("tollgate_database_up") == 0
    assert page.of("tollgate_outbox_pending") is None
    assert page.of("tollgate_events_total", door="events", outcome="recorded") == 1


async def test_the_database_says_how_much_there_is(client: httpx.AsyncClient) -> None:
    page = await scraped(client)
    assert page.of("tollgate_database_up") == 1
    assert (page.of("tollgate_database_bytes") or 0) > 10_000
    assert page.of("tollgate_outbox_pending") == 0
    assert page.of("tollgate_alerts_unread", severity="error") == 0
    assert page.of("tollgate_config_version") == page.of("tollgate_config_newest_version")


async def test_who_may_scrape_is_a_setting(client: httpx.AsyncClient, runtime: Runtime) -> None:
    now = runtime.clock.now()

    async def key(scope: str, user_id: str | None = None) -> dict[str, str]:
        _, token = await runtime.db.write(
            lambda tx: create_key(
                tx, name="k", scopes=[scope], user_id=user_id, expires_at=None, now=now
            ),
            alone=True,
        )
        return {"Authorization": f"Bearer {token}"}

    async def status(headers: dict[str, str]) -> int:
        return (await client.get("/metrics", headers=headers)).status_code

    nothing = {"Authorization": ""}
    assert await status(await key("read")) == 200
    assert await status(await key("ingest")) == 403
    assert await status(await key("read", "alice")) == 403
    assert await status(nothing) == 401
    runtime.scrape.mode = "open"
    assert await status(nothing) == 200
    runtime.scrape.mode = "off"
    assert await status(await key("read")) == 404


def test_two_workers_are_one_page(tmp_path: Path) -> None:
    service = Service(f"sqlite:///{tmp_path}/two.db", workers=2, TMPDIR=str(tmp_path))
    try:
        service.launch()
        service.wait_ready(120)
        for number in range(40):
            answer = httpx.post(
                f"{service.base}/v1/events",
                json=event(f"e{number}"),
                headers=HEADERS,
                trust_env=False,
                timeout=30,
            )
            assert answer.status_code == 201, answer.text
        seen, both, deadline = 0.0, False, time.monotonic() + 30
        while seen < 40 or not both:
            assert time.monotonic() < deadline, service.output()
            answer = httpx.get(f"{service.base}/metrics", headers=HEADERS, trust_env=False)
            page = Page(answer.text)
            shown = page.of("tollgate_events_total", door="events", outcome="recorded") or 0
            assert shown >= seen
            seen, both = shown, page.of("tollgate_workers") == 2
            time.sleep(0.05)
        assert seen == 40
        [folder] = tmp_path.glob("tollgate-metrics-*")
        assert folder.stat().st_mode & 0o077 == 0
        service.terminate(30)
        assert not folder.exists()
    finally:
        service.close()
