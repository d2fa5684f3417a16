"""Identifiers: time-ordered where rows pile up, random where they must not be guessed."""

import os
import random
import secrets

from app.core.clock import unix_ms

_last_ms = 0
_sequence = 0
_random = random.Random(os.urandom(32))


def uuid7() -> str:
    """A new UUIDv7 (RFC 9562): time-ordered, increasing within this process, not a secret."""
    global _last_ms, _sequence
    now_ms = unix_ms()
    if now_ms > _last_ms:
        _last_ms, _sequence = now_ms, _random.getrandbits(11)
    else:
        _sequence += 1
        if _sequence > 0xFFF:
            _last_ms, _sequence = _last_ms + 1, 0
    tail = _random.getrandbits(62)
    value = _last_ms << 80 | 0x7000_0000_0000_0000_0000 | _sequence << 64 | 1 << 63 | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def short_id(prefix: str) -> str:
    """A random identifier for something people create by hand, such as `lim_4f0c…`."""
    return f"{prefix}_{secrets.token_hex(8)}"
