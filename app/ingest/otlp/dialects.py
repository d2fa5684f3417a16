"""Which spans are model calls, and under which names each instrumentation tells of one. Pure."""

import json
from collections.abc import Callable
from decimal import Decimal

from app.ingest.otlp.failures import error_of, status_of
from app.ingest.otlp.spans import Attributes, Span
from app.ingest.otlp.telling import Link, People, Telling
from app.ingest.otlp.usage import usage_in
from app.ingest.otlp.values import clean, flag_in, number_in, object_in, text_in

Who = Callable[[Attributes], People]
"""Finds whom attributes name."""

NO_CALLS = frozenset(
    {
        *("invoke_agent", "agent_step", "create_agent", "invoke_workflow", "execute_tool"),
        *("plan", "retrieval", "fetch_response"),
    }
)
"""Operations that hold model calls, or look at one again, and are none."""
_TOLD_BY_LOGS = ("gemini-cli", "llm_call")
"""The scope and operation of spans without counters; the same agent's log records have them."""
_KINDS = {"LLM": "chat", "EMBEDDING": "embeddings", "generation": "chat", "embedding": "embeddings"}

BILLED_MODEL = (
    *("litellm.provider.model", "gen_ai.response.model", "llm.response.model"),
    *("ai.response.model", "llm.model_name", "embedding.model_name"),
    *(
        "langfuse.observation.model.name",
        "gen_ai.request.model",
        "llm.request.model",
        "ai.model.id",
    ),
)
REQUESTED_MODEL = ("gen_ai.request.model", "llm.request.model", "ai.model.id")
PROVIDER = (
    *("gen_ai.provider.name", "gen_ai.system", "litellm.provider", "llm.provider", "llm.system"),
    "ai.model.provider",
)
RESPONSE_ID = ("gen_ai.response.id", "llm.response.id", "ai.response.id")
STREAMING = (
    *("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming"),
    "litellm.request.streaming",
)
FIRST_CHUNK_S = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
)
FIRST_CHUNK_MS = ("ai.response.msToFirstChunk", "ai.response.msToFirstOutput")
COST = (
    *("litellm.cost.total", "gen_ai.cost.total_cost", "gen_ai.usage.cost", "llm.cost.total"),
    "operation.cost",
)
FREE = ("litellm.cache_hit", "litellm.cache.hit", "cache_hit")
SERVICE_TIER = (
    *("openai.response.service_tier", "gen_ai.openai.response.service_tier"),
    *("anthropic.response.service_tier", "gen_ai.response.service_tier"),
)
CALLERS_KEY = ("litellm.api_key.hash", "litellm.metadata.user_api_key_hash")
END_USER = ("litellm.metadata.user_api_key_end_user_id", "litellm.metadata.user_api_key_end_user")
_FIRST_TOKEN = "First Token Stream Event"

_SDKS = ("com.anthropic.", "com.openai.", "com.google.", "google.genai", "anthropic.sdk")
_GENERIC = ("opentelemetry.instrumentation", "openinference.", "@opentelemetry/", "@traceloop/")
_NANOS, _MILLIS = 1_000_000_000, 1_000_000
_LONGEST_NS = 10**9 * _MILLIS
"""What is longer than eleven days is no duration of a call."""


def operation_of(attributes: Attributes) -> str:
    """The kind of model call, such as `chat`; empty where this is no model call.

    A call names its model and is marked as one: by its operation, by OpenInference's or Langfuse's
    kind, as the innermost step of Vercel's SDK, or by the older mark of Traceloop.
    """
    operation = text_in(attributes, ("gen_ai.operation.name",), 128)
    if not operation:
        kinds = ("openinference.span.kind", "langfuse.observation.type")
        operation = _KINDS.get(text_in(attributes, kinds, 64), "")
    if not operation:
        step = text_in(attributes, ("ai.operationId",), 128).rpartition(".")[2]
        if step.startswith("do") and step[2:3].isupper():
            operation = "embeddings" if step.startswith("doEmbed") else "chat"
    operation = operation or text_in(attributes, ("llm.request.type",), 128)
    if operation in NO_CALLS or not (operation and model_of(attributes)):
        return ""
    return operation


def model_of(attributes: Attributes) -> str:
    """The model that is billed: what answered where that is said, else what was asked for."""
    found = text_in(attributes, BILLED_MODEL)
    if not found:
        asked = object_in(attributes, "llm.invocation_parameters").get("model")
        found = clean(asked) if isinstance(asked, str) else ""
    return found


def telling_of(span: Span, who: Who) -> Telling | None:
    """What a span tells of a model call; None where it is none."""
    attributes = span.attributes
    operation = operation_of(attributes)
    if not operation or (span.scope, operation) == _TOLD_BY_LOGS:
        return None
    used, counted = usage_in(attributes)
    failed, status_code = status_of(span)
    start_ns, end_ns, half = span.start_ns, max(span.start_ns, span.end_ns), ""
    if span.scope.startswith("logfire") and end_ns - start_ns < _MILLIS:
        seconds = number_in(attributes, ("duration",))
        if seconds is not None and 0 <= seconds < _LONGEST_NS / _NANOS:
            start_ns, half = max(end_ns - round(seconds * _NANOS), 0), "stream"
    ttft_ns = first_chunk(span, start_ns)
    provider = provider_of(attributes)
    return Telling(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        scope=clean(span.scope),
        rank=rank_of(span.scope),
        instance=instance_of(span.resource),
        start_ns=start_ns,
        end_ns=end_ns,
        half=half,
        response_id=response_id_of(attributes),
        provider=provider,
        model=without_prefix(model_of(attributes), provider),
        requested_model=text_in(attributes, REQUESTED_MODEL),
        operation=operation,
        usage=used,
        counted=counted,
        failed=failed,
        status_code=status_code,
        error=error_of(span) if failed else "",
        streaming=bool(ttft_ns) or is_streaming(attributes),
        ttft_ns=ttft_ns,
        cost_usd=cost_in(attributes),
        cached_answer=flag_in(attributes, FREE),
        service_tier=text_in(attributes, SERVICE_TIER, 64),
        people=who(attributes),
        around=who(span.resource),
        api_key=text_in(attributes, CALLERS_KEY),
        tags=tags_of(attributes, span.resource),
    )


def link_of(span: Span, who: Who) -> Link | None:
    """What a span that is no model call passes on to those below it; None if nothing."""
    people = who(span.attributes)
    if not span.parent_id and people == People():
        return None
    return Link(span.parent_id, people)


def provider_of(attributes: Attributes) -> str:
    """The provider in lower case, without the part that Vercel's older SDK adds (`openai.chat`)."""
    found = text_in(attributes, PROVIDER, 128).lower()
    head, _, rest = found.partition(".")
    if rest in ("chat", "responses", "completion", "embedding", "messages", "image"):
        return head
    return found


def without_prefix(model: str, provider: str) -> str:
    """The model without the provider that LiteLLM writes before it."""
    return model[len(provider) + 1 :] if provider and model.startswith(f"{provider}/") else model


def rank_of(scope: str) -> int:
    """0 for a provider's own library, 2 for what instruments from outside, 1 for the rest."""
    if scope.startswith(_SDKS):
        return 0
    return 2 if scope.startswith(_GENERIC) else 1


def instance_of(resource: Attributes) -> str:
    """The process that told, or at least its service."""
    return text_in(resource, ("service.instance.id", "session.id", "service.name"))


def response_id_of(attributes: Attributes) -> str:
    """The id of the provider's answer; OpenInference has it inside the answer alone."""
    found = text_in(attributes, RESPONSE_ID, 1024)
    if not found and attributes.get("output.mime_type") == "application/json":
        inner = object_in(attributes, "output.value").get("id")
        found = clean(inner, 1024) if isinstance(inner, str) else ""
    return found


def is_streaming(attributes: Attributes) -> bool:
    """Whether the answer came in pieces, as far as that is said."""
    if flag_in(attributes, STREAMING):
        return True
    step = text_in(attributes, ("ai.operationId",), 128).rpartition(".")[2]
    if step == "doStream":
        return True
    return object_in(attributes, "llm.invocation_parameters").get("stream") is True


def first_chunk(span: Span, start_ns: int) -> int:
    """Nanoseconds until the first piece of the answer; 0 where that is not said."""
    seconds = number_in(span.attributes, FIRST_CHUNK_S)
    if seconds is not None and seconds > 0:
        return min(round(seconds * _NANOS), _LONGEST_NS)
    millis = number_in(span.attributes, FIRST_CHUNK_MS)
    if millis is not None and millis > 0:
        return min(round(millis * _MILLIS), _LONGEST_NS)
    for event in span.events:
        if event.name == _FIRST_TOKEN and event.time_ns > start_ns:
            return min(event.time_ns - start_ns, _LONGEST_NS)
    return 0


def cost_in(attributes: Attributes) -> str:
    """The cost that the sender states, in USD as decimal text; empty where it states none."""
    found = number_in(attributes, COST)
    if found is None:
        total = object_in(attributes, "langfuse.observation.cost_details").get("total")
        found = float(total) if isinstance(total, int | float) else None
    return as_usd(found)


def as_usd(amount: float | None) -> str:
    """An amount as decimal text with nine places; empty where it is none of money."""
    if amount is None or not 0 <= amount < 1e9:
        return ""
    return str(round(Decimal(repr(amount)), 9))


def tags_of(attributes: Attributes, resource: Attributes) -> dict[str, str]:
    """What else is worth finding calls by: the service, and whom the caller served."""
    found = {
        "service": text_in(resource, ("service.name",)),
        "end_user": text_in(attributes, END_USER),
    }
    listed = attributes.get("tag.tags")
    if isinstance(listed, list | tuple):
        found["tags"] = clean(
            json.dumps([one for one in listed if isinstance(one, str)])[:512], 512
        )
    return {name: value for name, value in found.items() if value}
