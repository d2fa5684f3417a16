"""From what was sent to the answers in it: wrappers are opened, a stream's chunks are put together.

Counts of a stream are cumulative, so for every key the last value that says something wins.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from app.core.errors import InvalidInput
from app.ingest.responses.fields import Block

HOLDERS = ("usage", "usageMetadata", "usage_metadata", "usage_info")
HOLDERS_BY_KEY = {
    "meta": "billed_units",
    "amazon-bedrock-invocationMetrics": "inputTokenCount",
    "extra_info": "usage_characters",
}
COUNTS = (
    *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"),
    *("total_input_tokens", "promptTokenCount", "candidatesTokenCount", "inputTokens"),
    *("prompt_eval_count", "eval_count", "inputTextTokenCount", "generation_token_count"),
    *("billed_units", "predictions"),
)
"""Keys that stand in a bare usage block, or in a body that keeps its counts at its top."""
HEADERS = ("HTTPHeaders", "headers")
HEADER = "x-amzn-bedrock-input-token-count"
WRAPPERS = (
    *("response", "body", "message", "data", "delta", "result", "x_groq", "modelOutput"),
    *("metadata", "chunk", "ResponseMetadata", "interaction"),
)
CALLERS_OWN = "metadata"
"""Bedrock puts its usage there; with others it is what the caller likes to keep."""
BATCH_KEYS = ("custom_id", "recordId")
ENDS = ("response.done", "response.completed", "response.incomplete", "response.failed")
WHOLES = ("chat.completion", "text_completion", "response", "list")
CHUNK = ".chunk"
NAMES = ("id", "responseId", "response_id", "request_id", "RequestId")
"""Where an answer, and every chunk of it, says which answer it is."""
CHOICES = "choices"
"""Moonshot puts the usage of a stream into its last choice."""
TELLING = frozenset((*HOLDERS, *HOLDERS_BY_KEY, *HEADERS, *COUNTS, *WRAPPERS, CHOICES))
"""An object without any of these needs no second look."""
MARKS = TELLING | {"type", "object", "candidates", *BATCH_KEYS}
"""A chunk without any of these only adds to what is said around the counts."""
DEEPEST = 8
MOST_CHUNKS = 100_000
MOST_OBJECTS = 20_000
MOST_CALLS = 100


class Opened(NamedTuple):
    """An answer out of its wrappers: the usage block and what surrounds it, innermost first."""

    usage: Block
    levels: tuple[Block, ...]
    batch: bool
    found: bool


def answers(raw: object) -> list[Opened]:
    """The answers in a body, a usage block, a chunk, or a list of chunks or bodies.

    Raises InvalidInput where that is not an object or list of objects.
    """
    pointer = "/response"
    if isinstance(raw, dict) and isinstance(raw.get("chunks"), list):
        raw, pointer = raw["chunks"], "/response/chunks"
    if isinstance(raw, dict):
        return [_Search().open_up(Block(raw, pointer))]
    if not isinstance(raw, list):
        raise InvalidInput.at(pointer, "an object, or a list of a stream's chunks was looked for")
    if not raw:
        raise InvalidInput.at(pointer, "the list has no chunks")
    if len(raw) > MOST_CHUNKS:
        raise InvalidInput.at(pointer, f"at most {MOST_CHUNKS} chunks can be read")
    told, last = [], None
    for part in _parts(raw, pointer):
        last = part.put_together()
        if last.found:
            told.append(last)
        if len(told) > MOST_CALLS:
            raise InvalidInput.at(pointer, f"at most {MOST_CALLS} calls can be billed at once")
    return told or ([last] if last else [])


class _Search:
    """The way to the usage block, through a bounded number of objects inside the chunks."""

    def __init__(self) -> None:
        self.left = MOST_OBJECTS

    def open_up(self, block: Block) -> Opened:
        """Go inwards until an object holds a usage block; itself is one if none does."""
        path = self._path(block, DEEPEST)
        batch = block.has(*BATCH_KEYS)
        if not path:
            return Opened(block, (block,), batch, False)
        return Opened(path[-1], tuple(reversed(path[:-1])), batch, True)

    def _path(self, block: Block, depth: int) -> list[Block]:
        """The objects from here to the one with the counts, which comes last; else empty."""
        if TELLING.isdisjoint(block.values):
            return []
        self.left -= depth < DEEPEST
        if not self.left:
            detail = f"no usage was found in {MOST_OBJECTS:,} nested objects"
            raise InvalidInput.at("/response", detail)
        if holder := _holder(block):
            return [block, holder]
        if depth:
            for inner in _inner(block):
                path = self._path(inner, depth - 1)
                if path:
                    return [block, *path]
        return []


def _inner(block: Block) -> Iterator[Block]:
    """The objects in which a usage block may stand."""
    for key in WRAPPERS:
        inner = block.values.get(key)
        if isinstance(inner, dict) and (key != CALLERS_OWN or "usage" in inner):
            yield Block(inner, f"{block.pointer}/{key}")
    choices = block.values.get(CHOICES)
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and isinstance(first.get("usage"), dict):
        yield Block(first, f"{block.pointer}/{CHOICES}/0")


def _holder(block: Block) -> Block | None:
    for key in HOLDERS:
        value = block.values.get(key)
        if value is not None and value != {}:
            return block.block(key)
    for key, mark in HOLDERS_BY_KEY.items():
        value = block.values.get(key)
        if isinstance(value, dict) and mark in value:
            return block.block(key)
    for key in HEADERS:
        value = block.values.get(key)
        if isinstance(value, dict) and any(str(name).lower() == HEADER for name in value):
            return block.block(key)
    return block if block.has(*COUNTS) else None


class _Part:
    """The chunks of one call, overlaid in the order they came."""

    def __init__(self, pointer: str) -> None:
        self.values: dict[str, object] = {}
        self.usage: dict[str, object] = {}
        self.candidates: list[object] = []
        self.pointer = pointer
        self.usage_pointer = pointer
        self.batch = self.begun = self.ended = False
        self.id: str | None = None
        self.answer: str | None = None

    def is_of_another(self, answer: str | None) -> bool:
        """Whether something of this answer is of another call than what was counted here."""
        if not self.usage or answer is None or self.answer is None:
            return False
        return answer != self.answer

    def take(self, opened: Opened) -> None:
        for level in reversed(opened.levels):
            _overlay(self.values, level.values)
            shown = level.values.get("candidates")
            if isinstance(shown, list):
                self.candidates += shown
        if opened.found:
            _overlay(self.usage, opened.usage.values)
            self.pointer, self.usage_pointer = opened.levels[0].pointer, opened.usage.pointer
        self.batch = self.batch or opened.batch

    def put_together(self) -> Opened:
        if self.candidates:
            self.values["candidates"] = self.candidates
        body = Block(self.values, self.pointer)
        usage = Block(self.usage, self.usage_pointer) if self.usage else body
        return Opened(usage, (body,), self.batch, bool(self.usage))


def _parts(chunks: list[object], pointer: str) -> Iterator[_Part]:
    """One part for each call.

    A message's start begins one and a final event ends one; and so does the name of another answer
    after one that was counted.
    """
    part, search = _Part(pointer), _Search()
    for place, chunk in enumerate(chunks):
        if chunk is None or chunk in ("", "[DONE]"):
            continue
        if not isinstance(chunk, dict):
            raise InvalidInput.at(f"{pointer}/{place}", "an object was looked for")
        if not part.ended and MARKS.isdisjoint(chunk):
            _overlay(part.values, chunk)
            continue
        block = Block(chunk, f"{pointer}/{place}")
        opened = search.open_up(block)
        kind, begins = chunk.get("type"), _begins(chunk)
        same = part.id is not None and _id(chunk) == part.id
        answer = _answer(chunk, opened)
        over = part.begun and not same and (part.ended or begins)
        if over or part.is_of_another(answer):
            yield part
            part = _Part(block.pointer)
        part.take(opened)
        part.answer = answer or part.answer
        if begins:
            part.begun, part.id = True, _id(chunk)
        if _is_whole(chunk, opened) or (isinstance(kind, str) and kind in ENDS):
            part.begun = part.ended = True
            part.id = _id(chunk)
    yield part


def _id(chunk: Mapping[str, object]) -> str | None:
    for holder in (chunk, chunk.get("response"), chunk.get("message")):
        told = holder.get("id") if isinstance(holder, dict) else None
        if isinstance(told, str) and told:
            return told
    return None


def _answer(chunk: Mapping[str, object], opened: Opened) -> str | None:
    """Which answer something is, or is a chunk of; None where its id may be that of an event, a
    step or another part of an answer."""
    if "type" in chunk:
        return None
    sent = chunk.get("ResponseMetadata")
    for level in (*(one.values for one in opened.levels), sent if isinstance(sent, dict) else {}):
        kind = level.get("object")
        if isinstance(kind, str) and kind not in WHOLES and not kind.endswith(CHUNK):
            return None
        for name in NAMES:
            told = level.get(name)
            if isinstance(told, str) and told:
                return told
    return None


def _begins(chunk: Mapping[str, object]) -> bool:
    return chunk.get("type") == "message_start" or _is_object(chunk, WHOLES)


def _is_object(chunk: Mapping[str, object], names: tuple[str, ...]) -> bool:
    told = chunk.get("object")
    return isinstance(told, str) and told in names


def _is_whole(chunk: Mapping[str, object], opened: Opened) -> bool:
    """Whether a chunk is a complete answer: a body, a batch's line, a turn of a live session."""
    if opened.batch or _is_object(chunk, WHOLES):
        return True
    return chunk.get("type") == "message" or "responseTokenCount" in opened.usage.values


def _overlay(under: dict[str, object], over: Mapping[str, object]) -> None:
    for key, value in over.items():
        if value is not None and value != "":
            under[key] = value
