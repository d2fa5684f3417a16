"""OpenTelemetry as its own pages say to set it up; where to send stands in the environment."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


@contextmanager
def traced() -> Iterator[TracerProvider]:
    """A provider that exports in the background, and everything at the end."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield provider
    finally:
        provider.shutdown()


@contextmanager
def request_of(user: str) -> Iterator[None]:
    """A span around the calls that names the user, as a web framework's would."""
    tracer = trace.get_tracer("web")
    with tracer.start_as_current_span("POST /ask", attributes={"user.id": user}):
        yield
