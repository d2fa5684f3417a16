"""Correct an event by a form: what it says, and the order that carries it out."""

from collections.abc import Mapping
from typing import Any

from app.core.counters import INDEX, SECONDS
from app.core.errors import InvalidInput
from app.dashboard.deps import Viewer
from app.dashboard.filled import whole_in
from app.ingest.correct import Order
from app.ingest.correct_fields import Amount, Edit
from app.ingest.correct_shapes import CorrectIn, VoidIn, body_hash
from app.usage.corrections import AMOUNT, CORRECT, VOID

PLAIN = ("provider", "model")
BEFORE = "was_"
"""What stood in a field when the form was made is sent with it: what is the same is not said."""


def correction_said(values: Mapping[str, str]) -> dict[str, Any]:
    """The body of a correction: the fields that were changed, or an amount to add to the cost.

    Counters stand in `usage_...`; if one of them is another, all are said, for usage is replaced
    whole. A stated cost is in `cost_usd`, an amount in `amount_usd`.

    Raises:
        InvalidInput: a counter that is no number.
    """
    said: dict[str, Any] = {"reason": values.get("reason", "").strip()}
    if amount := values.get("amount_usd", "").strip():
        return said | {"cost_usd": amount.replace("$", "").replace(",", "")}
    fields: dict[str, Any] = {
        name: values[name].strip()
        for name in PLAIN
        if name in values and values[name].strip() != values.get(BEFORE + name, "")
    }
    if cost := values.get("cost_usd", "").strip():
        fields["cost_usd"] = cost.replace("$", "").replace(",", "")
    counters = [name for name in INDEX if f"usage_{name}" in values]
    if any(
        values[f"usage_{name}"].strip() != values.get(f"{BEFORE}usage_{name}", "")
        for name in counters
    ):
        found = {name: _counted(values[f"usage_{name}"], name) for name in counters}
        fields["usage"] = {name: value for name, value in found.items() if value is not None}
    return said | {"fields": fields}


def _counted(text: str, name: str) -> int | float | None:
    pointer = f"/usage_{name}"
    if name not in SECONDS:
        return whole_in(text, pointer)
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise InvalidInput.at(pointer, "a number of seconds is expected") from None


def order_of(
    viewer: Viewer,
    user_id: str,
    event_id: str,
    edit: Edit | Amount | None,
    body: VoidIn | CorrectIn,
) -> Order:
    """What the viewer asks to be done to an event; without an `edit` it is taken back."""
    kind = VOID if edit is None else AMOUNT if isinstance(edit, Amount) else CORRECT
    return Order(user_id, event_id, edit, body.reason, viewer.key.id, body_hash(kind, body), None)
