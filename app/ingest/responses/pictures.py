"""Images and videos that are billed by the piece, told by the pieces themselves."""

from app.ingest.responses.answer import Answer
from app.ingest.responses.billed import Billed
from app.ingest.responses.fields import Block

LISTS = ("data", "images", "artifacts")
SENT = ("url", "b64_json", "base64")
MADE = ("seed", "seeds", "finish_reason", "finish_reasons", "has_nsfw_concepts", "timings")
"""What stands beside an image that was made; search services list images that they found."""
MAKERS = ("aws", "fal-ai", "stability")


def recognises(answer: Answer) -> bool:
    """By the images or the video object themselves, where no tokens are counted."""
    if answer.body.values.get("object") == "video":
        return answer.body.has("seconds")
    return bool(_images(answer))


def read(answer: Answer) -> list[Billed]:
    """One call that made images, or a video, whose length is a string of whole seconds."""
    body = answer.body
    size = body.text("size")
    context = {"size": size} if size else {}
    if body.values.get("object") != "video":
        return [answer.bill({"output_images": _images(answer)}, context=context)]
    told = body.values.get("seconds")
    whole = body.count("seconds") if isinstance(told, str) else told
    length = Block({"seconds": whole}, body.pointer)
    return [answer.bill({"video_seconds": length.micros("seconds") or 0}, context=context)]


def _images(answer: Answer) -> int:
    """How many images were made, in the lists of OpenAI, fal, Stability and Bedrock."""
    body = answer.body
    if body.has("created") or answer.usage.has("cost_in_usd_ticks"):
        return _listed(body.values.get("data"))
    if not body.has(*MADE) and answer.provider not in MAKERS:
        return _listed(body.values.get("artifacts"))
    if isinstance(body.values.get("image"), str):
        return 1
    return max(_listed(body.values.get(key)) for key in LISTS[1:])


def _listed(items: object) -> int:
    return sum(map(_is_picture, items)) if isinstance(items, list) else 0


def _is_picture(item: object) -> bool:
    if isinstance(item, dict):
        return any(item.get(key) is not None for key in SENT)
    return isinstance(item, str) and item != ""
