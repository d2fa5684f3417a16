"""What is billed by the piece: searches, pages, seconds, characters; and names of a few hosts."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

OLLAMA = ("prompt_eval_count", "eval_count")
LETTERS = ("characters", "usage_characters")
PIECES = ("seconds", "duration", "pages_processed", *LETTERS, "image_count", "video_duration")
PREDICTED = ("input_token_count", "output_token_count", "image_count", "predict_time")
MOST_CHANNELS = 64
SEARCHERS = ("perplexity", "serper", "tavily")


def recognises_ollama(answer: Answer) -> bool:
    """By evaluation counts."""
    return answer.usage.has(*OLLAMA)


def read_ollama(answer: Answer) -> list[Billed]:
    """One call; earlier versions do not count a prompt that was cached whole."""
    taken, given = (answer.usage.largest(key) for key in OLLAMA)
    counts = {
        "input_tokens": taken,
        "cache_read_tokens": answer.usage.largest("prompt_eval_cached_count"),
        "output_tokens": given,
    }
    return [answer.bill(counts)]


def recognises_pieces(answer: Answer) -> bool:
    """By a usage block of one kind of piece and no tokens."""
    usage = answer.usage
    bare = usage is answer.body
    return usage.has(*PIECES) and not (bare and usage.has("text", "object", "results"))


def read_pieces(answer: Answer) -> list[Billed]:
    """One call of speech recognition or synthesis, page reading, image or video making."""
    usage = answer.usage
    counts = {
        "audio_seconds": usage.micros("seconds", "duration") or 0,
        "video_seconds": usage.micros("video_duration") or 0,
        "input_document_pages": usage.largest("pages_processed"),
        "input_characters": usage.largest(*LETTERS),
        "output_images": usage.largest("image_count"),
    }
    if counts["video_seconds"]:
        counts["audio_seconds"] = 0
    return [answer.bill(counts)]


def recognises_speech(answer: Answer) -> bool:
    """By the length of the audio beside a transcript."""
    body = answer.body
    if body.has("audio_duration", "audio_duration_secs"):
        return True
    if isinstance(body.values.get("metadata"), dict) and body.has("results"):
        return body.block("metadata").has("duration")
    return body.has("duration") and body.has("text")


def read_speech(answer: Answer) -> list[Billed]:
    """One transcription by Whisper, Deepgram (each channel is billed), AssemblyAI or ElevenLabs."""
    body = answer.body
    model = body.text("speech_model", "model_id")
    heard = body.micros("audio_duration", "audio_duration_secs", "duration")
    if heard is None:
        told = body.block("metadata")
        heard = told.micros("duration") or 0
        channels = body.block("results").blocks("channels")
        if len(channels) > MOST_CHANNELS:
            raise body.refuse("results/channels", f"at most {MOST_CHANNELS} can be read")
        heard *= max(len(channels), 1)
        infos = told.values.get("model_info")
        if isinstance(infos, dict) and infos:
            first = next(iter(infos.values()))
            model = _deepgram(Block(first, told.pointer)) if isinstance(first, dict) else None
    return [answer.bill({"audio_seconds": heard}, model=model)]


def _deepgram(info: Block) -> str | None:
    """The model as it is asked for and priced: `2-general-nova` of `nova-2` is `nova-2-general`."""
    name, family = info.text("name"), info.text("arch")
    if name is None or family is None:
        return name or family
    parts = family.split("-")
    return "-".join([*parts, *(part for part in name.split("-") if part not in parts)])


def recognises_generated(answer: Answer) -> bool:
    """By watsonx's results, each with its counts."""
    results = answer.body.values.get("results")
    first = results[0] if isinstance(results, list) and results else None
    return isinstance(first, dict) and first.get("generated_token_count") is not None


def read_generated(answer: Answer) -> list[Billed]:
    """One call of watsonx's text generation; the prompt is counted in the first result."""
    body = answer.body
    results = body.blocks("results")
    counts = {
        "input_tokens": results[0].largest("input_token_count"),
        "output_tokens": sum(each.largest("generated_token_count") for each in results),
    }
    return [answer.bill(counts, model=body.text("model_id"))]


def recognises_prediction(answer: Answer) -> bool:
    """By the metrics of a finished prediction on Replicate."""
    told = answer.body.values.get("metrics")
    return isinstance(told, dict) and any(told.get(key) is not None for key in PREDICTED)


def read_prediction(answer: Answer) -> list[Billed]:
    """One prediction: by its tokens or images, and only where it has none by its running time."""
    told = answer.body.block("metrics")
    counts = {
        "input_tokens": told.largest("input_token_count"),
        "output_tokens": told.largest("output_token_count"),
        "output_images": told.largest("image_count"),
    }
    if not any(counts.values()):
        counts["compute_seconds"] = told.micros("predict_time") or 0
    return [answer.bill(counts)]


def recognises_charge(answer: Answer) -> bool:
    """By what xAI charged, where nothing is counted, as for a video."""
    return answer.usage.has("cost_in_usd_ticks")


def read_charge(answer: Answer) -> list[Billed]:
    """One request at the cost that the provider states."""
    return [answer.bill({"requests": 1})]


def recognises_search(answer: Answer) -> bool:
    """By the marks of Exa, Serper, Tavily and Firecrawl; their credits are not a cost."""
    body = answer.body
    if answer.provider in SEARCHERS and (body.has("results") or answer.usage.has("credits")):
        return True
    tavily = body.has("results") and body.has("response_time", "query")
    return tavily or body.has("costDollars", "searchParameters", "creditsUsed") or _scraped(body)


def read_search(answer: Answer) -> list[Billed]:
    """One request, or the pages of one that fetched or crawled them."""
    body = answer.body
    if body.has("costDollars"):
        return [_exa(answer)]
    if body.has("searchParameters"):
        body.count("credits")
        return [answer.bill({"requests": 1}, model="search")]
    if body.has("creditsUsed") or _scraped(body):
        credits = body.count("creditsUsed")
        if credits is None:
            credits = body.block("data").block("metadata").count("creditsUsed")
        listed = isinstance(body.values.get("data"), list)
        pages = len(body.blocks("data")) if listed else 1
        name = "crawl" if listed else "scrape"
        return [answer.bill({"requests": 1, "input_document_pages": pages}, model=name)]
    extracted = any("raw_content" in each.values for each in body.blocks("results"))
    name = "extract" if extracted and not body.has("query") else "search"
    return [answer.bill({"requests": 1}, model=name)]


def _exa(answer: Answer) -> Billed:
    body = answer.body
    parts = body.block("costDollars")
    if body.has("answer"):
        return answer.bill({"requests": 1}, model="answer")
    if parts.has("contents") and not parts.has("search"):
        pages = {"input_document_pages": len(body.blocks("results"))}
        return answer.bill(pages, model="contents")
    return answer.bill({"requests": 1}, model="search")


def _scraped(body: Block) -> bool:
    """Firecrawl's single page keeps its credits in the page's metadata."""
    page = body.values.get("data")
    told = page.get("metadata") if isinstance(page, dict) else None
    return isinstance(told, dict) and "creditsUsed" in told
