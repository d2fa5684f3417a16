"""What a message says: the alerts of one scope that one commit raised. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from app.alerts.notices import TYPES, Notice, shown, threshold_out
from app.core.clock import rfc3339

EVENT_TYPES = tuple(f"alert.{name}" for name in TYPES)
TEST_TYPE = "webhook.test"
_FIELDS = {"user": "user_id", "plan": "plan_id", "team": "team_id", "key": "api_key_id"}


class Raised(NamedTuple):
    """An alert that was not there before, and what it says."""

    id: str
    notice: Notice


class Composed(NamedTuple):
    """A message as it is stored. `event_types` are those of its alerts, each once."""

    type: str
    scope_key: str
    event_types: frozenset[str]
    payload: str


class Reader(NamedTuple):
    """What decides whether a webhook gets a message."""

    id: str
    event_types: frozenset[str]
    scope_key: str

    def wants(self, message: Composed) -> bool:
        """Whether the message is about its scope and has an alert of a type that it asked for."""
        of_scope = self.scope_key in ("all", message.scope_key)
        return of_scope and (not self.event_types or bool(self.event_types & message.event_types))


def composed(raised: Iterable[Raised], now: datetime) -> list[Composed]:
    """One message per scope. Its type is that of its highest threshold."""
    by_scope: dict[str, list[Raised]] = {}
    for one in raised:
        by_scope.setdefault(one.notice.scope_key, []).append(one)
    return [_message(scope_key, found, now) for scope_key, found in sorted(by_scope.items())]


def _message(scope_key: str, found: Sequence[Raised], now: datetime) -> Composed:
    types = frozenset(event_type(one.notice) for one in found)
    highest = max(found, key=lambda one: one.notice.threshold)
    data = {"scope": scope_out(scope_key), "alerts": [_alert(one, now) for one in found]}
    kind = event_type(highest.notice)
    return Composed(kind, scope_key, types, payload_of(kind, now, data))


def event_type(notice: Notice) -> str:
    """The type of alert, as messages name it."""
    return f"alert.{notice.type}"


def payload_of(kind: str, now: datetime, data: Mapping[str, Any]) -> str:
    """The body of a message: its type, when it was made, and what it is about."""
    body = {"type": kind, "timestamp": rfc3339(now), "data": data}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def scope_out(scope_key: str) -> dict[str, str | bool]:
    """A scope for the wire, as limits show theirs."""
    kind, _, of = scope_key.partition(":")
    return {"all": True} if scope_key == "all" else {_FIELDS[kind]: of}


def _alert(one: Raised, now: datetime) -> dict[str, Any]:
    notice = one.notice
    return {
        "id": one.id,
        "limit_id": notice.limit_id,
        "limit_name": notice.limit_name,
        "metric": notice.metric,
        "used": shown(notice.metric, notice.used),
        "limit": None if notice.limit is None else shown(notice.metric, notice.limit),
        "threshold": threshold_out(notice.threshold),
        "type": notice.type,
        "severity": notice.severity,
        "title": notice.title,
        "message": notice.message,
        "window_start": rfc3339(notice.window_start),
        "billing_period": notice.billing_period,
        "created_at": rfc3339(now),
        **notice.more,
    }


def alert_ids(payload: str) -> list[str]:
    """The ids of the alerts that a stored message tells of."""
    return [alert["id"] for alert in json.loads(payload)["data"].get("alerts", ())]


def spoken(payload: str) -> tuple[str, str]:
    """Title and text of a stored message, for channels that people read."""
    data = json.loads(payload)["data"]
    alerts = sorted(data.get("alerts", ()), key=lambda alert: -(alert["threshold"] or 0))
    if not alerts:
        return "Tollgate", str(data.get("text", ""))
    whose = ", ".join(str(of) for of in data["scope"].values() if of is not True) or "everyone"
    lines = [f"{alert['title']}: {alert['message']}" for alert in alerts]
    return f"{alerts[0]['title']} ({whose})", "\n".join(lines)
