"""Files to records, one at a time: CSV with a header, NDJSON, or a JSON array."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TextIO

import msgspec

from app.usage.sheets import unshielded

Shape = Literal["csv", "json"]
Fields = Mapping[str, Any]
LONGEST_ARRAY = 256 << 20
"""A JSON array is read whole; what is longer should be NDJSON."""


class Record(NamedTuple):
    """What stood on a line, or why it could not be read; lines are counted from 1."""

    line: int
    fields: Fields
    problem: str = ""


class UnreadableError(ValueError):
    """The file as a whole is none that we read."""


def shape_of(name: str, begin: str) -> Shape:
    """Whether a file is CSV or JSON, by its name and else by how it begins."""
    lowered = name.lower()
    if lowered.endswith((".json", ".ndjson", ".jsonl")):
        return "json"
    if lowered.endswith((".csv", ".tsv")):
        return "csv"
    return "json" if begin.lstrip("\ufeff \t\r\n")[:1] in ("{", "[") else "csv"


def read_records(file: TextIO, shape: Shape, begin: str = "") -> Iterator[Record]:
    """The records of a file; `begin` is what was read of it already.

    Raises:
        UnreadableError: no header, an array that is too long, or not text in UTF-8.
    """
    lines = _lines(file, begin)
    try:
        yield from _csv(lines) if shape == "csv" else _json(lines)
    except UnicodeDecodeError:
        raise UnreadableError("the file is not text in UTF-8") from None


def _lines(file: TextIO, begin: str) -> Iterator[str]:
    """The lines, with `begin` (which need not end one) in front."""
    begun = io.StringIO(begin.removeprefix("\ufeff"), newline="")
    for line in begun:
        if line.endswith("\n"):
            yield line
        else:
            yield line + file.readline()
    yield from file


def _csv(lines: Iterable[str]) -> Iterator[Record]:
    csv.field_size_limit(1 << 20)
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
    except (StopIteration, csv.Error):
        raise UnreadableError("the file has no header") from None
    if not any(header) or len(set(header)) != len(header):
        raise UnreadableError("the header names no column, or one twice")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(line, {}, f"not CSV: {error}")
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield Record(line, {}, f"{len(cells)} fields where the header has {len(header)}")
            continue
        fields = {
            name: unshielded(cell) for name, cell in zip(header, cells, strict=True) if cell != ""
        }
        yield Record(line, fields)


def _json(lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if number == 1 and text.startswith("["):
            yield from _array(line, lines)
            return
        if text:
            yield _record(number, text)


def _array(first: str, rest: Iterator[str]) -> Iterator[Record]:
    parts, size = [first], len(first)
    for line in rest:
        parts.append(line)
        size += len(line)
        if size > LONGEST_ARRAY:
            raise UnreadableError("a JSON array of more than 256 MiB; write one object a line")
    try:
        found = msgspec.json.decode("".join(parts), type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise UnreadableError(f"not a JSON array: {error}") from None
    for number, raw in enumerate(found, 1):
        yield _record(number, bytes(raw).decode())


def _record(number: int, text: str) -> Record:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return Record(number, {}, f"not JSON: {error}")
    if not isinstance(found, dict):
        return Record(number, {}, "not a JSON object")
    return Record(number, found)


def id_for(record: Record, kind: str) -> str:
    """An id for a record that has none: the same line with the same content has the same one."""
    content = msgspec.json.encode([record.line, dict(record.fields)], order="deterministic")
    return f"import-{kind}-{sha256(content).hexdigest()[:32]}"
