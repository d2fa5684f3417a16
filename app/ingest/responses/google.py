"""Gemini on AI Studio and Vertex: generateContent, live sessions, interactions, embeddings."""

from collections.abc import Iterator

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

OUTPUT = ("candidatesTokenCount", "candidates_token_count", "responseTokenCount")
OUTPUT_OLD = ("response_token_count",)
OUTPUTS = ("candidatesTokensDetails", "candidates_tokens_details")
OUTPUTS_LIVE = ("responseTokensDetails", "response_tokens_details")
PROMPT = ("promptTokenCount", "prompt_token_count")
TOTAL = ("totalTokenCount", "total_token_count")
BILLED_BY_PROMPT = ("gemini-1", "gemini-2")
"""Grounding is one unit a prompt for these, and one a search query since Gemini 3."""


def recognises(answer: Answer) -> bool:
    """By token counts in the names of generateContent."""
    usage = answer.usage
    if usage.has("generation_token_count"):
        return False
    return usage.has(*PROMPT, *OUTPUT, *OUTPUT_OLD, *TOTAL)


def read(answer: Answer) -> list[Billed]:
    """One call; what tools put into the prompt is input, thoughts are output."""
    usage = answer.usage
    tools = usage.largest("toolUsePromptTokenCount", "tool_use_prompt_token_count")
    thoughts = usage.largest("thoughtsTokenCount", "thoughts_token_count")
    given = (usage.count(*OUTPUT, *OUTPUT_OLD) or 0) + thoughts
    prompt, total = usage.count(*PROMPT), usage.count(*TOTAL)
    if prompt is None:
        prompt = 0 if total is None else total - given - tools
    if prompt < 0:
        raise usage.refuse("totalTokenCount", "the total is less than its parts")
    prompts = ("promptTokensDetails", "promptTokenDetails", "prompt_tokens_details")
    counts = {
        "input_tokens": prompt + tools,
        "cache_read_tokens": usage.largest("cachedContentTokenCount", "cached_content_token_count"),
        "input_audio_tokens": _of("AUDIO", usage, *prompts)
        + _of("AUDIO", usage, "toolUsePromptTokensDetails", "tool_use_prompt_tokens_details"),
        "cache_audio_read_tokens": _of(
            "AUDIO", usage, "cacheTokensDetails", "cache_tokens_details"
        ),
        "output_tokens": given,
        "output_reasoning_tokens": thoughts,
        "output_audio_tokens": _of("AUDIO", usage, *OUTPUTS, *OUTPUTS_LIVE),
        "output_image_tokens": _of("IMAGE", usage, *OUTPUTS, *OUTPUTS_LIVE),
        "web_searches": _searches(answer),
    }
    return [answer.bill(counts)]


def recognises_interaction(answer: Answer) -> bool:
    """By totals for each direction."""
    return answer.usage.has("total_input_tokens", "total_output_tokens")


def read_interaction(answer: Answer) -> list[Billed]:
    """One call of the interactions API; its totals leave tool use and thoughts out."""
    usage = answer.usage
    prompt = usage.count("total_input_tokens")
    if prompt is None:
        raise usage.refuse("total_input_tokens", "the input was looked for")
    tools = usage.largest("total_tool_use_tokens")
    thoughts = usage.largest("total_thought_tokens")
    counts = {
        "input_tokens": prompt + tools,
        "cache_read_tokens": usage.largest("total_cached_tokens"),
        "input_audio_tokens": _of("AUDIO", usage, "input_tokens_by_modality")
        + _of("AUDIO", usage, "tool_use_tokens_by_modality"),
        "cache_audio_read_tokens": _of("AUDIO", usage, "cached_tokens_by_modality"),
        "output_tokens": usage.largest("total_output_tokens") + thoughts,
        "output_reasoning_tokens": thoughts,
        "output_audio_tokens": _of("AUDIO", usage, "output_tokens_by_modality"),
        "output_image_tokens": _of("IMAGE", usage, "output_tokens_by_modality"),
    }
    return [answer.bill(counts)]


def recognises_predictions(answer: Answer) -> bool:
    """By Vertex's list of predictions."""
    first = _first(answer.body.values.get("predictions"))
    return "bytesBase64Encoded" in first or "gcsUri" in first or "embeddings" in first


def read_predictions(answer: Answer) -> list[Billed]:
    """One call: the images that were made, or the tokens (else characters) that were embedded."""
    predictions = answer.body.blocks("predictions")
    images = sum(each.has("bytesBase64Encoded", "gcsUri") for each in predictions)
    tokens = sum(
        each.block("embeddings").block("statistics").largest("token_count") for each in predictions
    )
    letters = answer.body.block("metadata").largest("billableCharacterCount")
    if not images and not tokens and not letters:
        raise answer.refuse("images or embeddings.statistics.token_count were looked for")
    counts = {
        "output_images": images,
        "input_tokens": tokens,
        "input_characters": 0 if tokens else letters,
    }
    return [answer.bill(counts)]


def _of(modality: str, usage: Block, *keys: str) -> int:
    """The tokens of one modality in a list of counts by modality."""
    return sum(
        item.largest("tokenCount", "token_count", "tokens")
        for item in usage.blocks(*keys)
        if (item.text("modality") or "").upper() == modality
    )


def _searches(answer: Answer) -> int:
    asked = {query for item in _grounded(answer) for query in _queries(item) if query}
    by_prompt = (answer.model() or "").rpartition("/")[2].startswith(BILLED_BY_PROMPT)
    return min(len(asked), 1) if by_prompt else len(asked)


def _grounded(answer: Answer) -> Iterator[dict[str, object]]:
    candidates = answer.body.values.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else []:
        if isinstance(candidate, dict):
            found = candidate.get("groundingMetadata") or candidate.get("grounding_metadata")
            if isinstance(found, dict):
                yield found


def _queries(grounding: dict[str, object]) -> list[str]:
    queries = grounding.get("webSearchQueries") or grounding.get("web_search_queries")
    return [each for each in queries if isinstance(each, str)] if isinstance(queries, list) else []


def _first(value: object) -> dict[str, object]:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
