"""The door to the readers of providers' raw responses; a provider is added to `READERS`."""

import re
from collections.abc import Callable
from typing import NamedTuple

from app.core.errors import InvalidInput
from app.ingest.responses import (
    anthropic,
    bedrock,
    cohere,
    google,
    openai_chat,
    openai_responses,
    pictures,
    services,
)
from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.unwrap import MOST_CALLS, answers
from app.pricing.names import provider_id


class Reader(NamedTuple):
    """How one shape is told by its keys and read; providers and apis decide between several."""

    shape: str
    keys: str
    recognises: Callable[[Answer], bool]
    read: Callable[[Answer], list[Billed]]
    providers: tuple[str, ...] = ()
    apis: tuple[str, ...] = ()


READERS: tuple[Reader, ...] = (
    Reader(
        "Anthropic messages",
        "input_tokens beside cache_read_input_tokens or cache_creation_input_tokens",
        anthropic.recognises,
        anthropic.read,
        ("anthropic",),
        ("messages",),
    ),
    Reader(
        "OpenAI responses, realtime, images and audio",
        "input_tokens, output_tokens",
        openai_responses.recognises,
        openai_responses.read,
        ("openai", "azure", "x-ai", "dashscope"),
        ("responses", "realtime", "image", "audio"),
    ),
    Reader("Cohere", "billed_units", cohere.recognises, cohere.read, ("cohere",)),
    Reader(
        "Gemini interactions",
        "total_input_tokens, total_output_tokens",
        google.recognises_interaction,
        google.read_interaction,
        ("google",),
        ("interactions",),
    ),
    Reader(
        "Gemini generateContent",
        "usageMetadata.promptTokenCount, candidatesTokenCount, totalTokenCount",
        google.recognises,
        google.read,
        ("google",),
        ("generate_content", "live"),
    ),
    Reader(
        "Bedrock converse",
        "inputTokens, outputTokens",
        bedrock.recognises,
        bedrock.read,
        ("aws",),
        ("converse",),
    ),
    Reader(
        "Bedrock invoke-model headers",
        "x-amzn-bedrock-input-token-count",
        bedrock.recognises_headers,
        bedrock.read_headers,
        ("aws",),
        ("invoke",),
    ),
    Reader(
        "Titan and Llama on Bedrock",
        "inputTextTokenCount, generation_token_count",
        bedrock.recognises_body,
        bedrock.read_body,
        ("aws", "meta"),
        ("invoke",),
    ),
    Reader(
        "Ollama",
        "prompt_eval_count, eval_count",
        services.recognises_ollama,
        services.read_ollama,
        ("ollama",),
    ),
    Reader(
        "OpenAI chat, completions and embeddings",
        "prompt_tokens, completion_tokens, total_tokens",
        openai_chat.recognises,
        openai_chat.read,
        (),
        ("chat", "completions", "embed", "rerank"),
    ),
    Reader(
        "usage by the piece",
        "seconds, pages_processed, characters, image_count",
        services.recognises_pieces,
        services.read_pieces,
    ),
    Reader(
        "Vertex predictions",
        "predictions",
        google.recognises_predictions,
        google.read_predictions,
        ("google",),
    ),
    Reader(
        "transcription by its length",
        "duration, audio_duration, metadata.duration",
        services.recognises_speech,
        services.read_speech,
    ),
    Reader(
        "images and videos",
        "data with url or b64_json, images, artifacts, seconds",
        pictures.recognises,
        pictures.read,
    ),
    Reader(
        "Exa, Serper, Tavily, Firecrawl",
        "costDollars, searchParameters, response_time, creditsUsed",
        services.recognises_search,
        services.read_search,
    ),
    Reader(
        "watsonx text generation",
        "results with generated_token_count",
        services.recognises_generated,
        services.read_generated,
        ("watsonx",),
    ),
    Reader(
        "Replicate predictions",
        "metrics.input_token_count, metrics.predict_time",
        services.recognises_prediction,
        services.read_prediction,
        ("replicate",),
    ),
    Reader(
        "a charge alone",
        "cost_in_usd_ticks",
        services.recognises_charge,
        services.read_charge,
    ),
)


def read_response(raw: object, *, provider: str | None, api: str | None) -> list[Billed]:
    """Return the model calls that a raw response bills, at least one.

    `raw` is a body, a bare usage block, a stream's final chunk, all its chunks, or a batch's lines.
    `provider` and `api` decide only where several shapes fit; the keys say more than the caller.
    Raises InvalidInput with a pointer at or below `/response` when nothing can be read from it.
    """
    named = provider_id(provider)
    called = re.sub(r"[^a-z0-9]+", "_", (api or "").lower()).strip("_")
    calls: list[Billed] = []
    for opened in answers(raw):
        calls += _read(Answer(opened.usage, opened.levels, named, called, opened.batch))
        if len(calls) > MOST_CALLS:
            raise InvalidInput.at("/response", f"at most {MOST_CALLS} calls can be billed at once")
    return calls


def _read(answer: Answer) -> list[Billed]:
    fitting = [reader for reader in READERS if reader.recognises(answer)]
    if not fitting:
        raise InvalidInput.at(answer.usage.pointer, _nothing_found(answer))
    return max(fitting, key=lambda reader: _claim(reader, answer)).read(answer)


def _claim(reader: Reader, answer: Answer) -> tuple[bool, bool]:
    """How well a reader fits what the caller says; the first in the list wins a tie."""
    return answer.api.startswith(reader.apis or "-"), answer.provider in reader.providers


def _nothing_found(answer: Answer) -> str:
    failed = any(level.has("error") for level in answer.levels)
    why = "the response is an error without usage" if failed else "no usage was found"
    tried = "; ".join(f"{reader.shape} ({reader.keys})" for reader in READERS)
    return f"{why}; tried {tried}"
