"""What the demo sends: recorded usages, spread over four users and three months. Pure but for one
read of the file that is shipped beside this one.

A month that has only begun gets its whole number of calls, so that the tour looks the same on every
day of it. All that is random comes from one seed.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from random import Random
from typing import NamedTuple

from msgspec import Struct
from msgspec.json import Decoder

from app.ingest.decode import EventIn, UsageIn

SEED = "toll"
BACK = timedelta(days=92)
GROWTH = (0.35, 0.55, 0.8, 1.0)
"""How many calls a month has against the running one, oldest first."""
ERRORS = {429: "rate limited", 500: "the provider failed", 529: "overloaded"}
ERROR_RATE = 0.03
HUGE_TOKENS, LONG_TOKENS = 100_000, 4_000


class Recorded(Struct, frozen=True):
    """One call as its provider answered it, without what was asked or said."""

    provider: str
    endpoint: str
    model: str
    usage: UsageIn


class _Fixture(Struct):
    about: str
    usages: list[Recorded]


class Person(NamedTuple):
    """Who calls: how often in the running month, which providers, and for what."""

    user_id: str
    team_id: str
    calls: int
    providers: frozenset[str]
    tasks: tuple[str, ...]
    huge: bool = False


ALICE = Person("alice", "research", 900, frozenset({"anthropic", "openai"}), ("chat", "summarize"))
PEOPLE = (
    ALICE,
    Person("bruno", "product", 800, frozenset({"azure", "openai", "xai"}), ("agent", "code")),
    Person(
        "chandra",
        "product",
        700,
        frozenset({"google", "groq", "mistral", "deepseek"}),
        ("extract",),
    ),
    Person("dora", "research", 500, frozenset(), ("chat", "search", "extract"), huge=True),
)


@cache
def recorded_usages() -> tuple[Recorded, ...]:
    """Every usage of the fixture, in the order of the file."""
    text = files("app.demo").joinpath("usages.json").read_bytes()
    return tuple(Decoder(_Fixture).decode(text).usages)


def replayed(now: datetime) -> list[EventIn]:
    """Everyone's calls of the last three months, oldest first."""
    random = Random(SEED)
    found: list[EventIn] = []
    for person in PEOPLE:
        pool = _pool(person)
        for growth, (start, end) in zip(GROWTH, _months(now), strict=True):
            for _ in range(round(person.calls * growth)):
                at = start + (end - start) * random.random()
                found.append(_call(random, person, random.choice(pool), at, len(found)))
    return sorted(found, key=lambda event: event.timestamp or now)


def live(count: int) -> list[EventIn]:
    """Calls with long inputs that Alice makes now, one after another."""
    random = Random(f"{SEED} live")
    pool = [one for one in _pool(ALICE) if one.usage.input_tokens >= LONG_TOKENS]
    return [
        _call(random, ALICE, random.choice(pool), None, number, "live", errors=0)
        for number in range(count)
    ]


def _pool(person: Person) -> Sequence[Recorded]:
    return [
        one
        for one in recorded_usages()
        if (not person.providers or one.provider in person.providers)
        and (person.huge or one.usage.input_tokens < HUGE_TOKENS)
    ]


def _months(now: datetime) -> list[tuple[datetime, datetime]]:
    """The running month up to now and the three before it, as far as they are not too long ago."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = [(start, now)]
    while len(found) < len(GROWTH):
        end, start = start, (start - timedelta(days=1)).replace(day=1)
        found.append((max(start, min(now - BACK, end - timedelta(days=1))), end))
    return found[::-1]


def _call(
    random: Random,
    person: Person,
    recorded: Recorded,
    at: datetime | None,
    number: int,
    kind: str = "call",
    *,
    errors: float = ERROR_RATE,
) -> EventIn:
    failed = random.random() < errors
    status_code = random.choice(list(ERRORS)) if failed else 200
    first_ms = random.lognormvariate(6, 0.5)
    written = 0 if failed else recorded.usage.output_tokens
    return EventIn(
        id=f"{person.user_id}-{kind}-{number:05d}",
        user_id=person.user_id,
        team_id=person.team_id,
        timestamp=at,
        provider=recorded.provider,
        model=recorded.model,
        endpoint=recorded.endpoint,
        method="POST",
        usage=UsageIn() if failed else recorded.usage,
        status_code=status_code,
        error_message=ERRORS.get(status_code),
        retry_count=1 if failed else 0,
        ttft_ms=None if failed else round(first_ms, 1),
        latency_ms=round(first_ms + written * random.uniform(5, 15), 1),
        task_type=random.choice(person.tasks),
    )
