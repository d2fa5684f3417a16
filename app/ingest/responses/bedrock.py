"""Bedrock: converse, the headers and metrics of invoke-model, and its own models' bodies."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

HEADER = "x-amzn-bedrock-"
INPUT = ("inputTokens", "inputTokenCount")
OUTPUT = ("outputTokens", "outputTokenCount")
READ = ("cacheReadInputTokens", "cacheReadInputTokenCount")
WRITTEN = ("cacheWriteInputTokens", "cacheWriteInputTokenCount")
TITAN = "inputTextTokenCount"
LLAMA = ("prompt_token_count", "generation_token_count")


def recognises(answer: Answer) -> bool:
    """By converse's counts, or those in the last chunk of invoke-model."""
    return answer.usage.has(*INPUT, *OUTPUT)


def read(answer: Answer) -> list[Billed]:
    """One call; both caches stand beside the input."""
    usage = answer.usage
    fresh = usage.count(*INPUT)
    if fresh is None:
        raise usage.refuse("inputTokens", "the input was looked for")
    by_life = {"5m": 0, "1h": 0}
    for item in usage.blocks("cacheDetails"):
        life = item.text("ttl") or ""
        if life in by_life:
            by_life[life] += item.largest("inputTokens")
    return [
        _bill(
            answer,
            fresh,
            usage.largest(*OUTPUT),
            usage.largest(*READ),
            max(usage.largest(*WRITTEN), sum(by_life.values())),
            by_life,
        )
    ]


def recognises_headers(answer: Answer) -> bool:
    """By the response headers of invoke-model."""
    return any(_is_header(key) for key in answer.usage.values)


def read_headers(answer: Answer) -> list[Billed]:
    """One call, counted in headers, whose values are strings of digits."""
    found = {}
    for name, value in answer.usage.values.items():
        if _is_header(name):
            unit = name.lower().removeprefix(HEADER).removesuffix("-token-count")
            found[unit] = Block({name: value}, answer.usage.pointer).count(name) or 0
    if "input" not in found:
        raise answer.refuse("x-amzn-bedrock-input-token-count was looked for")
    cached, written = found.get("cache-read-input", 0), found.get("cache-write-input", 0)
    return [_bill(answer, found["input"], found.get("output", 0), cached, written)]


def recognises_body(answer: Answer) -> bool:
    """By the counts in the bodies of Titan and Llama, unless a stream's metrics came after."""
    return answer.usage.has(TITAN, "generation_token_count") and not recognises(answer)


def read_body(answer: Answer) -> list[Billed]:
    """One call of Titan, whose results each count their tokens, or of Llama."""
    usage = answer.usage
    taken = usage.count(TITAN, LLAMA[0])
    if taken is None:
        raise answer.refuse("inputTextTokenCount or prompt_token_count was looked for")
    given = usage.count("totalOutputTextTokenCount", LLAMA[1])
    if given is None:
        given = sum(each.largest("tokenCount") for each in usage.blocks("results"))
    return [_bill(answer, taken, given, 0, 0)]


def _is_header(key: object) -> bool:
    name = key.lower() if isinstance(key, str) else ""
    return name.startswith(HEADER) and name.endswith("-token-count")


def _bill(
    answer: Answer,
    fresh: int,
    given: int,
    cached: int,
    written: int,
    by_life: dict[str, int] | None = None,
) -> Billed:
    life = by_life or {}
    return answer.bill(
        {
            "input_tokens": fresh + cached + written,
            "cache_read_tokens": cached,
            "cache_write_tokens": written,
            "cache_write_5m_tokens": life.get("5m", 0),
            "cache_write_1h_tokens": life.get("1h", 0),
            "output_tokens": given,
            "web_searches": answer.usage.block("serverToolUsage").largest("webSearchRequests"),
        }
    )
