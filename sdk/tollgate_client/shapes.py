"""What of a provider's answer is worth sending: what bills, never what was said. Pure.

Answers come as the libraries' models or as plain JSON; both are read by name.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tollgate_client.events import plain

APIS = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/responses": "responses",
    "/embeddings": "embeddings",
    "/v1/messages": "messages",
}
"""The paths that bill a call by themselves; others count if their answer has a usage."""
KEPT = (
    *("id", "object", "type", "model", "created", "created_at", "status", "service_tier"),
    *("stop_reason", "usage", "x_groq"),
)
BYTES_PER_TOKEN = 4
PICTURE_TOKENS = 1_000
DEEPEST = 12


class Sent(NamedTuple):
    """What a request says about the call that it makes."""

    path: str
    api: str
    model: str | None
    body: Mapping[str, Any]
    answers: int

    def input_tokens(self) -> int:
        """About as many tokens as the request puts in: a quarter of its bytes of text."""
        names = ("messages", "input", "prompt", "system", "instructions", "tools")
        text = sum(_weight(self.body.get(name), DEEPEST) for name in names)
        return -(-text // BYTES_PER_TOKEN)

    def most_output_tokens(self) -> int | None:
        """The bound that the request sets to what is written, over all answers; None if none."""
        for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
            bound = self.body.get(name)
            if isinstance(bound, int) and bound > 0:
                return bound * self.answers
        return 0 if self.api == "embeddings" else None


def sent_of(path: str, body: object) -> Sent:
    """Read a request by its path, as the library names it, and its JSON."""
    said: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    model, many = said.get("model"), said.get("n")
    return Sent(
        path,
        APIS.get(path.partition("?")[0], ""),
        model if isinstance(model, str) else None,
        said,
        many if isinstance(many, int) and many > 0 else 1,
    )


def field(thing: object, name: str) -> Any:
    """A member of a model or of plain JSON; None where there is none."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def billing_part(answer: object) -> dict[str, Any]:
    """An answer without prose: who answered, and every count in it."""
    found = {name: value for name in KEPT if (value := field(answer, name)) is not None}
    searches = [_search(item) for item in _list(field(answer, "output"))]
    if kept := [one for one in searches if one]:
        found["output"] = kept
    return {name: plain(value) for name, value in found.items()}


def _search(item: object) -> dict[str, Any] | None:
    """A web search among the output, which is billed by the piece; without what was looked for."""
    if field(item, "type") != "web_search_call":
        return None
    action = field(item, "action")
    return {"type": "web_search_call", "action": {"type": field(action, "type")}}


def bytes_written(chunk: object) -> int:
    """Bytes of text that a stream's chunk adds, whichever of the shapes it has."""
    said = field(chunk, "delta")
    if isinstance(said, str):
        return len(said.encode(errors="replace"))
    deltas = [said, *(field(one, "delta") for one in _list(field(chunk, "choices")))]
    texts = (text for delta in deltas if delta is not None for text in _texts(delta))
    plain_texts = (field(one, "text") for one in _list(field(chunk, "choices")))
    whole = [*texts, *(text for text in plain_texts if isinstance(text, str))]
    return sum(len(text.encode(errors="replace")) for text in whole)


def _texts(delta: object) -> Iterator[str]:
    for name in ("content", "refusal", "reasoning_content", "text", "thinking", "partial_json"):
        text = field(delta, name)
        if isinstance(text, str):
            yield text
    for call in _list(field(delta, "tool_calls")):
        function = field(call, "function")
        for name in ("name", "arguments"):
            text = field(function, name)
            if isinstance(text, str):
                yield text


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _weight(value: object, depth: int) -> int:
    """Bytes of text in a request; a picture counts the same whatever its size."""
    if isinstance(value, str):
        if value.startswith("data:"):
            return PICTURE_TOKENS * BYTES_PER_TOKEN
        return len(value.encode(errors="replace"))
    if depth and isinstance(value, Mapping):
        if value.get("type") == "base64":
            return PICTURE_TOKENS * BYTES_PER_TOKEN
        return sum(_weight(inner, depth - 1) for inner in value.values())
    if depth and isinstance(value, list | tuple):
        return sum(_weight(inner, depth - 1) for inner in value)
    return 0
