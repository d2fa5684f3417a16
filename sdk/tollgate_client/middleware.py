"""ASGI middleware: asks before a request is served, and answers 429 where the limit is spent."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from tollgate_client.answers import Verdict
from tollgate_client.client import AsyncTollgate
from tollgate_client.errors import Refused, Unavailable
from tollgate_client.events import Ask
from tollgate_client.users import acting_for

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
AWAY_S = 5


class TollgateMiddleware:
    """Asks `POST /v1/limits/check` for each request that has a user, then serves it.

    `user` is the name of a header, or a function of the ASGI scope; who it names is also whom
    metered clients bill within the request. A request without a user is served unasked. `ask`
    says more of the call from the scope, such as the model. A spent limit is answered 429 with
    `Retry-After` as `application/problem+json`; where the service cannot be asked, the gate's
    `on_error` decides: open serves, closed answers 503.
    """

    def __init__(
        self,
        app: App,
        *,
        gate: AsyncTollgate,
        user: str | Callable[[Scope], str | None],
        ask: Callable[[Scope], Ask] | None = None,
    ) -> None:
        self._app, self._gate, self._user, self._ask = app, gate, user, ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        user_id = self._user_of(scope) if scope["type"] == "http" else None
        if not user_id:
            await self._app(scope, receive, send)
            return
        asked = self._ask(scope) if self._ask else Ask()
        try:
            verdict = await self._gate.check(user_id=user_id, **asked)
        except Unavailable as error:
            await _refuse(send, _away(error))
            return
        except Refused as error:
            if not self._gate.fails_open:
                await _refuse(send, _away(Unavailable(str(error))))
                return
            self._gate.let_through(f"check: {error}")
            verdict = Verdict(True, str(error), known=False)
        if not verdict.allowed:
            await _refuse(send, _spent(verdict))
            return
        with acting_for(user_id):
            await self._app(scope, receive, send)

    def _user_of(self, scope: Scope) -> str | None:
        if callable(self._user):
            return self._user(scope)
        wanted = self._user.lower().encode()
        values = [value for name, value in scope["headers"] if name.lower() == wanted]
        return values[0].decode("latin-1").strip() if values else None


def _spent(verdict: Verdict) -> tuple[int, float, dict[str, Any]]:
    binding = verdict.binding
    wait_s = AWAY_S if binding is None else binding.resets_in_s()
    said: dict[str, Any] = {"title": "Limit reached", "detail": verdict.message}
    if binding is not None:
        names = ("name", "metric", "window", "limit", "used", "remaining", "resets_at")
        said["binding"] = {name: getattr(binding, name) for name in names}
    return 429, min(wait_s, 86_400), said


def _away(error: Unavailable) -> tuple[int, float, dict[str, Any]]:
    detail = "whether this may be served could not be asked"
    return 503, error.retry_after_s or AWAY_S, {"title": "Unavailable", "detail": detail}


async def _refuse(send: Send, answer: tuple[int, float, Mapping[str, Any]]) -> None:
    status, wait_s, said = answer
    body = json.dumps({"type": "about:blank", "status": status, **said}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(max(1, int(wait_s + 0.999))).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
