"""Log records that tell of a model call: those of coding agents, and the conventions' own. Pure.

Coding agents tell whole token counts only in their logs.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from app.ingest.otlp.dialects import Who, as_usd, instance_of, tags_of, telling_of
from app.ingest.otlp.failures import code_of
from app.ingest.otlp.marks import operation_of
from app.ingest.otlp.spans import Attributes, Record, Span
from app.ingest.otlp.telling import People, Telling
from app.ingest.otlp.usage import Used, inclusive
from app.ingest.otlp.values import count, count_in, number_in, text_in

_MILLIS = 1_000_000
_LONGEST_MS = 1e9


class Agent(NamedTuple):
    """How one agent tells: under which event, of whose model, and what its counters mean."""

    scope: str
    provider: str
    usage: Callable[[Attributes], tuple[Used, tuple[int, int]]]
    failed: bool = False


def _codex(attributes: Attributes) -> tuple[Used, tuple[int, int]]:
    sent = _sent(attributes, "input_token_count", "output_token_count")
    names = ("cached_token_count", "cache_write_token_count", "reasoning_token_count")
    return _used(sent, attributes, *names), sent


def _gemini(attributes: Attributes) -> tuple[Used, tuple[int, int]]:
    """Its output leaves out the thoughts, which are billed as output."""
    sent = _sent(attributes, "input_token_count", "output_token_count")
    thoughts = count(attributes.get("thoughts_token_count")) or 0
    whole = sent[0], sent[1] + thoughts if sent[1] >= 0 else sent[1]
    names = ("cached_content_token_count", "", "thoughts_token_count")
    return _used(whole, attributes, *names), sent


def _claude(attributes: Attributes) -> tuple[Used, tuple[int, int]]:
    """Its input leaves out what was read from the cache and written to it."""
    sent = _sent(attributes, "input_tokens", "output_tokens")
    names = ("cache_read_tokens", "cache_creation_tokens")
    cached = sum(count(attributes.get(name)) or 0 for name in names)
    whole = sent[0] + cached if sent[0] >= 0 else sent[0], sent[1]
    return _used(whole, attributes, *names, ""), sent


def _nothing(_: Attributes) -> tuple[Used, tuple[int, int]]:
    return {}, (-1, -1)


AGENTS: Mapping[str, Agent] = {
    "codex.sse_event": Agent("codex", "openai", _codex),
    "codex.api_request": Agent("codex", "openai", _nothing, failed=True),
    "gemini_cli.api_response": Agent("gemini_cli", "google", _gemini),
    "gemini_cli.api_error": Agent("gemini_cli", "google", _nothing, failed=True),
    "claude_code.api_request": Agent("claude_code", "anthropic", _claude),
    "claude_code.api_error": Agent("claude_code", "anthropic", _nothing, failed=True),
}
_CONVENTION = "gen_ai.client.inference.operation.details"
_ANSWER = ("gen_ai.response.", "gen_ai.usage.", "error.")
_SESSION = ("session.id", "conversation.id", "session_id")
_REQUEST_ID = ("request_id", "gen_ai.response.id", "response_id")
_STATUS = ("status_code", "http_status_code", "http.response.status_code")
LEAST_ERROR = 400
_DURATION_MS = ("duration_ms", "gen_ai.client.operation.duration_ms")


def telling_in(record: Record, who: Who) -> Telling | None:
    """What a log record tells of a model call; None where it tells of none."""
    agent = AGENTS.get(_event_of(record))
    if agent is None:
        return _by_conventions(record, who)
    attributes = record.attributes
    used, counted = agent.usage(attributes)
    model = text_in(attributes, ("model",))
    if not model or not (used or agent.failed):
        return None  # Codex repeats its event without counts
    failed = agent.failed or bool(text_in(attributes, ("error", "error_message")))
    message = text_in(attributes, ("error_message", "error", "error.message"), 1000)
    status = count_in(attributes, _STATUS) or 0
    if failed and status < LEAST_ERROR:
        status = code_of(text_in(attributes, ("error_type",)), message)
    duration_ms = number_in(attributes, _DURATION_MS) or 0.0
    duration_ns = round(min(max(duration_ms, 0.0), _LONGEST_MS) * _MILLIS)
    trace_id, span_id = _spot(record, agent.scope)
    return Telling(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=record.span_id,
        scope=agent.scope,
        rank=0,
        end_ns=record.time_ns,
        instance=text_in(attributes, _SESSION) or instance_of(record.resource),
        start_ns=max(record.time_ns - duration_ns, 0),
        response_id=text_in(attributes, _REQUEST_ID, 1024),
        provider=agent.provider,
        model=model,
        requested_model=model,
        operation="chat",
        usage=inclusive(used),
        counted=counted,
        failed=failed,
        status_code=status if 100 <= status <= 599 else 0,
        error=message if failed else "",
        ttft_ns=round(min(max(number_in(attributes, ("ttft_ms",)) or 0, 0), _LONGEST_MS) * _MILLIS),
        cost_usd=as_usd(number_in(attributes, ("cost_usd",))),
        speed=text_in(attributes, ("speed",), 64),
        people=_person(record, who),
        tags=tags_of(attributes, record.resource),
    )


def _by_conventions(record: Record, who: Who) -> Telling | None:
    """A record with the attributes of a span: the conventions' own event, or Logfire's stream."""
    is_named = _event_of(record) == _CONVENTION
    if not is_named and not record.scope.startswith("logfire"):
        return None
    if not operation_of(record.attributes):
        return None
    if is_named and not any(name.startswith(_ANSWER) for name in record.attributes):
        return None  # Gemini CLI writes one for its request too
    seconds = number_in(record.attributes, ("gen_ai.client.operation.duration",)) or 0.0
    start_ns = max(record.time_ns - round(min(max(seconds, 0.0), 1e6) * 1e9), 0)
    span = Span(
        *(record.trace_id, record.span_id, "", "", start_ns, record.time_ns, False, ""),
        *(record.attributes, (), record.scope, record.resource),
    )
    found = telling_of(span, who)
    if found is None:
        return None
    if is_named:
        found.scope, found.rank = "operation.details", 2
    found.parent_id = record.span_id
    found.trace_id, found.span_id = _spot(record, found.scope)
    found.instance = text_in(record.attributes, _SESSION) or found.instance
    return found


def _event_of(record: Record) -> str:
    """The event's name; Claude Code may leave out its own prefix."""
    name = text_in(record.attributes, ("event.name",)) or record.name
    if name == "codex.sse_event":
        kind = record.attributes.get("event.kind")
        return name if kind == "response.completed" else ""
    if name == "codex.api_request":  # of one that was answered, the end of its stream tells
        return name if (count_in(record.attributes, _STATUS) or 0) >= LEAST_ERROR else ""
    if name in ("api_request", "api_error"):
        service = text_in(record.resource, ("service.name",))
        told = "claude" in service or "claude" in record.scope or record.name.startswith("claude")
        return f"claude_code.{name}" if told else name
    return name


def _spot(record: Record, scope: str) -> tuple[str, str]:
    """Where a record stands: in its trace, under an id made of what it says."""
    digest = blake2b(digest_size=8)
    for part in (
        *(scope, _event_of(record), str(record.time_ns), record.trace_id, record.span_id),
        *(f"{name}={record.attributes[name]}" for name in sorted(record.attributes)),
    ):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    own = f"log:{digest.hexdigest()}"
    return record.trace_id or own, own


def _person(record: Record, who: Who) -> People:
    """Who used the agent: as the resource was told, else by name; an installation's id comes last.

    Agents send what they know of their user by themselves, so what was set on purpose goes first.
    """
    set_up, sent = who(record.resource), who(record.attributes)
    named = who({name: value for name, value in record.attributes.items() if name != "user.id"})
    account = text_in(record.attributes, ("user.account_uuid", "user.account_id"))
    session = sent.session or text_in(record.attributes, _SESSION) or set_up.session
    user = set_up.user or named.user or account or sent.user
    return People(user, set_up.team or sent.team, session)


def _sent(attributes: Attributes, came: str, went: str) -> tuple[int, int]:
    found = [count(attributes.get(name)) for name in (came, went)]
    return -1 if found[0] is None else found[0], -1 if found[1] is None else found[1]


def _used(
    sent: tuple[int, int], attributes: Attributes, read: str, written: str, reasoned: str
) -> Used:
    found: Used = {}
    if sent[0] >= 0:
        found["input_tokens"] = sent[0]
    if sent[1] >= 0:
        found["output_tokens"] = sent[1]
    for name, counter in (
        (read, "cache_read_tokens"),
        (written, "cache_write_tokens"),
        (reasoned, "output_reasoning_tokens"),
    ):
        value = count(attributes.get(name)) if name else None
        if value is not None:
            found[counter] = value
    return found
