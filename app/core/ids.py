"""Identifiers: time-ordered where rows pile up, random where they must not be guessed."""

import os
import secrets

from app.core.clock import unix_ms

_last_ms = 0
_sequence = 0


def uuid7() -> str:
    """A new UUIDv7 (RFC 9562): time-ordered, and increasing within this process."""
    global _last_ms, _sequence
    now_ms = unix_ms()
    if now_ms > _last_ms:
        _last_ms, _sequence = now_ms, int.from_bytes(os.urandom(2), "big") & 0x7FF
    else:
        _sequence += 1
        if _sequence > 0xFFF:
            _last_ms, _sequence = _last_ms + 1, 0
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = _last_ms << 80 | 0x7000_0000_0000_0000_0000 | _sequence << 64 | 1 << 63 | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def short_id(prefix: str) -> str:
    """A random identifier for something people create by hand, such as `lim_4f0c…`."""
    return f"{prefix}_{secrets.token_hex(8)}"
