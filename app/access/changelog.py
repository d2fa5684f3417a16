"""Who changed what: a row for each change that somebody made, and never a secret in it."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, insert, or_, select

from app.access.keys import Key
from app.access.tables import ManagementChange
from app.core.clock import rfc3339
from app.core.ids import uuid7
from app.db.engine import Tx

LONGEST_TEXT, MOST_ITEMS, DEEPEST = 1_000, 100, 8
LARGEST = 16_384
"""Bytes of JSON that the state before, or after, takes at most."""
HIDDEN = "…"
SECRETS = frozenset(
    {"secret", "secrets", "older_secrets", "token", "password", "digest", "authorization", "csrf"}
)
_TOKEN = re.compile(r"\b(?:tg|whsec)_[A-Za-z0-9+/=_-]{16,}")
_ADDRESS = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]*)://(?:[^\s/?#@]*@)?([^\s?#]*)(\?[^\s#]*)?(#\S*)?"
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Change(NamedTuple):
    """One change: by which key and through which door, and the thing before and after it."""

    id: str
    at: datetime
    key_id: str
    key_name: str
    via: str
    request_id: str | None
    action: str
    kind: str
    ref: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


async def note_change(
    tx: Tx,
    who: Key,
    *,
    via: str,
    action: str,
    kind: str,
    ref: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: datetime,
    request_id: str | None = None,
) -> None:
    """Write down a change in the transaction that makes it.

    `before` and `after` are what may be shown of the thing; None where there was, or is, none.
    Secrets and what opens an address are left out of them, and what is very long is cut.
    """
    row = {
        "id": uuid7(),
        "at": now,
        "key_id": who.id,
        "key_name": _text(who.name),
        "via": via,
        "request_id": request_id,
        "action": action,
        "kind": kind,
        "ref": _UNSTORABLE.sub("", ref)[:LONGEST_TEXT],
        "before": recorded(before),
        "after": recorded(after),
    }
    await tx.run(insert(ManagementChange), [row])


async def list_changes(
    tx: Tx,
    kind: str | None,
    ref: str | None,
    key_id: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[Change]:
    """Changes, newest first, that come after a place in that order; `start <= at < end`."""
    table = ManagementChange
    where: list[ColumnElement[bool]] = []
    named = ((table.kind, kind), (table.ref, ref), (table.key_id, key_id))
    where += [column == value for column, value in named if value is not None]
    if start is not None:
        where.append(table.at >= start)
    if end is not None:
        where.append(table.at < end)
    if after is not None:
        at, change_id = after
        where.append(or_(table.at < at, and_(table.at == at, table.id < change_id)))
    columns = [getattr(table, name) for name in Change._fields]
    query = select(*columns).where(*where).order_by(table.at.desc(), table.id.desc())
    return [Change(*row) for row in await tx.fetch(query.limit(limit))]


# ---- what enters the log ----------------------------------------------------------------------


def recorded(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A state as it is kept: JSON, without secrets, at most `LARGEST` bytes of it."""
    if state is None:
        return None
    kept: dict[str, Any] = _plain(state, DEEPEST)
    if _size(kept) <= LARGEST:
        return kept
    cut = []
    for name in sorted(kept, key=lambda name: _size(kept[name]), reverse=True):
        if _size(kept) <= LARGEST:
            break
        kept[name] = HIDDEN
        cut.append(name)
    return kept if _size(kept) <= LARGEST else {"cut": cut[:MOST_ITEMS]}


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, str):
        return _text(value)
    if depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        named = [(_text(str(name)), one) for name, one in list(value.items())[:MOST_ITEMS]]
        return {
            name: HIDDEN if name.lower() in SECRETS else _plain(one, depth - 1)
            for name, one in named
        }
    if isinstance(value, Sequence | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else list(value)
        shown = [_plain(one, depth - 1) for one in items[:MOST_ITEMS]]
        return shown + [HIDDEN] * (len(items) > MOST_ITEMS)
    return _text(str(value))


def _text(value: str) -> str:
    text = _UNSTORABLE.sub("", value)
    text = _TOKEN.sub(HIDDEN, text)
    text = _ADDRESS.sub(r"\1://\2", text)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + HIDDEN
