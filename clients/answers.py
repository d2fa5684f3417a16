"""What makes an answer one of a model that thinks, keeps a cache and calls a tool."""

import json
from typing import Any

TOOL = "look_up"
ASKED = json.dumps({"word": "sun"})
CACHE_WRITTEN = 13
"""What each of Anthropic's answers says was written to the cache."""

Answer = tuple[dict[str, Any], list[dict[str, Any]]]


def detailed(answer: Answer, body: dict[str, Any]) -> Answer:
    """An answer, whole and as a stream, with every part of its usage and the call of a tool.

    The tool is called where it is offered and no result of it is told yet.
    """
    whole, chunks = answer
    for one in chunks:
        if one.get("type") == "message_delta":
            one["usage"] = dict(whole["usage"])
    for one in (whole, *chunks):
        for holder in (one, one.get("message"), one.get("response")):
            if isinstance(holder, dict) and holder.get("usage"):
                _count_parts(holder["usage"])
    if not _wants_tool(body):
        return answer
    if whole.get("object") == "chat.completion":
        return _chat(whole, chunks)
    if whole.get("object") == "response":
        return _response(whole)
    return _message(whole, chunks) if whole.get("type") == "message" else answer


def _count_parts(usage: dict[str, Any]) -> None:
    if "completion_tokens" in usage:
        usage["completion_tokens_details"] = {"reasoning_tokens": usage["completion_tokens"] // 4}
    elif "output_tokens_details" in usage:
        usage["output_tokens_details"] = {"reasoning_tokens": usage["output_tokens"] // 4}
        usage["input_tokens_details"] = {"cached_tokens": usage["input_tokens"] // 2}
    elif "cache_creation_input_tokens" in usage:
        usage["cache_creation_input_tokens"] = CACHE_WRITTEN


def _wants_tool(body: dict[str, Any]) -> bool:
    offered = [tool.get("function", tool).get("name") for tool in body.get("tools") or []]
    said = json.dumps([body.get("messages"), body.get("input")])
    used = ('"role": "tool"', '"type": "tool_result"', '"type": "function_call_output"')
    return TOOL in offered and not any(mark in said for mark in used)


def _chat(whole: dict[str, Any], chunks: list[dict[str, Any]]) -> Answer:
    call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": ASKED}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    first = message | {"tool_calls": [call | {"index": 0}]}
    deltas = [(first, None), ({}, "tool_calls")]
    told = [
        chunks[0] | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    return whole | {"choices": [choice]}, [*told, *(one for one in chunks if not one["choices"])]


def _response(whole: dict[str, Any]) -> Answer:
    item = {
        **{"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1"},
        **{"name": TOOL, "arguments": ASKED},
    }
    whole = whole | {"output": [item]}
    young = whole | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "fc_1", "output_index": 0}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": young},
        {
            **{"type": "response.output_item.added", "output_index": 0},
            "item": item | {"arguments": "", "status": "in_progress"},
        },
        {"type": "response.function_call_arguments.delta", "delta": ASKED} | place,
        {"type": "response.function_call_arguments.done", "arguments": ASKED, "name": TOOL} | place,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return whole, [one | {"sequence_number": at} for at, one in enumerate(told)]


def _message(whole: dict[str, Any], chunks: list[dict[str, Any]]) -> Answer:
    use = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": json.loads(ASKED)}
    delta = {"type": "input_json_delta", "partial_json": ASKED}
    start, *_, last, stop = chunks
    ended = last | {"delta": last["delta"] | {"stop_reason": "tool_use"}}
    return whole | {"content": [use], "stop_reason": "tool_use"}, [
        start,
        {"type": "content_block_start", "index": 0, "content_block": use | {"input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        *(ended, stop),
    ]
