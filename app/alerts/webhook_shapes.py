"""Webhooks and deliveries as they are read and shown."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.access.api import Body, Name, printable
from app.alerts.deliveries import Attempted, Underway
from app.alerts.guard import LONGEST_URL
from app.alerts.messages import scope_out
from app.alerts.webhooks import Hook

WEEK_S = 7 * 24 * 3600
DAY_S = 24 * 3600
LONGEST_SHOWN = 15
"""A longer step of a path is taken for a token, and not shown."""

Kind = Literal["webhook", "apprise"]
EventType = Literal[
    "alert.usage_warning",
    "alert.limit_reached",
    "alert.limit_forecast",
    "alert.limit_recovered",
    "alert.usage_anomaly",
]
State = Literal["pending", "delivered", "dead"]
Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
Description = Annotated[str, StringConstraints(max_length=256), AfterValidator(printable)]


class WebhookScope(Body):
    """Whose alerts: exactly one of these."""

    user_id: Name | None = None
    team_id: Name | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def one(self) -> "WebhookScope":
        """Exactly one is given."""
        if sum(value is not None for value in dict(self).values()) != 1:
            raise PydanticCustomError("scope", "exactly one of user_id, team_id and all: true")
        return self

    @property
    def key(self) -> str:
        """The scope as alerts are stored under."""
        if self.user_id is not None:
            return f"user:{self.user_id}"
        return "all" if self.team_id is None else f"team:{self.team_id}"


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise PydanticCustomError("event_types", "each type once")
    return values


class WebhookPatch(Body):
    """What shall change of a webhook."""

    url: Url = ""
    event_types: Annotated[list[EventType], Field(max_length=5), AfterValidator(_distinct)] = Field(
        default_factory=list, description="Which alerts; an empty list is all of them."
    )
    scope: WebhookScope = Field(default_factory=lambda: WebhookScope(all=True))
    enabled: bool = True
    description: Description = ""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})


class WebhookIn(WebhookPatch):
    """A webhook. `kind: webhook` is a signed POST to an https URL, `apprise` a people's channel."""

    url: Url
    kind: Kind = "webhook"

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://hooks.example.com/tollgate",
                    "event_types": ["alert.limit_reached"],
                    "scope": {"user_id": "alice"},
                    "description": "pages the team",
                }
            ]
        }
    )


class OverlapIn(Body):
    """How long the present secret goes on signing beside the new one."""

    overlap_s: Annotated[int, Field(ge=0, le=WEEK_S)] = DAY_S

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": DAY_S}]})


_WEBHOOK: dict[str, Any] = {
    "id": "wh_4f0c9a1b2c3d4e5f",
    "kind": "webhook",
    "url": "https://hooks.example.com/tollgate",
    "event_types": ["alert.limit_reached"],
    "scope": {"user_id": "alice"},
    "enabled": True,
    "disabled_reason": None,
    "description": "pages the team",
    "created_at": "2026-11-20T12:30:00Z",
}


class WebhookShown(BaseModel):
    """What may be known of a webhook: never its secret, and no token of its URL."""

    id: str
    kind: Kind
    url: str
    event_types: list[str]
    scope: dict[str, str | bool]
    enabled: bool
    disabled_reason: str | None
    description: str
    created_at: datetime


class WebhookOut(WebhookShown):
    """A webhook as it is listed."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK]})


class NewSecretOut(WebhookShown):
    """A webhook with the secret it has just got, shown this once; null for people's channels."""

    secret: str | None

    model_config = ConfigDict(
        json_schema_extra={"examples": [_WEBHOOK | {"secret": "whsec_k3V9…"}]}
    )


class TestOut(BaseModel):
    """What the receiver said to a test message."""

    __test__ = False  # pytest would take it for tests

    delivered: bool
    message_id: str
    status: int | None
    response: str | None
    error: str | None
    took_ms: int

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "delivered": False,
                    "message_id": "msg_019a9f5e-0000-7000-8000-000000000000",
                    "status": 500,
                    "response": "out of order",
                    "error": "answered 500",
                    "took_ms": 41,
                }
            ]
        }
    )


class AttemptOut(BaseModel):
    """One attempt."""

    attempt: int
    attempted_at: datetime
    took_ms: int
    status: int | None
    response: str | None
    error: str | None


class DeliveryOut(BaseModel):
    """A message on its way; `attempts` are the last twenty of `attempt_count`."""

    id: str
    message_id: str
    webhook_id: str
    created_at: datetime
    state: State
    next_attempt_at: datetime | None
    attempt_count: int
    last_status: int | None
    last_response: str | None
    last_error: str | None
    delivered_at: datetime | None
    attempts: list[AttemptOut]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "dlv_019a9f5e-0000-7000-8000-000000000001",
                    "message_id": "msg_019a9f5e-0000-7000-8000-000000000000",
                    "webhook_id": "wh_4f0c9a1b2c3d4e5f",
                    "created_at": "2026-11-20T12:30:00Z",
                    "state": "pending",
                    "next_attempt_at": "2026-11-20T12:30:06Z",
                    "attempt_count": 1,
                    "last_status": 500,
                    "last_response": "out of order",
                    "last_error": "answered 500",
                    "delivered_at": None,
                    "attempts": [
                        {
                            "attempt": 1,
                            "attempted_at": "2026-11-20T12:30:01Z",
                            "took_ms": 41,
                            "status": 500,
                            "response": "out of order",
                            "error": "answered 500",
                        }
                    ],
                }
            ]
        }
    )


def shown_url(kind: str, url: str) -> str:
    """A URL without what opens it: no query, no long step of a path; of a channel the service."""
    parts = urlsplit(url)
    if kind == "apprise":
        return f"{parts.scheme}://…"
    steps = ("…" if len(step) > LONGEST_SHOWN else step for step in parts.path.split("/"))
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{'/'.join(steps)}{query}"


def facts_of(hook: Hook) -> dict[str, Any]:
    """What is shown of a webhook."""
    facts = {name: getattr(hook, name) for name in _WEBHOOK if name not in ("url", "scope")}
    return facts | {"url": shown_url(hook.kind, hook.url), "scope": scope_out(hook.scope_key)}


def delivery_out(delivery: Underway, attempts: list[Attempted]) -> DeliveryOut:
    """A delivery for the wire."""
    facts = delivery._asdict()
    made = [AttemptOut(**one._asdict()) for one in attempts]
    return DeliveryOut(**facts | {"attempt_count": delivery.attempts, "attempts": made})
