"""Bodies and events in the shapes of OpenAI's APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cycles.testing._reply import Reply, ToolCall

Json = dict[str, Any]
CREATED: Final = 1_760_000_000


def body(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return the whole response of an endpoint."""
    model = reply.model or request.get("model", "gpt-4o")
    if path.endswith("/chat/completions"):
        return chat(model, request, reply)
    if path.endswith("/responses"):
        return response(model, request, reply, status="completed")
    if path.endswith("/responses/compact"):
        done = response(model, request, reply, status="completed")
        return {"id": done["id"], "object": "response.compaction", "created_at": CREATED} | {
            "output": done["output"],
            "usage": done["usage"],
        }
    if path.endswith("/embeddings"):
        read = chat_usage(request, reply).get("prompt_tokens")
        counts = {} if read is None else {"prompt_tokens": read, "total_tokens": read}
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        return {"object": "list", "model": model, "data": data, "usage": counts}
    if path.endswith(("/generations", "/edits", "/variations")):
        usage = {"usage": response_usage(request, reply)} if reply.usage != {} else {}
        return {"created": CREATED, "data": [{"b64_json": "AAAA"}], **usage}
    if path.endswith(("/transcriptions", "/translations")):
        return {"text": reply.text, **_audio_usage(request, reply)}
    if path.endswith("/completions"):
        return completion(model, request, reply)
    return {"id": "fake_1", "object": "fake", "data": [], "has_more": False}


def _audio_usage(request: Mapping[str, Any], reply: Reply) -> Json:
    counts = reply.counts(request)
    if not counts:
        return {}
    if "audio_ms" in counts:
        return {"usage": {"type": "duration", "seconds": counts["audio_ms"] / 1000}}
    usage = response_usage(request, reply)
    usage["input_token_details"] = {"audio_tokens": counts.get("tokens_input_audio", 0)}
    return {"usage": {"type": "tokens", **usage}}


def chat(model: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return a chat completion."""
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool_calls:
        message["tool_calls"] = [_tool(index, call) for index, call in enumerate(reply.tool_calls)]
    finish = _finish(reply)
    choices = [
        {"index": index, "message": message, "finish_reason": finish, "logprobs": None}
        for index in range(request.get("n") or 1)
    ]
    found: Json = {"id": "chatcmpl-1", "object": "chat.completion", "created": CREATED, "model": model}
    found["choices"] = choices
    if usage := chat_usage(request, reply):
        found["usage"] = usage
    return found


def _finish(reply: Reply) -> str:
    return "length" if reply.truncated else "tool_calls" if reply.tool_calls else "stop"


def _tool(index: int, call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": json.dumps(dict(call.arguments))}
    return {"id": f"call_{index}", "type": "function", "function": function}


def completion(model: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return a completion of the old completions API."""
    choices = [{"index": 0, "text": reply.text, "finish_reason": _finish(reply), "logprobs": None}]
    found = {"id": "cmpl-1", "object": "text_completion", "created": CREATED, "model": model, "choices": choices}
    usage = chat_usage(request, reply)
    return {**found, "usage": usage} if usage else found


def chat_usage(request: Mapping[str, Any], reply: Reply) -> Json:
    """Return usage in the shape of chat completions; empty if none is reported."""
    counts = reply.counts(request)
    inputs = {"cached_tokens": "tokens_cached_input", "audio_tokens": "tokens_input_audio"}
    if "tokens_cache_write" in counts:
        inputs["cache_write_tokens"] = "tokens_cache_write"
    outputs = {"reasoning_tokens": "tokens_reasoning", "audio_tokens": "tokens_output_audio"}
    return _usage(counts, "prompt_tokens", inputs, "completion_tokens", outputs)


def response_usage(request: Mapping[str, Any], reply: Reply) -> Json:
    """Return usage in the shape of the responses API; empty if none is reported."""
    inputs = {
        "cached_tokens": "tokens_cached_input",
        "cache_write_tokens": "tokens_cache_write",
        "image_tokens": "tokens_input_image",
    }
    outputs = {"reasoning_tokens": "tokens_reasoning", "image_tokens": "tokens_output_image"}
    found = _usage(reply.counts(request), "input_tokens", inputs, "output_tokens", outputs)
    for side in ("input", "output") if found else ():
        details = found[f"{side}_tokens_details"]
        details["text_tokens"] = found[f"{side}_tokens"] - details["image_tokens"]
    return found


def _usage(
    counts: Mapping[str, int], read: str, inputs: Mapping[str, str], written: str, outputs: Mapping[str, str]
) -> Json:
    """Return usage under an API's own names, each with the count that it reports."""
    if not counts:
        return {}
    found: Json = {read: counts.get("tokens_input", 0), written: counts.get("tokens_output", 0)}
    found["total_tokens"] = found[read] + found[written]
    for whole, parts in ((read, inputs), (written, outputs)):
        found[f"{whole}_details"] = {name: counts.get(count, 0) for name, count in parts.items()}
    return found


def response(model: str, request: Mapping[str, Any], reply: Reply, *, status: str) -> Json:
    """Return an object of the responses API; it has output and usage if its status is ``completed``."""
    found: Json = {"id": "resp_1", "object": "response", "created_at": CREATED, "model": model}
    found |= {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0}
    found |= {
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": list(request.get("tools") or []),
        "top_p": 1.0,
    }
    is_finished = status == "completed"
    found |= {"status": status, "background": request.get("background") is True}
    if reply.truncated and is_finished:
        found |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    found["output"] = _items(reply) if is_finished else []
    found["usage"] = (response_usage(request, reply) or None) if is_finished else None
    return found


def _items(reply: Reply) -> list[Json]:
    items: list[Json] = []
    counts = reply.usage or {}
    search = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
    items += [{"id": f"ws_{n}", **search} for n in range(counts.get("web_searches", 0))]
    files = {"type": "file_search_call", "status": "completed", "queries": ["q"], "results": None}
    items += [{"id": f"fs_{n}", **files} for n in range(counts.get("file_searches", 0))]
    code = {"type": "code_interpreter_call", "status": "completed", "code": "1", "outputs": None}
    items += [{"id": f"ci_{n}", "container_id": f"cntr_{n}", **code} for n in range(counts.get("code_sessions", 0))]
    other = {"type": "fake_call", "status": "completed"}
    items += [{"id": f"oc_{n}", **other} for n in range(counts.get("other_calls", 0))]
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        items.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content})
    for index, call in enumerate(reply.tool_calls):
        arguments = json.dumps(dict(call.arguments))
        item = {"id": f"fc_{index}", "type": "function_call", "call_id": f"call_{index}", "status": "completed"}
        items.append({**item, "name": call.name, "arguments": arguments})
    return items


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the events of a stream, each complete."""
    if path.endswith("/responses"):
        yield from _response_events(request, reply)
        return
    if path.endswith(("/transcriptions", "/speech")):
        yield from _audio_events(path, request, reply)
        return
    chunk = _chat_chunk if path.endswith("/chat/completions") else _completion_chunk
    wanted = (request.get("stream_options") or {}).get("include_usage")
    base = {"usage": None} if wanted else {}
    for delta, finish in _deltas(reply):
        yield _data({**chunk(request, reply, delta, finish), **base})
    usage = chat_usage(request, reply)
    if wanted and usage:
        yield _data({**chunk(request, reply, {}, None), "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def events_with_last(path: str, request: Mapping[str, Any], reply: Reply, last: Json) -> Iterator[bytes]:
    """Yield the events of a stream whose chunk with the finish reason has more members, for example its usage."""
    for event in events(path, request, reply):
        data = event.removeprefix(b"data: ")
        chunk = json.loads(data) if data.startswith(b"{") else {}
        if any(choice.get("finish_reason") for choice in chunk.get("choices", ())):
            yield _data({**chunk, **last})
        else:
            yield event


def _deltas(reply: Reply) -> Iterator[tuple[Json, str | None]]:
    yield {"role": "assistant", "content": ""}, None
    for word in reply.pieces():
        yield {"content": word}, None
    for index, call in enumerate(reply.tool_calls):
        tool = _tool(index, call)
        arguments = tool["function"].pop("arguments")
        yield {"tool_calls": [{"index": index, **tool, "function": {**tool["function"], "arguments": ""}}]}, None
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}, None
    yield {}, _finish(reply)


def _chat_chunk(request: Mapping[str, Any], reply: Reply, delta: Json, finish: str | None) -> Json:
    model = reply.model or request.get("model", "gpt-4o")
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "choices": choices,
    } | dict(reply.extra)


def _completion_chunk(request: Mapping[str, Any], reply: Reply, delta: Json, finish: str | None) -> Json:
    model = reply.model or request.get("model", "gpt-3.5-turbo-instruct")
    choices = [{"index": 0, "text": delta.get("content") or "", "finish_reason": finish, "logprobs": None}]
    return {"id": "cmpl-1", "object": "text_completion", "created": CREATED, "model": model, "choices": choices}


def _response_events(request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    model = reply.model or request.get("model", "gpt-4o")
    names = {name: reply.extra[name] for name in ("id",) if name in reply.extra}
    running = {**response(model, request, reply, status="in_progress"), **names}
    begun = {**running, "status": "queued"} if running["background"] else running
    done = {**response(model, request, reply, status="completed"), **reply.extra}
    number = iter(range(10_000))
    yield _event("response.created", number, response=begun)
    yield _event("response.in_progress", number, response=running)
    for index, item in enumerate(done["output"]):
        empty = {**item, "status": "in_progress"}
        empty |= {"content": []} if item["type"] == "message" else {}
        yield _event("response.output_item.added", number, output_index=index, item=empty)
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            yield from _text_events(reply, number, {**place, "content_index": 0})
        elif item["type"] == "function_call":
            yield _event("response.function_call_arguments.delta", number, **place, delta=item["arguments"])
            yield _event(
                "response.function_call_arguments.done", number, **place, arguments=item["arguments"], name=item["name"]
            )
        yield _event("response.output_item.done", number, output_index=index, item=item)
    yield _event("response.incomplete" if reply.truncated else "response.completed", number, response=done)


def _text_events(reply: Reply, number: Iterator[int], place: Json) -> Iterator[bytes]:
    part = {"type": "output_text", "text": "", "annotations": []}
    yield _event("response.content_part.added", number, **place, part=part)
    for word in reply.pieces():
        yield _event("response.output_text.delta", number, **place, delta=word, logprobs=[])
    yield _event("response.output_text.done", number, **place, text=reply.text, logprobs=[])
    yield _event("response.content_part.done", number, **place, part={**part, "text": reply.text})


def _audio_events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    kind = "transcript.text" if path.endswith("/transcriptions") else "speech.audio"
    for word in reply.pieces():
        piece = {"delta": word} if kind == "transcript.text" else {"audio": "AAAA"}
        yield _data({"type": f"{kind}.delta", **piece})
    done = {"text": reply.text} if kind == "transcript.text" else {}
    yield _data({"type": f"{kind}.done", **done, "usage": response_usage(request, reply)})
    yield b"data: [DONE]\n\n"


def _event(kind: str, number: Iterator[int], **members: Any) -> bytes:
    body = json.dumps({"type": kind, "sequence_number": next(number), **members})
    return f"event: {kind}\ndata: {body}\n\n".encode()


def _data(value: Json) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def error(reply: Reply) -> Json:
    """Return the body of an error response."""
    return {"error": {"message": reply.error, "type": "fake_error", "param": None, "code": "fake"}}


def error_event(path: str, reply: Reply) -> bytes:
    """Return the event of an error inside a stream."""
    if path.endswith("/responses"):
        return _event("error", iter((0,)), code="fake", message=reply.error, param=None)
    return _data(error(reply))
