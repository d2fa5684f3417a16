"""OpenTelemetry requests with model calls in them, each span new."""

import json
import os
import time
from functools import partial

from benchmarks.bodies import MakeBody, user

SIZES = (1, 100, 1_000)
_ID, _RESPONSE, _START, _END = "%TRACE%", "%ANSWER%", "%START%", "%END%"
_SAID: dict[str, str | int] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": f"chatcmpl-{_RESPONSE}",
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 340,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "server.address": "api.openai.com",
    "session.id": "s-17",
}


def _span(number: int) -> str:
    said = _SAID | {
        "user.id": user(number % 1_000),
        "gen_ai.usage.input_tokens": 1_200 + number % 97,
        "gen_ai.usage.output_tokens": 340 + number % 89,
    }
    return json.dumps(
        {
            "traceId": f"{_ID}{number:08x}",
            "spanId": f"{number + 1:016x}",
            "name": "chat gpt-4o-mini",
            "kind": 3,
            "startTimeUnixNano": _START,
            "endTimeUnixNano": _END,
            "attributes": [
                {
                    "key": name,
                    "value": {"intValue": str(value)}
                    if isinstance(value, int)
                    else {"stringValue": value.replace(_RESPONSE, f"{_RESPONSE}{number:08x}")},
                }
                for name, value in said.items()
            ],
        }
    )


def traces(size: int) -> MakeBody:
    """Requests of so many spans, each a call of its own that took 800 ms and has just ended."""
    spans = ",".join(_span(number) for number in range(size))
    resource = '{"attributes":[{"key":"service.name","value":{"stringValue":"bench"}}]}'
    template = (
        f'{{"resourceSpans":[{{"resource":{resource},"scopeSpans":'
        f'[{{"scope":{{"name":"bench"}},"spans":[{spans}]}}]}}]}}'
    )

    def body() -> bytes:
        fresh, now = os.urandom(12).hex(), time.time_ns()
        made = template.replace(_ID, fresh).replace(_RESPONSE, fresh)
        return made.replace(_START, str(now - 800_000_000)).replace(_END, str(now)).encode()

    return body


def maker(size: int) -> partial[MakeBody]:
    """Makes such requests in another process."""
    return partial(traces, size)


def accepted(size: int, status: int, body: bytes) -> int:
    """How many spans an answer says are recorded."""
    return size if status == 200 and body == b"{}" else 0
