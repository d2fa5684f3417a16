"""Spans of our own work, for a collector that speaks OpenTelemetry. Never of what a call said."""

from collections.abc import Mapping

from app.core.clock import Clock

Facts = Mapping[str, str | int]
NANOS = 1_000_000_000
ANSWERED_WITHIN_S = 2.0
"""How long the collector is waited for; spans that it does not take are lost."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/v1/traces"})
"""Probes, and the door through which spans of ours would come back to us."""
MISSING = "spans need more than is installed: pip install 'tollgate[traces]'"


class Traces:
    """Sends a span for each request, batch and job, from a thread of its own.

    Raises:
        RuntimeError: the libraries that this needs are not installed.
    """

    def __init__(self, endpoint: str, clock: Clock) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
                TraceContextTextMapPropagator,
            )
        except ImportError:
            raise RuntimeError(MISSING) from None
        self._clock = clock
        self._failed = Status(StatusCode.ERROR)
        self._inherit = TraceContextTextMapPropagator().extract
        resource = Resource.create({"service.name": "tollgate"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=ANSWERED_WITHIN_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tollgate")

    def span(
        self, name: str, took_s: float, facts: Facts, *, failed: bool = False, parent: str = ""
    ) -> None:
        """Tell of something that has just ended; `parent` is a `traceparent` as callers send it."""
        ended = int(self._clock.now().timestamp() * NANOS)
        context = self._inherit({"traceparent": parent}) if parent else None
        began = ended - int(took_s * NANOS)
        span = self._tracer.start_span(name, context, attributes=facts, start_time=began)
        if failed:
            span.set_status(self._failed)
        span.end(ended)

    def close(self) -> None:
        """Send what is left, in a few seconds at most, and stop."""
        self._provider.shutdown()
