"""How a message is signed, as Standard Webhooks has it. Pure, but for the making of secrets."""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256

from app.core.clock import EPOCH

PREFIX = "whsec_"


def new_secret() -> str:
    """192 random bits, as receivers' libraries take them: `whsec_` and base64."""
    return PREFIX + b64encode(secrets.token_bytes(24)).decode()


def secrets_in_force(
    secret: str | None, older: Mapping[str, str], now: datetime
) -> tuple[str, ...]:
    """The present secret first, then the older ones whose overlap still runs."""
    still = (one for one, until in older.items() if datetime.fromisoformat(until) > now)
    return (secret, *still) if secret is not None else ()


def signed_headers(
    message_id: str, body: bytes, keys: Iterable[str], now: datetime
) -> dict[str, str]:
    """The three headers of a signed message; one signature for each secret."""
    sent_s = int((now - EPOCH).total_seconds())
    content = f"{message_id}.{sent_s}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(sent_s),
        "webhook-signature": " ".join(f"v1,{_signature(key, content)}" for key in keys),
    }


def _signature(secret: str, content: bytes) -> str:
    key = b64decode(secret.removeprefix(PREFIX))
    return b64encode(hmac.digest(key, content, sha256)).decode()
