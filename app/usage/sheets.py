"""Rows as CSV, NDJSON or Parquet, a batch at a time: no more than one batch is in memory."""

import csv
import io
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from app.core.clock import rfc3339
from app.core.money import to_usd

Format = Literal["csv", "ndjson", "parquet"]
Kind = Literal["text", "count", "usd", "micros", "price", "flag", "instant", "pairs"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
RISKY = tuple("=+-@\t\r\n'")
"""What a text in CSV may begin with and a spreadsheet take for a formula; and the quote itself."""
PRICE_PLACES = 20


class Column(NamedTuple):
    """One column: `usd` is whole nano-dollars, `micros` are shown in thousands or millions.

    `pairs` is the JSON text of an object; `price` is a decimal of twenty places at most.
    """

    name: str
    kind: Kind
    per: int = 1


Row = Sequence[Any]


class Sheet(Protocol):
    """What is written goes out in pieces: the beginning, each batch, the end."""

    def head(self) -> bytes: ...
    def rows(self, batch: Sequence[Row]) -> bytes: ...
    def end(self) -> bytes: ...


def sheet_of(form: Format, columns: Sequence[Column]) -> Sheet:
    """A sheet of these columns in this format."""
    if form == "csv":
        return _Csv(columns)
    return _Lines(columns) if form == "ndjson" else _Parquet(columns)


def shielded(text: str) -> str:
    """A text as CSV has it: a quote stands before what a spreadsheet would take for a formula.

    A text that begins with a quote gets one too, so that `unshielded` finds every text again.
    """
    return f"'{text}" if text.startswith(RISKY) else text


def unshielded(text: str) -> str:
    """The text that `shielded` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(RISKY) else text


def decimal_text(value: int, per: int) -> str:
    """A whole number divided by a power of ten, exactly and without trailing zeros."""
    return plain(Decimal(value) / per)


def plain(value: Decimal) -> str:
    """A decimal without an exponent and without trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# ---- CSV --------------------------------------------------------------------------------------


def _cell(column: Column) -> Callable[[Any], str]:
    shown: dict[Kind, Callable[[Any], str]] = {
        "text": shielded,
        "pairs": str,  # begins with a brace
        "count": str,
        "usd": to_usd,
        "micros": lambda value: decimal_text(value, column.per),
        "price": plain,
        "flag": lambda value: "true" if value else "false",
        "instant": rfc3339,
    }
    return shown[column.kind]


class _Csv:
    """RFC 4180: a header, CRLF, quotes where needed; null is an empty field."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._cells = [_cell(column) for column in columns]

    def head(self) -> bytes:
        return self._written([self._names])

    def rows(self, batch: Sequence[Row]) -> bytes:
        return self._written([self._line(row) for row in batch])

    def _line(self, row: Row) -> list[str]:
        pairs = zip(self._cells, row, strict=True)
        return ["" if value is None else shown(value) for shown, value in pairs]

    def end(self) -> bytes:
        return b""

    @staticmethod
    def _written(lines: Sequence[Sequence[str]]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows(lines)
        return text.getvalue().encode()


# ---- NDJSON -----------------------------------------------------------------------------------


def _json(column: Column) -> Callable[[Any], Any]:
    shown: dict[Kind, Callable[[Any], Any]] = {
        "text": str,
        "pairs": lambda text: msgspec.Raw(text.encode()),
        "count": int,
        "usd": to_usd,
        "micros": lambda value: value / column.per,
        "price": plain,
        "flag": bool,
        "instant": rfc3339,
    }
    return shown[column.kind]


class _Lines:
    """One JSON object a line: a column named `a.b` is `b` of the object `a`, left out where null.

    Money is a decimal string, as everywhere on the wire.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._places = [(*_split(column.name), _json(column)) for column in columns]
        self._encode = msgspec.json.Encoder().encode_lines

    def head(self) -> bytes:
        return b""

    def rows(self, batch: Sequence[Row]) -> bytes:
        return self._encode([self._object(row) for row in batch])

    def _object(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (group, name, shown), value in zip(self._places, row, strict=True):
            if group:
                inner = found.setdefault(group, {})
                if value:
                    inner[name] = shown(value)
            else:
                found[name] = None if value is None else shown(value)
        return found

    def end(self) -> bytes:
        return b""


def _split(name: str) -> tuple[str, str]:
    group, dot, inner = name.partition(".")
    return (group, inner) if dot else ("", name)


# ---- Parquet ----------------------------------------------------------------------------------


class _Sink(io.RawIOBase):
    """A file that is only written to, and emptied between batches."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


class _Parquet:
    """A row group a batch; money is `decimal(28, 9)`, instants are UTC with microseconds."""

    def __init__(self, columns: Sequence[Column]) -> None:
        import pyarrow as pa  # noqa: PLC0415  (30 MB that few services ever need)
        import pyarrow.parquet as pq  # noqa: PLC0415

        self._arrow = pa
        kinds: dict[Kind, Any] = {
            "text": pa.string(),
            "pairs": pa.string(),
            "count": pa.int64(),
            "usd": pa.decimal128(28, 9),
            "micros": pa.decimal128(28, 6),
            "price": pa.decimal128(38, PRICE_PLACES),
            "flag": pa.bool_(),
            "instant": pa.timestamp("us", tz="UTC"),
        }
        self._columns = columns
        fields = [pa.field(_split(one.name)[1], kinds[one.kind]) for one in columns]
        self._schema = pa.schema(fields)
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def head(self) -> bytes:
        return self._sink.taken()

    def rows(self, batch: Sequence[Row]) -> bytes:
        if batch:
            arrays = [
                self._arrow.array([_exact(column, value) for value in values], field.type)
                for column, values, field in zip(
                    self._columns, zip(*batch, strict=True), self._schema, strict=True
                )
            ]
            self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        return self._sink.taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.taken()


def _exact(column: Column, value: Any) -> Any:
    if value is None:
        return None
    if column.kind == "usd":
        return Decimal(value).scaleb(-9)
    if column.kind == "micros":
        return Decimal(value) / column.per
    return value
