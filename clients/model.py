"""A model server on this machine that keeps the account of what it served, and to whom."""

import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NamedTuple

from clients.answers import detailed
from sdk.tests.stand_in import ENDS

REFUSED = {"no-such-model": 404, "busy-model": 429, "broken-model": 500}
"""The models that are refused, and how."""
GEMINI_THOUGHTS = 64


class Served(NamedTuple):
    """One request that was answered; tokens are inclusive, and 0 where the answer told none."""

    user: str
    path: str
    model: str
    status: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    reasoning_tokens: int = 0


class Model:
    """Answers as OpenAI, Anthropic and Gemini do; `served` is the account.

    Every answer has an id of its own and other token counts. Whose call it is stands in `user`,
    in `metadata.user_id` or, without these, in the key, which is `sk-` and the user. Some models
    are refused. Where a tool `look_up` is offered and was not used yet, it is called.
    """

    def __init__(self) -> None:
        self.served: list[Served] = []
        self.elsewhere: list[str] = []
        self.turns = count()
        handler = type("Handler", (_Handler,), {"account": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # programs hang up as they end
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    account: Model
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self.account.elsewhere.append(f"GET {self.path}")
        self._json(404, {"error": {"message": "no such page", "code": 404}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        path = self.path.partition("?")[0]
        gemini = path.partition(":")[2]
        model = path.rpartition("/")[2].partition(":")[0] if gemini else body.get("model", "")
        if (status := REFUSED.get(model)) is not None:
            self.account.served.append(Served(self._user(body), path, model, status))
            error = {"message": "refused", "type": "invalid_request_error", "code": status}
            self._json(status, {"type": "error", "error": error})
            return
        make = gemini_answer if gemini else next((ENDS[e] for e in ENDS if path.endswith(e)), None)
        if make is None or gemini == "countTokens":
            self.account.elsewhere.append(f"POST {path}")
            self._json(404, {"error": {"message": "no such page", "code": 404}})
            return
        turn = next(self.account.turns)
        given = _own(make(body, (1000 + 37 * turn, 100 + 11 * turn)))
        whole, chunks = _named(*detailed(given, body), uuid.uuid4().hex, model)
        told = counted(whole) if tells_usage(path, body) else ()
        self.account.served.append(Served(self._user(body), path, model, 200, *told))
        if body.get("stream") or gemini == "streamGenerateContent":
            self._stream(chunks, done=path.endswith("/chat/completions"))
        else:
            self._json(200, whole)

    def _user(self, body: dict[str, Any]) -> str:
        said = body.get("user") or (body.get("metadata") or {}).get("user_id")
        if str(said).startswith("{"):  # Claude Code describes its installation there
            said = None
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        key = key or self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or ""
        return str(said or key.removeprefix("sk-"))

    def _json(self, status: int, said: object) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, chunks: list[dict[str, Any]], *, done: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        pieces = [
            (f"event: {one['type']}\n" if "type" in one else "") + f"data: {json.dumps(one)}\n\n"
            for one in chunks
        ]
        for piece in [*pieces, *(["data: [DONE]\n\n"] if done else [])]:
            content = piece.encode()
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


def counted(whole: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """The input, output, cached, written and reasoning tokens that an answer tells.

    Input and output are inclusive.
    """
    if told := whole.get("usageMetadata"):
        thought = told["thoughtsTokenCount"]
        given = told["candidatesTokenCount"] + thought
        return told["promptTokenCount"], given, told["cachedContentTokenCount"], 0, thought
    told = whole["usage"]
    taken = told["prompt_tokens"] if "prompt_tokens" in told else told["input_tokens"]
    given = told.get("completion_tokens", told.get("output_tokens", 0))
    parts = told.get("prompt_tokens_details") or told.get("input_tokens_details") or {}
    thoughts = told.get("completion_tokens_details") or told.get("output_tokens_details") or {}
    read = told.get("cache_read_input_tokens", 0)
    written = told.get("cache_creation_input_tokens", 0)
    cached = read + parts.get("cached_tokens", 0)
    return taken + read + written, given, cached, written, thoughts.get("reasoning_tokens", 0)


def tells_usage(path: str, body: dict[str, Any]) -> bool:
    """Whether the answer says what it used: a chat that is streamed does only if it is asked to."""
    if not (body.get("stream") and path.endswith("/chat/completions")):
        return True
    return bool((body.get("stream_options") or {}).get("include_usage"))


def gemini_answer(_: dict[str, Any], counts: tuple[int, int]) -> tuple[Any, list[Any]]:
    """An answer of Gemini's, whole and as the chunks of a stream."""
    taken, given = counts
    parts = [{"text": "Some words."}]
    whole = {
        "candidates": [
            {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {
            "promptTokenCount": taken,
            "candidatesTokenCount": given,
            "thoughtsTokenCount": GEMINI_THOUGHTS,
            "cachedContentTokenCount": taken // 4,
            "totalTokenCount": taken + given + GEMINI_THOUGHTS,
        },
        "modelVersion": "gemini-2.5-pro",
        "responseId": "resp_1",
    }
    return whole, [whole]


def _own(answer: Any) -> Any:
    return json.loads(json.dumps(answer))


def _named(whole: Any, chunks: list[Any], name: str, model: str) -> tuple[Any, list[Any]]:
    """The answer under an id of its own and the model that was asked for."""
    if whole.get("object") == "response":
        chunks = _finished_items(chunks)
    text = json.dumps([whole, chunks])
    for given, mark in (("chatcmpl-1", "chatcmpl-"), ("resp_1", "resp_"), ("msg_1", "msg_")):
        text = text.replace(f'"{given}"', f'"{mark}{name}"')
    if "model" in whole:
        text = text.replace(json.dumps(whole["model"]), json.dumps(model))
    named, pieces = json.loads(text)
    return named, pieces


def _finished_items(chunks: list[Any]) -> list[Any]:
    """A stream of the Responses API with the end of its message told, as some clients need it."""
    *before, last = chunks
    item = next((one for one in last["response"]["output"] if one["type"] == "message"), None)
    if item is None:
        return chunks
    told = {"type": "response.output_item.done", "output_index": 1, "item": item}
    pieces = [*before, told, last]
    return [one | {"sequence_number": place} for place, one in enumerate(pieces)]
