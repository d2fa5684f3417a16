"""OpenAI's later shape: responses, realtime, images, speech and transcription by tokens."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

INPUT_DETAILS = ("input_tokens_details", "input_token_details", "prompt_tokens_details")
OUTPUT_DETAILS = ("output_tokens_details", "output_token_details", "completion_tokens_details")
CACHED = ("cached_tokens", "cache_read_input_tokens", "cache_read_tokens")
WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
ANOTHER_SHAPE = ("prompt_tokens", "completion_tokens", "billed_units")
ANOTHER_CACHE = ("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation")


def recognises(answer: Answer) -> bool:
    """By input and output tokens, unless keys of another shape stand beside them."""
    usage = answer.usage
    if usage.has(*ANOTHER_SHAPE) or (usage.has(*ANOTHER_CACHE) and not usage.has(*INPUT_DETAILS)):
        return False
    return usage.has("input_tokens", "output_tokens")


def read(answer: Answer) -> list[Billed]:
    """One call; image and speech endpoints report no output details, for all is of one kind."""
    usage = answer.usage
    told, made = usage.block(*INPUT_DETAILS), usage.block(*OUTPUT_DETAILS)
    taken, given = _whole(answer)
    kind = None if made.values else _only_kind(answer, told)
    cached = told.block("cached_tokens_details")
    counts = {
        "input_tokens": taken,
        "cache_read_tokens": max(told.largest(*CACHED), usage.largest("cached_tokens")),
        "cache_write_tokens": told.largest(*WRITTEN),
        "input_audio_tokens": told.largest("audio_tokens"),
        "cache_audio_read_tokens": cached.largest("audio_tokens"),
        "input_image_tokens": told.largest("image_tokens"),
        "output_tokens": given,
        "output_reasoning_tokens": made.largest("reasoning_tokens", "thinking_tokens"),
        "output_audio_tokens": given if kind == "audio" else made.largest("audio_tokens"),
        "output_image_tokens": given if kind == "image" else made.largest("image_tokens"),
        "web_searches": _searches(answer),
        "audio_seconds": usage.micros("billable_audio_seconds") or 0,
    }
    return [answer.bill(counts)]


def _whole(answer: Answer) -> tuple[int, int]:
    usage = answer.usage
    taken, given, total = (
        usage.count(key) for key in ("input_tokens", "output_tokens", "total_tokens")
    )
    if taken is None:
        if total is None:
            raise answer.refuse("input_tokens was looked for; a later chunk may lack it")
        taken = total - (given or 0)
    if given is None:
        given = 0 if total is None else total - taken
    if taken < 0 or given < 0:
        raise usage.refuse("total_tokens", "the total is less than its parts")
    return taken, given


def _only_kind(answer: Answer, told: Block) -> str | None:
    body = answer.body
    sent = body.values.get("type")
    told_type = sent if isinstance(sent, str) else ""
    if "speech" in answer.api or told_type.startswith("speech."):
        return "audio"
    listed = body.has("created") and body.has("data") and not body.has("object")
    endpoint = answer.api.startswith("image") or told_type.startswith(("image_gen", "image_edit"))
    split = told.has("text_tokens") and told.has("image_tokens") and not told.has("cached_tokens")
    split = split and not body.has("output", "choices")
    if endpoint or listed or (split and answer.usage.has("input_tokens_details")):
        return "image"
    return None


def _searches(answer: Answer) -> int:
    """What the usage itself counts, else the searches among the output items."""
    usage = answer.usage
    if usage.has("tool_calls_details"):
        return usage.block("tool_calls_details").block("search_web").largest("invocation")
    if usage.has("server_side_tool_usage_details"):
        return usage.block("server_side_tool_usage_details").largest("web_search_calls")
    items = answer.body.values.get("output")
    searches = sum(map(_is_search, items)) if isinstance(items, list) else 0
    return usage.largest("num_sources_used") or searches


def _is_search(item: object) -> bool:
    """Opening a page and finding text in it are web search calls too, and are free."""
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return isinstance(action, dict) and action.get("type") == "search"
