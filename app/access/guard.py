"""What a request shows, and whether that is enough."""

import base64
import binascii
from collections.abc import Mapping

from app.access.keys import Key
from app.core.errors import Forbidden, Unauthenticated

MAX_TOKEN = 512


def token_from(authorization: str | None, x_api_key: str | None) -> str:
    """The key in `Authorization: Bearer`, in `X-API-Key`, or as the password of `Basic`.

    Without a password it is the user name, as Stripe's keys are sent.

    Raises:
        Unauthenticated: none of them is there, or it is not a key.
    """
    token = x_api_key or ""
    if authorization:
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() == "bearer":
            token = rest.strip()
        elif scheme.lower() == "basic":
            token = _password(rest.strip())
    if not token:
        raise Unauthenticated("send the key as `Authorization: Bearer <key>`")
    if len(token) > MAX_TOKEN:
        raise Unauthenticated("that is not a key")
    return token


def token_of(headers: Mapping[bytes, bytes]) -> str:
    """As `token_from`, of headers as ASGI has them."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7] == b"Bearer " and len(authorization) < 99:
        return authorization[7:].strip().decode("latin-1") or token_from(None, None)
    given = None if authorization is None else authorization.decode("latin-1")
    other = headers.get(b"x-api-key")
    return token_from(given, None if other is None else other.decode("latin-1"))


def _password(encoded: str) -> str:
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return password or name


def require(key: Key, scope: str) -> None:
    """Refuse a key without the scope, and name the scope."""
    if not key.may(scope):
        raise Forbidden(f"this needs a key with the scope `{scope}`", scope=scope)


def require_user(key: Key, user_id: str | None) -> None:
    """Refuse a key that is bound to another user (or, with None, to any user)."""
    if key.user_id is not None and key.user_id != user_id:
        raise Forbidden("this key is bound to another user")
