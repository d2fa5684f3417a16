"""The requests the benchmarks send: plausible model calls, cheap to make in any number."""

import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

USERS = 1_000
BATCH = 1_000
TEMPLATES = 4_096
BATCH_TEMPLATES = 16

MakeBody = Callable[[], bytes]


class Model(NamedTuple):
    provider: str
    name: str
    endpoint: str
    writes_cache: bool
    reasons: bool


MODELS = (
    Model("openai", "gpt-4o-mini", "/v1/chat/completions", False, False),
    Model("openai", "gpt-4.1", "/v1/chat/completions", False, False),
    Model("openai", "gpt-5", "/v1/responses", False, True),
    Model("anthropic", "claude-sonnet-4-5", "/v1/messages", True, False),
    Model("anthropic", "claude-haiku-4-5", "/v1/messages", True, False),
    Model("google", "gemini-2.5-flash", "/v1beta/models", False, True),
)


def user(number: int) -> str:
    return f"user-{number:04d}"


def id_maker() -> MakeBody:
    """Ids shaped like UUIDv7: unique, and ordered by the time they were made."""
    randbits, made = random.SystemRandom().getrandbits(60), 0

    def next_id() -> bytes:
        nonlocal made
        made += 1
        unix_ms = time.time_ns() // 1_000_000
        tail = (randbits + made) & 0xFFF_FFFF_FFFF_FFFF
        return b"%08x-%04x-7%03x-8%03x-%012x" % (
            unix_ms >> 16,
            unix_ms & 0xFFFF,
            made & 0xFFF,
            tail >> 48,
            tail & 0xFFFF_FFFF_FFFF,
        )

    return next_id


def _usage(pick: random.Random, model: Model) -> dict[str, int]:
    prompt = pick.randint(200, 12_000)
    usage = {"input_tokens": prompt, "output_tokens": pick.randint(20, 1_500)}
    if pick.random() < 0.6:
        usage["cache_read_tokens"] = prompt // 2
    if model.writes_cache and pick.random() < 0.5:
        usage["cache_write_tokens"] = usage["cache_write_5m_tokens"] = prompt // 4
    if model.reasons:
        usage["output_reasoning_tokens"] = usage["output_tokens"] // 2
    return usage


def _event(pick: random.Random, now: datetime) -> bytes:
    model = pick.choice(MODELS)
    happened_at = now - timedelta(milliseconds=pick.randint(0, 60_000))
    event = {
        "id": "%s",
        "user_id": user(pick.randrange(USERS)),
        "timestamp": happened_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "provider": model.provider,
        "model": model.name,
        "usage": _usage(pick, model),
        "endpoint": model.endpoint,
        "status_code": 429 if pick.random() < 0.02 else 200,
        "latency_ms": pick.randint(150, 8_000),
    }
    return json.dumps(event, separators=(",", ":")).encode()


@cache
def _event_templates(count: int, seed: int) -> list[bytes]:
    pick, now = random.Random(seed), datetime.now(UTC)
    return [_event(pick, now) for _ in range(count)]


def events() -> MakeBody:
    """One event per body."""
    halves = [tuple(text.split(b"%s", 1)) for text in _event_templates(TEMPLATES, 1)]
    next_id, turn = id_maker(), random.randrange(TEMPLATES)

    def body() -> bytes:
        nonlocal turn
        turn = (turn + 1) % TEMPLATES
        before, after = halves[turn]
        return before + next_id() + after

    return body


def batches() -> MakeBody:
    """A thousand events per body."""
    templates = [
        b"[" + b",".join(_event_templates(BATCH, seed)) + b"]"
        for seed in range(2, 2 + BATCH_TEMPLATES)
    ]
    next_id, turn = id_maker(), 0

    def body() -> bytes:
        nonlocal turn
        turn = (turn + 1) % BATCH_TEMPLATES
        return templates[turn] % tuple(next_id() for _ in range(BATCH))

    return body


def checks(users: int) -> MakeBody:
    """May this user call this model? Asked for the first so many users."""
    pick = random.Random(3)
    asked = []
    for _ in range(TEMPLATES):
        model = pick.choice(MODELS)
        question = {
            "user_id": user(pick.randrange(users)),
            "provider": model.provider,
            "model": model.name,
        }
        asked.append(json.dumps(question, separators=(",", ":")).encode())
    turn = random.randrange(TEMPLATES)

    def body() -> bytes:
        nonlocal turn
        turn = (turn + 1) % TEMPLATES
        return asked[turn]

    return body


def limits(user_id: str) -> list[dict[str, object]]:
    """The limits a checked user has, wide enough never to bind."""
    shared = {"scope": {"user_id": user_id}, "action": "block", "thresholds": [80, 90, 100]}
    return [
        {
            "name": "Monthly budget",
            "metric": "cost_usd",
            "window": "billing_period",
            "amount": "1000000",
            **shared,
        },
        {
            "name": "Calls per hour",
            "metric": "calls",
            "window": "hour",
            "amount": 100_000_000,
            **shared,
        },
    ]


HOLD_TOKENS = 100


def hot_limit(amount: int) -> dict[str, object]:
    """The one limit that every hold is held against, on one user."""
    return {
        "name": "Tokens of a hot user",
        "scope": {"user_id": user(0)},
        "metric": "tokens",
        "window": "lifetime",
        "amount": amount,
        "action": "block",
        "thresholds": [100],
    }


def holds() -> MakeBody:
    """Holds of one user, each under an id of its own."""
    next_id = id_maker()
    asked = {
        "id": "%s",
        "user_id": user(0),
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": HOLD_TOKENS},
        "ttl_s": 3600,
    }
    before, after = json.dumps(asked).encode().split(b"%s")
    return lambda: before + next_id() + after
