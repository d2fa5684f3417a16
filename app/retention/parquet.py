"""Entries as Parquet and back, exactly. The only module that knows Arrow: import it when needed."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from app.core.clock import from_micros, to_micros
from app.core.counters import COLUMNS, MAX_COUNT
from app.core.errors import Damaged
from app.retention.facts import FORMAT
from app.usage.ledger import Entry

MAX_EVENTS = 100_000
MAX_UNPACKED = 1 << 30
"""What one file may hold at most: Parquet packs so well that a small file can fill a memory."""

_MOMENTS = ("timestamp", "recorded_at")
_WORDS = ("user_id", "event_id", "provider", "model", "cost_status", "price_ref")
_COUNTS = (*COLUMNS, "retry_count", "latency_us", "ttft_us", "request_bytes", "response_bytes")
_NUMBERS = ("body_hash", "status_code", "cost_nanos", *_COUNTS)
_REQUIRED = frozenset((*_MOMENTS, *_WORDS, "body_hash", "status_code", *COLUMNS))
_UNLIKE = frozenset(("event_id", "error_message", "hold_id"))
_STATUSES = frozenset(("priced", "estimated", "provided", "unpriced"))
_MARK = {b"tollgate.format": str(FORMAT).encode()}


def _kind(name: str) -> Any:
    if name in _MOMENTS:
        return pa.timestamp("us", tz="UTC")
    return pa.int64() if name in _NUMBERS else pa.string()


SCHEMA = pa.schema(
    [pa.field(name, _kind(name), nullable=name not in _REQUIRED) for name in Entry._fields],
    metadata=_MARK,
)
_NAMES = [field.name for field in SCHEMA if field.type == pa.string() and field.name not in _UNLIKE]
_pairs = msgspec.json.Decoder(dict[str, str])


def to_parquet(entries: Sequence[Entry]) -> bytes:
    """The entries as one file: the log's columns, names by dictionary, zstd."""
    columns = zip(*entries, strict=True) if entries else [()] * len(SCHEMA)
    arrays = [_array(field, values) for field, values in zip(SCHEMA, columns, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=SCHEMA),
        sink,
        compression="zstd",
        use_dictionary=_NAMES,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def _array(field: Any, values: Sequence[Any]) -> Any:
    if field.name in _MOMENTS:
        return pa.array(map(to_micros, values), pa.int64()).cast(field.type)
    return pa.array(values, field.type)


def from_parquet(data: bytes) -> list[Entry]:
    """The entries of a file, each value judged as if a stranger had sent it.

    Raises:
        Damaged: not a file of ours, or not whole.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_size(file.metadata)
        if not file.schema_arrow.equals(SCHEMA):
            raise Damaged("the file has other columns than the log")
        if (file.schema_arrow.metadata or {}).get(b"tollgate.format") != str(FORMAT).encode():
            raise Damaged("the file has another format than this version writes")
        table = file.read()
        table.validate(full=True)
        columns = [_values(table.column(field.name), field) for field in SCHEMA]
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise Damaged("the file cannot be read as Parquet") from error
    for name, values in zip(Entry._fields, columns, strict=True):
        _check(name, values)
    return list(map(Entry._make, zip(*columns, strict=True)))


def _check_size(said: Any) -> None:
    unpacked = sum(said.row_group(number).total_byte_size for number in range(said.num_row_groups))
    if said.num_rows > MAX_EVENTS or unpacked > MAX_UNPACKED:
        raise Damaged("the file holds more than any archive")


def _values(column: Any, field: Any) -> list[Any]:
    if not field.nullable and column.null_count:
        raise Damaged(f"{field.name}: a value is missing")
    if field.name in _MOMENTS:
        return list(map(from_micros, column.cast(pa.int64()).to_pylist()))
    found: list[Any] = column.to_pylist()
    return found


def _check(name: str, values: Sequence[Any]) -> None:
    if name in _COUNTS or name == "status_code":
        most = 999 if name == "status_code" else MAX_COUNT
        good = all(value is None or 0 <= value <= most for value in values)
    elif name == "cost_nanos":
        good = all(value is None or value >= 0 for value in values)
    elif name == "cost_status":
        good = _STATUSES.issuperset(values)
    elif name in ("user_id", "event_id"):
        good = all(values)
    elif name in ("tags", "context"):
        good = all(value is None or _is_pairs(value) for value in set(values))
    else:
        good = True
    if not good:
        raise Damaged(f"{name}: a value that the log cannot have")


def _is_pairs(text: str) -> bool:
    try:
        _pairs.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
