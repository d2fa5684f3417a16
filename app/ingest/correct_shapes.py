"""What a correction says, read as exactly as an event, and what it is answered with."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from pydantic import ConfigDict

from app.core.errors import InvalidInput
from app.core.money import from_usd
from app.ingest.calls import calls_from
from app.ingest.correct_fields import Amount, Edit
from app.ingest.decode import EventIn, decode_one
from app.usage.api import EVENT, EventOut
from app.usage.history import CORRECTION, CorrectionOut
from app.web.strict import check_name, read_json

CORRECTED: dict[str, Any] = EVENT | {
    "usage": {"input_tokens": 400, "output_tokens": 100},
    "cost_usd": "0.00012",
    "corrections": [CORRECTION],
    "voided_ids": [],
}
CORRECT_EXAMPLES: list[dict[str, Any]] = [
    {
        "fields": {"usage": {"input_tokens": 400, "output_tokens": 100}},
        "reason": "the gateway counted the prompt of another call",
    },
    {"cost_usd": "-0.00024", "reason": "credit for an outage"},
]
Reason = Annotated[str, Meta(min_length=1, max_length=256)]
FIXED = {
    "id": "the id of an event stays; void it and send another one",
    "user_id": "an event stays its user's; void it and send one for the other user",
    "hold_id": "a hold ends once, by the event that named it first",
}
"""What no correction changes, and why."""
_NEEDED = ("timestamp", "usage", "response", "api")


class CorrectedOut(EventOut):
    """An event as it stands now, with every correction of it, oldest first.

    `voided_ids` are the rows of this event that count no more: several where it told of several
    calls.
    """

    corrections: list[CorrectionOut]  # type: ignore[assignment]
    voided_ids: list[str]

    model_config = ConfigDict(json_schema_extra={"example": CORRECTED})


class VoidIn(Struct, forbid_unknown_fields=True):
    """Why an event is taken back."""

    reason: Reason


class NamesIn(Struct, forbid_unknown_fields=True):
    """Which wrapped calls are meant; what is not given may be anything."""

    provider: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    task_type: str | UnsetType | None = UNSET
    endpoint: str | UnsetType | None = UNSET
    status_code: Annotated[int, Meta(ge=100, le=599)] | UnsetType = UNSET
    team_id: str | UnsetType | None = UNSET
    api_key_id: str | UnsetType | None = UNSET
    backend: str | UnsetType | None = UNSET
    pool: str | UnsetType | None = UNSET


class CorrectIn(Struct, forbid_unknown_fields=True):
    """What an event shall be instead, or by which amount its cost was wrong."""

    reason: Reason
    fields: dict[str, msgspec.Raw] | UnsetType = UNSET
    cost_usd: Annotated[str, Meta(max_length=41)] | UnsetType = UNSET
    calls: Literal[-1, 0] = 0
    names: NamesIn | UnsetType = UNSET


_void, _correct = msgspec.json.Decoder(VoidIn), msgspec.json.Decoder(CorrectIn)
_canonical = msgspec.json.Encoder(order="deterministic").encode


def body_hash(kind: str, body: Struct) -> int:
    """What two sendings of the same correction have in common."""
    digest = blake2b(kind.encode() + b"\0" + _canonical(body), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def void_from(body: bytes) -> VoidIn:
    """Read a void.

    Raises:
        InvalidInput: `errors` names the place.
    """
    found = read_json(_void, body)
    check_name(found.reason, "/reason", 1024)
    return found


def correction_from(body: bytes, user_id: str, now: datetime) -> tuple[CorrectIn, Edit | Amount]:
    """Read a correction: the fields to replace, or the amount to add.

    Raises:
        InvalidInput, OutOfWindow: `errors` names the place.
    """
    found = read_json(_correct, body)
    check_name(found.reason, "/reason", 1024)
    if found.fields is UNSET:
        return found, _amount(found)
    for name in ("cost_usd", "names"):
        if getattr(found, name) is not UNSET:
            raise InvalidInput.at(f"/{name}", "give `fields` or an amount, not both")
    if found.calls:
        raise InvalidInput.at("/calls", "give `fields` or an amount, not both")
    # for the hash: the same fields, however they were spaced
    edit, same = _edit(found.fields, user_id, now)
    return CorrectIn(found.reason, same), edit


def _amount(found: CorrectIn) -> Amount:
    if found.cost_usd is UNSET:
        raise InvalidInput.at("/fields", "this field is required, or `cost_usd` for an amount")
    try:
        cost = from_usd(found.cost_usd)
    except ValueError as error:
        raise InvalidInput.at("/cost_usd", str(error)) from None
    if not cost and not found.calls:
        raise InvalidInput.at("/cost_usd", "an amount that is not zero is expected")
    names: dict[str, Any] = {}
    if found.names is not UNSET:
        given = {name: getattr(found.names, name) for name in NamesIn.__struct_fields__}
        names = {name: value for name, value in given.items() if value is not UNSET}
    for name in ("provider", "model"):
        if names.get(name, "") is None:
            names[name] = ""
    return Amount(cost, found.calls, names)


def _edit(
    fields: Mapping[str, msgspec.Raw], user_id: str, now: datetime
) -> tuple[Edit, dict[str, msgspec.Raw]]:
    if not fields:
        raise InvalidInput.at("/fields", "name at least one field")
    for name, why in FIXED.items():
        if name in fields:
            raise InvalidInput.at(f"/fields/{name}", why)
    null = {name for name, value in fields.items() if bytes(value).strip() == b"null"}
    for name in _NEEDED:
        if name in null:
            raise InvalidInput.at(f"/fields/{name}", "must not be null")
    if "api" in fields and "response" not in fields:
        raise InvalidInput.at("/fields/api", "says how to read a `response`; there is none")
    sent = {name: value for name, value in fields.items() if name not in null}
    unknown = null - set(EventIn.__struct_fields__)
    for name in sorted(unknown):
        raise InvalidInput.at(f"/fields/{name[:64]}", "unknown field")
    try:
        event, _ = decode_one(msgspec.json.encode({**sent, "user_id": user_id}))
    except InvalidInput as error:
        raise InvalidInput.at(
            f"/fields{error.extra['errors'][0]['pointer']}", error.detail
        ) from None
    calls = calls_from(event, now, None, plain=False, base="/fields")
    if len(calls) > 1:
        detail = "bills several calls; each row of the event is corrected under its own id"
        raise InvalidInput.at("/fields/response", detail)
    return Edit(frozenset(fields), calls[0]), {
        name: msgspec.Raw(_canonical(msgspec.json.decode(value))) for name, value in fields.items()
    }
