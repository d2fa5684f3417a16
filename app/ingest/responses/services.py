"""What is billed by the piece: searches, pages, seconds, characters, images; and Ollama's names."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

OLLAMA = ("prompt_eval_count", "eval_count")
PIECES = ("seconds", "duration", "pages_processed", "characters", "image_count", "video_duration")
MOST_CHANNELS = 64
SEARCHERS = ("perplexity", "serper", "tavily")


def recognises_ollama(answer: Answer) -> bool:
    """By evaluation counts."""
    return answer.usage.has(*OLLAMA)


def read_ollama(answer: Answer) -> list[Billed]:
    """One call; a prompt that was cached whole is not counted."""
    taken, given = (answer.usage.largest(key) for key in OLLAMA)
    return [answer.bill({"input_tokens": taken, "output_tokens": given})]


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
        "input_characters": usage.largest("characters"),
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
            model = Block(first, told.pointer).text("name") if isinstance(first, dict) else None
    return [answer.bill({"audio_seconds": heard}, model=model)]


def recognises_pictures(answer: Answer) -> bool:
    """By the images or the video object themselves, where no tokens are counted."""
    if answer.body.values.get("object") == "video":
        return answer.body.has("seconds")
    made = answer.body.values.get("data")
    dated = answer.body.has("created") or answer.usage.has("cost_in_usd_ticks")
    return dated and isinstance(made, list) and any(map(_is_picture, made))


def read_pictures(answer: Answer) -> list[Billed]:
    """One call that made images, or a video, whose length is a string of whole seconds."""
    body = answer.body
    size = body.text("size")
    context = {"size": size} if size else {}
    if body.values.get("object") != "video":
        images = sum(each.has("url", "b64_json") for each in body.blocks("data"))
        return [answer.bill({"output_images": images}, context=context)]
    told = body.values.get("seconds")
    whole = body.count("seconds") if isinstance(told, str) else told
    length = Block({"seconds": whole}, body.pointer)
    return [answer.bill({"video_seconds": length.micros("seconds") or 0}, context=context)]


def _is_picture(item: object) -> bool:
    return isinstance(item, dict) and ("url" in item or "b64_json" in item)


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
