"""What comes after an attempt, and how a message is signed."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.alerts.schedule import DELAYS_S, Outcome, asked_wait, verdict_on
from app.alerts.signing import new_secret, secrets_in_force, signed_headers
from app.alerts.webhook_shapes import shown_url

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
FAILED = Outcome(5, 500, "no", "answered 500")


def test_the_waits_grow_over_about_a_day_and_then_it_is_given_up() -> None:
    waits = []
    for failures in range(len(DELAYS_S)):
        found = verdict_on(FAILED, failures, NOW, 0.5)
        assert found.state == "pending"
        assert found.next_attempt_at is not None
        waits.append(found.next_attempt_at - NOW)
    assert waits == sorted(waits)
    assert timedelta(hours=22) < sum(waits, timedelta()) < timedelta(hours=26)
    assert verdict_on(FAILED, len(DELAYS_S), NOW, 0.5) == ("dead", None, False)


@given(st.integers(0, len(DELAYS_S) - 1), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_spread_by_a_tenth_at_most(failures: int, chance: float) -> None:
    found = verdict_on(FAILED, failures, NOW, chance).next_attempt_at
    assert found is not None
    exact = timedelta(seconds=DELAYS_S[failures])
    assert 0.9 * exact <= found - NOW <= 1.1 * exact


def test_success_ends_it_and_gone_ends_the_webhook() -> None:
    assert verdict_on(Outcome(5, 204), 3, NOW, 0.5) == ("delivered", None, False)
    gone = verdict_on(Outcome(5, 410, "", "answered 410"), 0, NOW, 0.5)
    assert gone == ("dead", None, True)


@pytest.mark.parametrize(
    ("status", "asked", "wait_s"),
    [
        (429, "90", 90),
        (503, "90", 90),
        (503, "1", 5),  # never sooner than without it
        (503, "9" * 30, 8 * 3600),  # within bounds
        (503, "Fri, 20 Nov 2026 12:35:00 GMT", 300),
        (503, "Thu, 19 Nov 2026 12:35:00 GMT", 5),
        (503, "soon", 5),
        (503, "-5", 5),
        (500, "90", 5),  # not one that asks
    ],
)
def test_a_receiver_may_ask_for_time(status: int, asked: str, wait_s: int) -> None:
    found = verdict_on(Outcome(5, status, "", "x", asked), 0, NOW, 0.5).next_attempt_at
    assert found == NOW + timedelta(seconds=wait_s)


@given(st.text(max_size=40))
def test_no_retry_after_breaks_the_schedule(text: str) -> None:
    assert asked_wait(text, NOW) >= timedelta(0)


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4))
def test_the_reference_library_accepts_every_signature(data: dict[str, str]) -> None:
    secret, older, body = new_secret(), new_secret(), json.dumps(data, ensure_ascii=False).encode()
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 24
    headers = signed_headers("msg_1", body, (secret, older), datetime.now(UTC))
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert Webhook(secret).verify(body, headers) == data
    assert Webhook(older).verify(body, headers) == data
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_an_older_secret_signs_until_its_overlap_has_run() -> None:
    until = NOW + timedelta(hours=1)
    older = {"whsec_b": until.isoformat()}
    assert secrets_in_force("whsec_a", older, NOW) == ("whsec_a", "whsec_b")
    assert secrets_in_force("whsec_a", older, until) == ("whsec_a",)
    assert secrets_in_force(None, {}, NOW) == ()


@pytest.mark.parametrize(
    ("kind", "url", "shown"),
    [
        ("webhook", "https://h.example:8443/tollgate", "https://h.example:8443/tollgate"),
        (
            "webhook",
            "https://h.example/services/TIiajkdnlazkcOXrIdevi7FQ/x",
            "https://h.example/services/…/x",
        ),
        ("webhook", "https://h.example/x?token=secret", "https://h.example/x?…"),
        ("apprise", "slack://TokenA12/TokenB12/TokenC/#general", "slack://…"),
        ("apprise", "mailto://user:word@example.com", "mailto://…"),
    ],
)
def test_a_url_is_shown_without_what_opens_it(kind: str, url: str, shown: str) -> None:
    assert shown_url(kind, url) == shown
