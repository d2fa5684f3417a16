"""Makes a provider's client meter itself: every request it sends is seen, whoever sends it.

The metered client is of a subclass of its own class that overrides `request`, through which all
resources, helpers and copies (`with_options`) of these libraries go.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Unpack, cast

from tollgate_client.calls import Before, Call, MeterDesk
from tollgate_client.events import Dimensions
from tollgate_client.shapes import sent_of
from tollgate_client.streams import async_watched, watch_raw, watched
from tollgate_client.users import current_user

C = TypeVar("C")
RAW = "X-Stainless-Raw-Response"
HOSTS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.x.ai": "x-ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "generativelanguage.googleapis.com": "google",
}
KINDS = (
    ("Azure", "azure"),
    ("Bedrock", "bedrock"),
    ("Vertex", "vertex"),
    ("Anthropic", "anthropic"),
)
"""By the name of the class, where the host does not tell."""


def meter(
    client: C,
    gate: MeterDesk,
    *,
    user_id: str | Callable[[], str] | None = None,
    provider: str | None = None,
    before: Before = "nothing",
    ask_for_usage: bool = True,
    **event: Unpack[Dimensions],
) -> C:
    """A client of `openai` or `anthropic` like the given one, whose calls are recorded.

    Chat completions, completions, responses, embeddings and messages count, streamed or not, and
    whatever else answers with a usage. `user_id` is whom to bill: a name, something that tells it
    at each call, or nothing where `acting_for` does. `provider` is read from the address unless
    given. `before` asks first, and raises LimitReached in place of the call; "hold" also reserves.
    `ask_for_usage` asks streamed chats for their usage and takes the extra chunk out again.
    Further fields stand on each event, such as `task_type` or `tags`.

    Raises:
        TypeError: a client of another kind; or one that awaits with a gate that does not, where
            `before` is to ask.
    """
    kind = type(client)
    request = getattr(kind, "request", None)
    if request is None or not hasattr(client, "base_url") or not hasattr(client, "max_retries"):
        raise TypeError("clients of `openai` and `anthropic` can be metered")
    awaits = inspect.iscoroutinefunction(request)
    if before != "nothing" and gate.awaits is not awaits:
        raise TypeError(
            "to ask first, a client that awaits needs an AsyncTollgate, others a Tollgate"
        )
    book = _Book(gate, user_id, provider or _provider_of(client), before, ask_for_usage, event)
    made = _async_kind(kind, book) if awaits else _kind(kind, book)
    metered = object.__new__(made)
    metered.__dict__.update(
        {name: value for name, value in vars(client).items() if not _is_cached(kind, name)}
    )
    return cast(C, metered)


class _Book:
    """What is the same for every call of one metered client."""

    def __init__(
        self,
        gate: MeterDesk,
        user_id: str | Callable[[], str] | None,
        provider: str,
        before: Before,
        ask_for_usage: bool,
        event: Mapping[str, Any],
    ) -> None:
        self.gate, self.before = gate, before
        self._user_id, self._provider = user_id, provider
        self._ask_for_usage, self._event = ask_for_usage, dict(event)

    def open(self, options: Any, stream: bool) -> tuple[Call, Any] | None:
        """The call that a request makes, and its options; None for what never bills."""
        if options.method.lower() != "post":
            return None
        sent = sent_of(options.url, options.json_data)
        headers = options.headers if isinstance(options.headers, Mapping) else {}
        asked = False
        if stream and RAW not in headers and sent.api in ("chat", "completions"):
            wish = sent.body.get("stream_options") or {}
            if self._ask_for_usage and not wish.get("include_usage"):
                asked = True
                body = {**sent.body, "stream_options": {**wish, "include_usage": True}}
                options = options.model_copy(update={"json_data": body})
        user = self._user_id() if callable(self._user_id) else self._user_id or current_user()
        call = Call(self.gate, user, self._provider, sent, self._event, swallow=asked)
        return call, options


def _kind(kind: Any, book: _Book) -> Any:
    def request(self: Any, cast_to: Any, options: Any, **how: Any) -> Any:
        opened = book.open(options, bool(how.get("stream")))
        if opened is None:
            return kind.request(self, cast_to, options, **how)
        call, options = opened
        call.permit(book.before)
        try:
            answer = kind.request(self, cast_to, options, **how)
        except BaseException as error:  # also one that is interrupted has been made
            call.broke(error)
            call.release()
            raise
        if hasattr(answer, "http_response"):
            watch_raw(answer, call)
        elif how.get("stream"):
            watched(answer, call)
        else:
            call.answered(answer)
            call.release()
        return answer

    return type(kind.__name__, (kind,), {"request": request, "__module__": kind.__module__})


def _async_kind(kind: Any, book: _Book) -> Any:
    async def request(self: Any, cast_to: Any, options: Any, **how: Any) -> Any:
        opened = book.open(options, bool(how.get("stream")))
        if opened is None:
            return await kind.request(self, cast_to, options, **how)
        call, options = opened
        await call.permit_async(book.before)
        try:
            answer = await kind.request(self, cast_to, options, **how)
        except BaseException as error:  # also one that is cancelled has been made
            call.broke(error)
            await call.release_async()
            raise
        if hasattr(answer, "http_response"):
            watch_raw(answer, call)
        elif how.get("stream"):
            async_watched(answer, call)
        else:
            call.answered(answer)
            await call.release_async()
        return answer

    return type(kind.__name__, (kind,), {"request": request, "__module__": kind.__module__})


def _is_cached(kind: type, name: str) -> bool:
    """Whether a member is a resource that the client made on first use, bound to itself."""
    return isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)


def _provider_of(client: Any) -> str:
    name = type(client).__name__
    host = getattr(client.base_url, "host", "")
    if found := HOSTS.get(host):
        return found
    return next((provider for part, provider in KINDS if part in name), "openai")
