"""Rows of plain values as CSV: instants as RFC 3339, what is not there as nothing."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from fastapi import Response

from app.core.clock import rfc3339
from app.dashboard.frame import csv_answer


def csv_rows(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """A file of these rows, whose values stand in the order of the columns."""
    titles = [{"name": column.replace("_", " "), "key": column} for column in columns]
    return csv_answer(
        name, titles, [dict(zip(columns, map(_plain, row), strict=True)) for row in rows]
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list | frozenset):
        return " ".join(map(str, sorted(value)))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
