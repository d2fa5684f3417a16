"""Anthropic's messages: caches stand beside the input, and one answer may bill several models."""

from collections.abc import Iterable

from app.core.counters import COUNTERS, INDEX
from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

CACHE_KEYS = ("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation")
MARKS = (*CACHE_KEYS, "iterations", "server_tool_use", "inference_geo")
MOST_PASSES = 1_000
INCLUSIVE = ("input_tokens_details", "input_token_details", "prompt_tokens", "completion_tokens")


def recognises(answer: Answer) -> bool:
    """By caches beside the input, or by the message that carries the usage."""
    usage = answer.usage
    if usage.has(*INCLUSIVE) or not usage.has("input_tokens", "output_tokens", "iterations"):
        return False
    return usage.has(*MARKS) or answer.body.values.get("type") in ("message", "message_delta")


def read(answer: Answer) -> list[Billed]:
    """The message's own call and one for each advisor, or other model that was tried before.

    The top level leaves compaction out and counts the first pass only, so all passes are summed
    as soon as one of them is not a plain message.
    """
    usage = answer.usage
    passes = _billed_passes(usage)
    model = answer.model() or _last_model(passes)
    advisors = [step for step in passes if _is_another_model(step, model)]
    own = [step for step in passes if not _is_another_model(step, model)]
    if own and any(_kind(step) != "message" for step in passes):
        counts = _sum(map(_counts, own))
        if not counts["output_reasoning_tokens"]:
            counts["output_reasoning_tokens"] = _thinking(usage)
    else:
        counts = _counts(usage)
    counts["web_searches"] = usage.block("server_tool_use").largest("web_search_requests")
    first = answer.bill(counts, model=model)
    rest = [answer.bill(_counts(step), model=step.text("model")) for step in advisors]
    if first.cost_nanos is not None:
        rest = [call._replace(cost_nanos=0) for call in rest]
    return [first, *rest]


def _billed_passes(usage: Block) -> list[Block]:
    """The passes, without those that were refused before any output, which cost nothing."""
    passes = usage.blocks("iterations")
    if len(passes) > MOST_PASSES:
        raise usage.refuse("iterations", f"at most {MOST_PASSES} can be read")
    if not any(map(_is_fallback, passes)):
        return passes
    last = max(place for place, step in enumerate(passes) if _is_fallback(step))
    return [
        step
        for place, step in enumerate(passes)
        if place >= last
        or step.largest("output_tokens")
        or not (_kind(step) == "message" or _is_fallback(step))
    ]


def _is_fallback(step: Block) -> bool:
    return _kind(step).startswith("fallback")


def _last_model(passes: list[Block]) -> str | None:
    """The model that the message ended with, for a usage block that came without its message."""
    own = [step for step in passes if not _kind(step).startswith("advisor")]
    return own[-1].text("model") if own else None


def _kind(step: Block) -> str:
    return step.text("type") or "message"


def _is_another_model(step: Block, model: str | None) -> bool:
    named = step.text("model")
    return _kind(step).startswith("advisor") or (model is not None and named not in (None, model))


def _counts(block: Block) -> dict[str, int]:
    fresh = block.count("input_tokens")
    if fresh is None:
        raise block.refuse("input_tokens", "the input was looked for; a later chunk may lack it")
    split = block.block("cache_creation")
    short = split.largest("ephemeral_5m_input_tokens")
    long = split.largest("ephemeral_1h_input_tokens")
    written = block.count("cache_creation_input_tokens")
    written = short + long if written is None else written
    read_back = block.largest("cache_read_input_tokens")
    return {
        "input_tokens": fresh + read_back + written,
        "cache_read_tokens": read_back,
        "cache_write_tokens": written,
        "cache_write_5m_tokens": short,
        "cache_write_1h_tokens": long,
        "output_tokens": block.largest("output_tokens"),
        "output_reasoning_tokens": _thinking(block),
    }


def _thinking(block: Block) -> int:
    return block.block("output_tokens_details").largest("thinking_tokens", "reasoning_tokens")


def _sum(many: Iterable[dict[str, int]]) -> dict[str, int]:
    total = [0] * len(COUNTERS)
    for counts in many:
        for name, value in counts.items():
            total[INDEX[name]] += value
    return dict(zip(COUNTERS, total, strict=True))
