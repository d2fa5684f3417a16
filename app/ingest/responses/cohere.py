"""Cohere: the billed units count, whatever tokens the models saw."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed

UNITS = ("input_tokens", "output_tokens", "image_tokens", "search_units", "classifications")


def recognises(answer: Answer) -> bool:
    """By billed units, or by a bare block of units that only Cohere has."""
    return answer.usage.has("billed_units", "search_units", "classifications")


def read(answer: Answer) -> list[Billed]:
    """One chat, embedding, rerank or classification call."""
    usage = answer.usage
    units = usage.block("billed_units") if usage.has("billed_units") else usage
    if not units.has(*UNITS):
        raise answer.refuse(f"one of billed_units.{', '.join(UNITS)} was looked for")
    images = units.largest("image_tokens")
    counts = {
        "input_tokens": units.largest("input_tokens") + images,
        "input_image_tokens": images,
        "output_tokens": units.largest("output_tokens"),
        "rerank_searches": units.largest("search_units"),
        "requests": units.largest("classifications"),
    }
    return [answer.bill(counts)]
