"""An entry in a file is the entry that was written, whatever it holds; other files are refused."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.counters import COLUMNS, MAX_COUNT
from app.core.errors import Damaged
from app.retention.facts import facts_of
from app.retention.fold import SUMMED
from app.retention.parquet import SCHEMA, from_parquet, to_parquet
from app.usage.ledger import Entry

AT = datetime(2026, 11, 3, 4, 5, 6, 789_012, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.integers(0, MAX_COUNT)
FIRST, LAST = datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001
MOMENT = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
PAIRS = st.dictionaries(TEXT, TEXT, max_size=3).map(json.dumps)
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "user_id": TEXT.filter(bool),
    "event_id": TEXT.filter(bool),
    "timestamp": MOMENT,
    "recorded_at": MOMENT,
    "body_hash": st.integers(-(2**63), 2**63 - 1),
    "status_code": st.integers(100, 599),
    "cost_nanos": st.none() | st.integers(0, 2**63 - 1),
    "cost_status": st.sampled_from(["priced", "estimated", "provided", "unpriced"]),
    "provider": TEXT,
    "model": TEXT,
    "price_ref": TEXT,
    "tags": st.none() | PAIRS,
    "context": st.none() | PAIRS,
}
NUMBERS = {"retry_count", "latency_us", "ttft_us", "request_bytes", "response_bytes"}


def _of(name: str) -> st.SearchStrategy[Any]:
    if name in SPECIAL:
        return SPECIAL[name]
    if name in COLUMNS:
        return COUNT
    return st.none() | (COUNT if name in NUMBERS else TEXT)


ENTRY = st.tuples(*map(_of, Entry._fields)).map(Entry._make)


def plain(**given: Any) -> Entry:
    """An entry with nothing special in it but what is given."""
    usual: dict[str, Any] = dict.fromkeys(Entry._fields) | dict.fromkeys(COLUMNS, 0)
    usual |= {"user_id": "alice", "event_id": "e1", "timestamp": AT, "recorded_at": AT}
    usual |= {"body_hash": -5, "provider": "openai", "model": "gpt-4o-mini", "status_code": 200}
    usual |= {"cost_nanos": 195_000, "cost_status": "priced", "price_ref": "p", "input_tokens": 7}
    return Entry(**usual | given)


@settings(max_examples=150)
@given(st.lists(ENTRY, max_size=6))
def test_any_entries_come_back_as_they_were(entries: list[Entry]) -> None:
    back = from_parquet(to_parquet(entries))
    assert back == entries
    assert all(one.timestamp.tzinfo is UTC and one.recorded_at.tzinfo is UTC for one in back)


def test_the_same_entries_make_the_same_bytes() -> None:
    entries = [plain(event_id=f"e{number}") for number in range(50)]
    assert to_parquet(entries) == to_parquet(entries)


def test_columns_are_those_of_the_log_under_their_names() -> None:
    assert tuple(SCHEMA.names) == Entry._fields
    table = pq.read_table(io.BytesIO(to_parquet([plain(cost_nanos=None, audio_micros=1_500_000)])))
    assert table.column("input_tokens").to_pylist() == [7]
    assert table.column("audio_micros").to_pylist() == [1_500_000]
    assert table.column("cost_nanos").to_pylist() == [None]
    assert table.schema.field("cost_nanos").type == pa.int64()
    assert table.schema.field("timestamp").type == pa.timestamp("us", tz="UTC")


def test_sums_of_the_largest_counts_stay_exact() -> None:
    entries = [plain(event_id=str(n), input_tokens=MAX_COUNT, retry_count=2) for n in range(3000)]
    facts = facts_of(entries)
    assert facts.sums["input_tokens"] == 3000 * MAX_COUNT > 2**64
    assert facts.sums["retries"] == 6000
    assert facts.sums.keys() == set(SUMMED)
    assert (facts.events, facts.users, facts.first_at) == (3000, 1, AT)


def changed(**columns: Any) -> bytes:
    """A file of one entry with other values in some columns, else as we write it."""
    table = pq.read_table(io.BytesIO(to_parquet([plain()])))
    for name, value in columns.items():
        field = SCHEMA.field(name)
        array = pa.array([value], field.type)
        table = table.set_column(SCHEMA.names.index(name), field.with_nullable(True), array)
    return _written(table.cast(pa.schema([field for field in SCHEMA], metadata=SCHEMA.metadata)))


def _written(table: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_tokens", -1),
        ("output_tokens", MAX_COUNT + 1),
        ("latency_us", -1),
        ("status_code", 1000),
        ("status_code", -200),
        ("cost_nanos", -1),
        ("cost_status", "free"),
        ("user_id", ""),
        ("event_id", ""),
        ("tags", "[]"),
        ("tags", '{"a": 1}'),
        ("context", "{"),
        ("context", "[" * 100_000),
    ],
)
def test_values_that_the_log_cannot_have_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Damaged, match=name):
        from_parquet(changed(**{name: value}))


def test_a_moment_beyond_the_calendar_is_refused() -> None:
    table = pq.read_table(io.BytesIO(to_parquet([plain()])))
    far = pa.array([2**62], pa.int64()).cast(SCHEMA.field("timestamp").type)
    place = SCHEMA.names.index("timestamp")
    table = table.set_column(place, SCHEMA.field("timestamp"), far)
    with pytest.raises(Damaged):
        from_parquet(_written(table))


def _without_mark() -> bytes:
    return _written(pq.read_table(io.BytesIO(to_parquet([plain()]))).replace_schema_metadata(None))


def _another_column() -> bytes:
    table = pq.read_table(io.BytesIO(to_parquet([plain()])))
    return _written(table.rename_columns(["who", *SCHEMA.names[1:]]))


def _too_many() -> bytes:
    table = pq.read_table(io.BytesIO(to_parquet([plain()] * 1001)))
    return _written(pa.concat_tables([table] * 100))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"PAR1" * 1000,
        to_parquet([plain()])[:-1],
        to_parquet([plain()])[:200],
        to_parquet([plain()])[200:],
        _without_mark(),
        _another_column(),
        _too_many(),
    ],
    ids=["empty", "magic", "noise", "cut", "start", "end", "no mark", "columns", "too many"],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        from_parquet(data)


@settings(max_examples=300)
@given(st.data())
def test_a_file_with_flipped_bytes_is_refused_or_reads_as_valid_entries(
    data: st.DataObject,
) -> None:
    whole = to_parquet([plain(event_id=f"e{number}", input_tokens=number) for number in range(20)])
    broken = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        broken[place] ^= data.draw(st.integers(1, 255))
    try:
        found = from_parquet(bytes(broken))
    except Damaged:
        return
    assert all(isinstance(one, Entry) and 0 <= one.input_tokens <= MAX_COUNT for one in found)
