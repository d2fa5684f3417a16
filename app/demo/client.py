"""Ask the service over HTTP, and read of its answers what the tour shows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

from app.demo.child import Service

T = TypeVar("T")
Amount = str | int
"""Money is a string, a count a number."""


class UnexpectedError(Exception):
    """The service answered something else than the tour is about."""


class Client:
    """One connection with the admin key; `proxies` of the environment are not for loopback."""

    def __init__(self, service: Service) -> None:
        headers = {"Authorization": f"Bearer {service.admin_key}"}
        self._http = httpx.Client(
            base_url=service.address, headers=headers, trust_env=False, timeout=60
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, kind: type[T], params: Mapping[str, Any] | None = None) -> T:
        """The answer to a GET."""
        return self._read(self._http.get(path, params=params), kind)

    def post(
        self, path: str, kind: type[T], body: object, params: Mapping[str, Any] | None = None
    ) -> T:
        """The answer to a POST of this body."""
        content = msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        return self._read(
            self._http.post(path, content=content, headers=headers, params=params), kind
        )

    def _read(self, answer: httpx.Response, kind: type[T]) -> T:
        asked = f"{answer.request.method} {answer.request.url.path}"
        if not answer.is_success:
            raise UnexpectedError(f"{asked} answered {answer.status_code}: {answer.text[:400]}")
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError as error:
            raise UnexpectedError(f"{asked} answered in another shape: {error}") from error


class Created(Struct):
    """Something that was made."""

    id: str


class Batch(Struct):
    """What became of many events."""

    recorded: int
    duplicates: int
    rejected: int
    cost_usd: str


class Receipt(Struct):
    """What became of one event."""

    status: str
    cost_usd: str | None
    usage_status: str


class LimitState(Struct):
    """Where one limit stands."""

    name: str
    metric: str
    window: str
    limit: Amount | None
    used: Amount
    remaining: Amount | None
    percent_used: float
    resets_at: datetime | None
    action: str


class Check(Struct):
    """Whether a call may be made."""

    allowed: bool
    message: str
    estimated_cost_usd: str | None
    limits: list[LimitState]


class ModelUsage(Struct):
    """What was used of one model."""

    calls: int
    tokens: int
    cost_usd: str | None


class ProviderUsage(Struct):
    """What was used of one provider."""

    models: dict[str, ModelUsage]


class Period(Struct):
    """A billing period."""

    key: str


class Used(Struct):
    """What a user used in one billing period."""

    billing_period: Period
    total_calls: int
    total_tokens: int
    total_cost_usd: str
    avg_latency_ms: float | None
    error_rate: float
    providers: dict[str, ProviderUsage]


class Usage(Used):
    """The same, and where the user stands now."""

    usage_status: str
    limits: list[LimitState]


class Trends(Struct):
    """Billing periods, oldest first."""

    items: list[Used]


class Alert(Struct):
    """One threshold that was passed."""

    limit_id: str
    severity: str
    threshold: int
    message: str
    created_at: datetime
    billing_period: str


class Alerts(Struct):
    """A user's alerts, newest first."""

    items: list[Alert]


class Line(Struct):
    """One kind of unit in a price."""

    unit: str
    quantity: float
    usd_per_block: str
    block: int
    amount_usd: str


class Estimate(Struct):
    """What a call would cost."""

    cost_usd: str | None
    cost_status: str
    lines: list[Line]


class Identity(Struct):
    """One thing that must hold."""

    name: str
    holds: bool
    compared: int


class Audit(Struct):
    """Whether log, totals, limits and alerts agree."""

    consistent: bool
    identities: list[Identity]
