"""Questions to the service that somebody waits for: few attempts, within one deadline."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from tollgate_client.answers import state_of
from tollgate_client.backoff import asked_pause_s, pause_s
from tollgate_client.errors import LimitReached, Refused, Unavailable

TRIES = 3
PASSING = (500, 502, 503, 504)
"""Answers after which the same question may be answered; nothing was changed, or ids tell."""


class Question(NamedTuple):
    """A POST that may be sent again as it is."""

    path: str
    body: Mapping[str, Any] | None = None


class _Course:
    """How far along the attempts are; the same for callers that block and callers that do not."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        self._attempt = 0
        self._last: Unavailable | None = None

    def left_s(self) -> float:
        return max(0.05, self._end - time.monotonic())

    def heard(self, answer: httpx.Response) -> dict[str, Any] | None:
        """What it says; None if it is worth another attempt. Raises what it refuses with."""
        said = object_in(answer)
        status = answer.status_code
        asked = asked_pause_s(answer.headers.get("retry-after"))
        detail = str(said.get("detail") or answer.reason_phrase)
        if status < 300:
            return said
        if status == 429 and str(said.get("type", "")).endswith("#limit-reached"):
            binding = said.get("binding")
            raise LimitReached(detail, state_of(binding) if binding else None, asked)
        if status in PASSING or status == 429:
            self._last = Unavailable(f"{status} {detail}", asked)
            return None
        raise Refused(status, detail, said.get("errors", ()))

    def failed(self, error: httpx.HTTPError) -> None:
        self._last = Unavailable(f"{type(error).__name__}: {error}")

    def pause_s(self) -> float:
        """Seconds until the next attempt. Raises Unavailable where there is none."""
        self._attempt += 1
        if self._last is None:
            raise RuntimeError("nothing has failed")
        pause = pause_s(self._attempt, self._last.retry_after_s, random.random)
        if self._attempt >= TRIES or time.monotonic() + pause >= self._end:
            raise self._last
        return pause


def ask(http: httpx.Client, question: Question, timeout_s: float) -> dict[str, Any]:
    """The answer's object.

    Raises:
        Unavailable: no answer within the time.
        LimitReached, Refused: the answer.
    """
    course, content = _Course(timeout_s), _content(question)
    while True:
        try:
            answer = http.post(
                question.path, content=content, headers=JSON, timeout=course.left_s()
            )
            if (said := course.heard(answer)) is not None:
                return said
        except httpx.HTTPError as error:
            course.failed(error)
        time.sleep(course.pause_s())


async def ask_async(
    http: httpx.AsyncClient, question: Question, timeout_s: float
) -> dict[str, Any]:
    """As `ask`, without blocking."""
    course, content = _Course(timeout_s), _content(question)
    while True:
        try:
            answer = await http.post(
                question.path, content=content, headers=JSON, timeout=course.left_s()
            )
            if (said := course.heard(answer)) is not None:
                return said
        except httpx.HTTPError as error:
            course.failed(error)
        await asyncio.sleep(course.pause_s())


JSON = {"Content-Type": "application/json"}


def _content(question: Question) -> bytes:
    return b"" if question.body is None else json.dumps(question.body, allow_nan=False).encode()


def object_in(answer: httpx.Response) -> dict[str, Any]:
    """The object that an answer holds; empty where it holds none."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
