"""How a call that is told by a span ended: with which status, and why it failed. Pure."""

import re

from app.ingest.otlp.spans import Attributes, Span
from app.ingest.otlp.values import clean, count_in, text_in

_STATUS = (
    *("http.response.status_code", "http.status_code", "litellm.provider.error.code"),
    *("error.status_code", "status_code"),
)
_TYPE = ("error.type", "exception.type")
_IN_MESSAGE = re.compile(r"(?:Error code|status(?:[ _]code)?|HTTP)[: ]+([45]\d\d)\b")
_BY_NAME = (
    ("ratelimit", 429),
    ("rate_limit", 429),
    ("overloaded", 529),
    ("timeout", 504),
    ("authentication", 401),
    ("permission", 403),
    ("notfound", 404),
    ("not_found", 404),
    ("contextwindow", 400),
    ("badrequest", 400),
    ("invalid_request", 400),
    ("unprocessable", 422),
    ("connection", 503),
    ("unavailable", 503),
)
_MESSAGE = ("langfuse.observation.status_message", "exception.message")
_LEVEL = ("langfuse.observation.level",)
_CALLS_IT_OK = "langsmith"
"""The scope of spans whose status can be OK beside the exception that ended them."""
UNEXPLAINED = 500
_LONGEST = 1000


def status_of(span: Span) -> tuple[bool, int]:
    """Whether the call failed, and its HTTP status; 0 for a success that names none."""
    code = count_in(span.attributes, _STATUS) or 0
    if not 100 <= code <= 599:
        code = 0
    failed = (
        span.failed
        or code >= 400
        or bool(text_in(span.attributes, ("error.type",)))
        or (span.scope == _CALLS_IT_OK and any(_raised(span)))
        or text_in(span.attributes, _LEVEL) == "ERROR"
    )
    if not failed:
        return False, code
    if code >= 400:
        return True, code
    return True, code_of(type_of(span), message_of(span))


def code_of(kind: str, message: str) -> int:
    """The status that an error's type and message stand for."""
    if kind.isdigit() and 400 <= int(kind[:4]) <= 599:
        return int(kind[:4])
    if told := _IN_MESSAGE.search(message[:_LONGEST]):
        return int(told[1])
    low = kind.lower()
    return next((code for name, code in _BY_NAME if name in low), UNEXPLAINED)


def type_of(span: Span) -> str:
    """The type of the error, as the span or its exception names it."""
    for place in (span.attributes, *_raised(span)):
        if found := text_in(place, _TYPE):
            return found.rpartition(".")[2] or found
    return ""


def message_of(span: Span) -> str:
    """What the span's status says of the failure, or else its exception."""
    if message := clean(span.message, _LONGEST):
        return message
    places = (span.attributes, *_raised(span))
    return next((told for one in places if (told := text_in(one, _MESSAGE, _LONGEST))), "")


def _raised(span: Span) -> list[Attributes]:
    return [event.attributes for event in span.events if event.name == "exception"]


def error_of(span: Span) -> str:
    """What went wrong, in a line: the type and what is said of it."""
    message = message_of(span)
    kind = type_of(span)
    if not message:
        return kind
    return message if not kind or message.startswith(kind) else f"{kind}: {message}"
