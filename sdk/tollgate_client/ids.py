"""Ids that sort by time: the client makes them, so that sending again is never counting again."""

import os
import time
from uuid import UUID


def uuid7() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    moment = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = (moment & (1 << 48) - 1) << 80 | 7 << 76 | (noise >> 64 & 0xFFF) << 64
    value |= 0b10 << 62 | noise & (1 << 62) - 1
    return str(UUID(int=value))
