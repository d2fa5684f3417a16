"""OpenAI's chat, completion and embedding shape, which most others speak with their own accents."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

KEYS = ("prompt_tokens", "completion_tokens", "total_tokens")
OTHER_INPUTS = ("input_tokens", "output_tokens", "total_input_tokens", "billed_units")
CACHED = ("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
CACHED_OLD = ("cached_prompt_text_tokens", "cache_read_input_tokens")
WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
BY_TOOLS = "connector_tokens"
"""What Mistral's own tools put into the prompt, counted beside it."""
WITHOUT_OUTPUT = ("embed", "rerank")


def recognises(answer: Answer) -> bool:
    """By prompt or completion tokens; a total alone is what embeddings and rerankers report."""
    usage = answer.usage
    return usage.has("prompt_tokens", "completion_tokens") or (
        usage.has("total_tokens") and not usage.has(*OTHER_INPUTS)
    )


def read(answer: Answer) -> list[Billed]:
    """One call; reasoning that the provider counts beside the completion is added to the output."""
    usage = answer.usage
    prompt, completion = _whole(answer)
    told = usage.block("prompt_tokens_details", "prompt_token_details")
    made = usage.block("completion_tokens_details", "completion_token_details")
    reasoning = made.count("reasoning_tokens")
    beside = reasoning is None and _searches_deeply(answer)
    if reasoning is None:
        reasoning = usage.count("reasoning_tokens") or _hidden_thoughts(answer, prompt, completion)
    if beside or _beside_completion(answer, prompt, completion, reasoning):
        completion += reasoning
    counts = {
        "input_tokens": prompt,
        "cache_read_tokens": max(
            told.largest("cached_tokens"), usage.largest(*CACHED, *CACHED_OLD)
        ),
        "input_audio_tokens": max(
            told.largest("audio_tokens"), usage.largest("audio_prompt_tokens")
        ),
        "cache_audio_read_tokens": told.block("cached_tokens_details").largest("audio_tokens"),
        "input_image_tokens": told.largest("image_tokens"),
        "output_tokens": completion,
        "output_reasoning_tokens": reasoning,
        "output_audio_tokens": made.largest("audio_tokens"),
        "output_image_tokens": made.largest("image_tokens"),
        "output_citation_tokens": usage.largest("citation_tokens"),
        "web_searches": _searches(answer),
        "audio_seconds": _heard(usage),
        **_written(usage, told),
    }
    return [answer.bill(counts)]


def _whole(answer: Answer) -> tuple[int, int]:
    """Prompt and completion; whichever is not said is what the other leaves of the total."""
    usage = answer.usage
    prompt, completion, total = (usage.count(key) for key in KEYS)
    if prompt is None:
        if total is None:
            raise answer.refuse("prompt_tokens or total_tokens was looked for")
        prompt = total - (completion or 0)
    if completion is None:
        vectors = answer.api.startswith(WITHOUT_OUTPUT) or answer.body.has("data", "results")
        completion = 0 if total is None or vectors else total - prompt
    if prompt < 0 or completion < 0:
        raise usage.refuse("total_tokens", "the total is less than its parts")
    return prompt + usage.largest(BY_TOOLS), completion


def _hidden_thoughts(answer: Answer, prompt: int, completion: int) -> int:
    """Gemini's thoughts, which its chat endpoint counts in the total alone."""
    name = (answer.model() or "").rpartition("/")[2]
    if answer.provider != "google" and not name.startswith("gemini"):
        return 0
    return max(0, (answer.usage.count("total_tokens") or 0) - prompt - completion)


def _beside_completion(answer: Answer, prompt: int, completion: int, reasoning: int) -> bool:
    """The total tells; without one, xAI's chat counts reasoning beside the completion."""
    if not reasoning:
        return False
    total = answer.usage.count("total_tokens")
    if total == prompt + completion:
        return False
    return total == prompt + completion + reasoning or (
        answer.provider == "x-ai" or answer.usage.has("cost_in_usd_ticks")
    )


def _searches_deeply(answer: Answer) -> bool:
    """Perplexity's deep research bills reasoning, citations and queries beside the completion."""
    usage = answer.usage
    return usage.has("citation_tokens") or (
        answer.provider == "perplexity" and usage.has("reasoning_tokens")
    )


def _searches(answer: Answer) -> int:
    usage = answer.usage
    if usage.has("num_search_queries"):
        return usage.largest("num_search_queries") if _searches_deeply(answer) else 0
    tools = usage.block("server_tool_use", "server_tool_use_details")
    run = usage.block("connectors")
    return max(
        tools.largest("web_search_requests"),
        run.largest("web_search") + run.largest("web_search_premium"),
        usage.largest("num_sources_used"),
    )


def _written(usage: Block, told: Block) -> dict[str, int]:
    split = told.block("cache_creation")
    short = split.largest("ephemeral_5m_input_tokens")
    long = split.largest("ephemeral_1h_input_tokens")
    written = max(told.largest(*WRITTEN), usage.largest(*WRITTEN), short + long)
    return {
        "cache_write_tokens": written,
        "cache_write_5m_tokens": short,
        "cache_write_1h_tokens": long,
    }


def _heard(usage: Block) -> int:
    """Mistral writes an empty object where no audio was sent."""
    if usage.values.get("prompt_audio_seconds") == {}:
        return 0
    return usage.micros("prompt_audio_seconds") or 0
