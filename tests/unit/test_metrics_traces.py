"""Spans of our own work reach a collector, with the caller's trace and without any content."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.core.clock import FrozenClock
from app.jobs import Job, Jobs
from app.main import create_app, create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.receivers import Receiver

pytestmark = pytest.mark.anyio
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
async def traced(
    db_url: str, clock: FrozenClock, catalog: Catalog, tmp_path: Path, collector: Receiver
) -> AsyncIterator[Runtime]:
    own = {"traces_endpoint": collector.url, "archive_url": str(tmp_path / "archives")}
    found = build(settings_for(db_url).model_copy(update=own), clock=clock, catalog=catalog)
    await found.start()
    yield found
    await found.close()


async def test_requests_batches_and_jobs_are_told_and_nothing_else(
    traced: Runtime, collector: Receiver
) -> None:
    transport = httpx.ASGITransport(create_asgi(traced, create_app(traced)))
    headers = {"Authorization": f"Bearer {ADMIN}", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    event = {"id": "secret-id", "user_id": "secret-user", "model": "secret-model"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/v1/events", json=event, headers=headers)
        assert answer.status_code == 201
        assert (await client.get("/healthz")).status_code == 200
        del headers["traceparent"]
        answer = await client.get("/v1/users/secret-user/usage", headers=headers)
        assert answer.status_code == 200

    async def yes() -> bool:
        return True

    async def work() -> None:
        await asyncio.sleep(0)

    jobs = Jobs(traced.db, traced.clock, [Job("tidy", 60, yes, work)], traced.figures)
    assert await jobs.run(Job("tidy", 60, yes, work))
    assert traced.figures.traces is not None
    await asyncio.to_thread(traced.figures.traces.close)
    traced.figures.traces = None
    sent = [ExportTraceServiceRequest.FromString(_body(one.body)) for one in collector.got]
    spans = {
        span.name: span
        for request in sent
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert spans.keys() == {
        *("POST /v1/events", "GET /v1/users/{user_id}/usage", "intake batch", "job tidy"),
    }
    posted = spans["POST /v1/events"]
    assert posted.trace_id.hex() == TRACE
    assert posted.parent_span_id.hex() == PARENT
    assert {one.key for one in posted.attributes} == {
        *("http.request.method", "http.route", "http.response.status_code"),
    }
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans.values())
    assert not any(b"secret" in _body(one.body) for one in collector.got)


def _body(sent: bytes) -> bytes:
    return gzip.decompress(sent) if sent[:2] == b"\x1f\x8b" else sent
