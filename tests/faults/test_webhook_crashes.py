"""P9: killed between a crossing and its delivery, the service loses no message."""

import time

import httpx
import pytest

from tests.faults import service as faults
from tests.faults.service import HEADERS, Service, event, post, serving
from tests.receivers import Receiver, receiving, verified

pytestmark = pytest.mark.fault

USERS = [f"user-{number}" for number in range(12)]
WITHIN_S = 100.0
"""What the killed process had claimed is due again after half a minute, its lease after one."""


def made(service: Service, path: str, body: dict[str, object]) -> dict[str, str]:
    answer = httpx.post(
        f"{service.base}{path}", json=body, headers=HEADERS, timeout=12, trust_env=False
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


def told_of(receiver: Receiver, secret: str) -> dict[str, set[str]]:
    """The ids of the messages about each user, of those whose signature is right."""
    found: dict[str, set[str]] = {}
    for got in list(receiver.got):
        user = verified(secret, got)["data"]["scope"]["user_id"]
        found.setdefault(user, set()).add(got.id)
    return found


def test_killed_between_crossing_and_delivery_every_message_arrives(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(database: str, **more: str) -> dict[str, str]:
        more |= {"TOLLGATE_WEBHOOKS_ALLOW_PRIVATE": "true", "TOLLGATE_WEBHOOKS_ALLOW_HTTP": "true"}
        return real(database, **more)

    real = faults.environment
    monkeypatch.setattr(faults, "environment", opened)
    with serving(url) as (service,), receiving() as receiver:
        secret = made(service, "/v1/webhooks", {"url": receiver.url})["secret"]
        limit = {"name": "one", "scope": {"all": True}, "metric": "calls", "window": "day"}
        made(service, "/v1/limits", limit | {"amount": None})
        for user in USERS:
            own = limit | {"scope": {"user_id": user}, "amount": 1}
            made(service, "/v1/limits", own)
        for user in USERS:
            assert post(service, event("e", user)).status_code == 201
            if user in USERS[::4]:
                service.kill()
                service.start()
        service.kill()
        service.start()
        end = time.monotonic() + WITHIN_S
        while len(told_of(receiver, secret)) < len(USERS) and time.monotonic() < end:
            time.sleep(0.2)
        found = told_of(receiver, secret)
        assert sorted(found) == sorted(USERS)
        assert all(len(ids) == 1 for ids in found.values())  # perhaps twice, never as two messages
        assert "Traceback" not in service.output()
