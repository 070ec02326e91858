"""Events that come in an unusual form: without a request for a stream, or without an end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cycles.providers import _google
from cycles.providers._stream_filter import StreamFilter
from tests.providers.conftest import EXACT, USED, Desk, OpenAI

PARTS = [
    {"choices": [{"index": 0, "delta": {"content": "one two"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
USAGE = {"choices": [], "usage": {"prompt_tokens": USED["tokens_input"], "completion_tokens": USED["tokens_output"]}}


def events(*values: Any) -> bytes:
    return b"\n\n".join(b"data: " + json.dumps({"id": "c", "model": "m", **value}).encode() for value in values)


@pytest.mark.parametrize(("kind", "metadata"), [("text/event-stream", {}), ("application/json", {"outcome": "error"})])
@pytest.mark.parametrize("end", [b"", b"\n\ndata: [DONE]\n\n"])
def test_events_without_a_request_for_a_stream_are_priced_exactly(
    desk: Desk, kind: str, metadata: Any, end: bytes
) -> None:
    desk.provider.reply(body=events(*PARTS, USAGE) + end, headers={"content-type": kind})
    with contextlib.suppress(json.JSONDecodeError):  # of the SDK
        OpenAI(desk).llm.chat.completions.create(model="m", messages=[])
    assert desk.commits == [(EXACT, metadata)]


def test_events_without_usage_and_without_a_request_for_a_stream_cost_what_was_made(desk: Desk) -> None:
    desk.provider.reply(body=events(*PARTS), headers={"content-type": "text/event-stream"})
    OpenAI(desk).llm.chat.completions.create(model="m", messages=[])
    ((amount, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate"}
    assert 0 < amount < desk.reserved[0]


class Broken(httpx.SyncByteStream):
    """A body whose connection breaks, or ends, behind its bytes."""

    def __init__(self, data: bytes, error: Exception | None) -> None:
        self.data, self.error = data, error

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(("error", "metadata"), [(None, {}), (httpx.ReadError("reset"), {"outcome": "error"})])
def test_a_last_event_without_its_empty_line_is_priced_exactly(desk: Desk, error: Any, metadata: Any) -> None:
    openai: Any = pytest.importorskip("openai")

    def answer(request: httpx.Request) -> httpx.Response:
        body = Broken(events(*PARTS, USAGE), error)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    original = openai.OpenAI(api_key="k", http_client=httpx.Client(transport=httpx.MockTransport(answer)))
    desk.originals.append(original)
    with contextlib.suppress(httpx.ReadError, openai.APIConnectionError):
        list(desk.guard(original).chat.completions.create(model="m", messages=[], stream=True))
    assert desk.commits == [(EXACT, metadata)]


def test_usage_without_its_empty_line_is_read_of_a_stream_that_is_left(desk: Desk) -> None:
    desk.provider.reply(body=events(*PARTS, USAGE))
    stream = OpenAI(desk).llm.chat.completions.create(model="m", messages=[], stream=True)
    for chunk in stream:
        if chunk.choices[0].finish_reason is not None:
            break
    stream.close()
    assert desk.commits == [(EXACT, {})]


@pytest.mark.parametrize("ends", [True, False])
def test_a_truncated_last_event_does_not_replace_the_totals_before_it(ends: bool) -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2}
    total = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}
    stream = StreamFilter(_google.stream({}), hide_usage=False)
    truncated = b'data: {"usageMetadata": {"promptTokenCount": 5'
    assert stream.feed(b"data: " + json.dumps(total).encode() + b"\n\n" + truncated)
    stream.see_rest()
    assert stream.reported() == [total]
    if ends:
        assert stream.flush() == truncated
        assert stream.reported() == [total]
