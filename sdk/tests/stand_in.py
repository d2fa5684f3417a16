"""A model server on this machine that answers as OpenAI and Anthropic do, and keeps the account."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Counts = tuple[int, int]


class StandIn:
    """Serves on loopback; `served` has the input and output tokens of each answer it finished.

    The request decides: `user` (or `metadata.user_id`) names tokens as "in:out", and with
    ":cut" after them the stream breaks in the middle, with ":busy" it answers 429.
    """

    def __init__(self) -> None:
        self.served: list[Counts] = []
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        stand_in = self.stand_in
        wish = body.get("user") or body.get("metadata", {}).get("user_id", "3:2")
        taken, given, *more = wish.split(":")
        counts = int(taken), int(given)
        with stand_in.lock:
            stand_in.requests.append(body)
        if "busy" in more:
            self._json(429, {"error": {"code": "rate_limit_exceeded", "message": "secret text"}})
            return
        if "cut" not in more:
            with stand_in.lock:
                stand_in.served.append(counts)
        path = self.path.partition("?")[0]
        make = next(make for end, make in ENDS.items() if path.endswith(end))
        whole, chunks = make(body, counts)
        if body.get("stream"):
            self._stream(chunks, cut="cut" in more)
        else:
            self._json(200, whole)

    def _json(self, status: int, said: object) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, chunks: list[dict[str, Any]], *, cut: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in _events(chunks[: len(chunks) // 2] if cut else chunks):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        if cut:
            self.close_connection = True
            return
        if "type" not in chunks[0]:
            self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n")
        self.wfile.write(b"0\r\n\r\n")


def _events(chunks: list[dict[str, Any]]) -> Iterator[bytes]:
    for chunk in chunks:
        name = f"event: {chunk['type']}\n" if "type" in chunk else ""
        yield f"{name}data: {json.dumps(chunk)}\n\n".encode()


WORDS = ["The ", "answer ", "has ", "some ", "words", "."]


def _chat(body: dict[str, Any], counts: Counts) -> tuple[Any, list[Any]]:
    taken, given = counts
    usage = {
        "prompt_tokens": taken,
        "completion_tokens": given,
        "total_tokens": taken + given,
        "prompt_tokens_details": {"cached_tokens": taken // 2},
    }
    told = {"id": "chatcmpl-1", "created": 1763700000, "model": "gpt-4o-mini-2024-07-18"}
    message = {"role": "assistant", "content": "".join(WORDS)}
    whole = told | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }
    told = told | {"object": "chat.completion.chunk"}
    deltas: list[Any] = [
        {"index": 0, "delta": {"content": w}, "finish_reason": None} for w in WORDS
    ]
    deltas.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks = [told | {"choices": [delta]} for delta in deltas]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks = [one | {"usage": None} for one in chunks]
        chunks.append(told | {"choices": [], "usage": usage})
    return whole, chunks


def _responses(body: dict[str, Any], counts: Counts) -> tuple[Any, list[Any]]:
    taken, given = counts
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1763700000,
        "model": "gpt-4.1-mini-2025-04-14",
        "status": "completed",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {
                "id": "ws_1",
                "type": "web_search_call",
                "status": "completed",
                "action": {"type": "search", "query": "a private question"},
            },
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            },
        ],
        "usage": {
            "input_tokens": taken,
            "output_tokens": given,
            "total_tokens": taken + given,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    young = whole | {"status": "in_progress", "output": [], "usage": None}
    chunks: list[dict[str, Any]] = [{"type": "response.created", "response": young}]
    chunks += [
        {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 1,
            "content_index": 0,
            "delta": word,
            "logprobs": [],
        }
        for word in WORDS
    ]
    search, message = whole["output"]
    chunks.insert(1, {"type": "response.output_item.added", "output_index": 0, "item": search})
    young = message | {"content": []}
    chunks.insert(2, {"type": "response.output_item.added", "output_index": 1, "item": young})
    part = {"item_id": "msg_1", "output_index": 1, "content_index": 0, "part": text | {"text": ""}}
    chunks.insert(3, {"type": "response.content_part.added"} | part)
    chunks.append({"type": "response.completed", "response": whole})
    return whole, [one | {"sequence_number": place} for place, one in enumerate(chunks)]


def _embeddings(body: dict[str, Any], counts: Counts) -> tuple[Any, list[Any]]:
    whole = {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5] * 8}],
        "usage": {"prompt_tokens": counts[0], "total_tokens": counts[0]},
    }
    return whole, []


def _messages(body: dict[str, Any], counts: Counts) -> tuple[Any, list[Any]]:
    taken, given = counts
    usage = {
        "input_tokens": taken,
        "output_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 7,
        "service_tier": "standard",
    }
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    young = whole | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    chunks: list[dict[str, Any]] = [
        {"type": "message_start", "message": young},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    chunks += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        for word in WORDS
    ]
    chunks += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": given},
        },
        {"type": "message_stop"},
    ]
    return whole, chunks


ENDS = {
    "/chat/completions": _chat,
    "/responses": _responses,
    "/embeddings": _embeddings,
    "/v1/messages": _messages,
}
