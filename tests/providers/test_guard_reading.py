"""The ways to read a response: raw, parsed, helper streams, left early, dropped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cycles.providers import _openai
from cycles.providers._stream_filter import StreamFilter
from tests.providers.conftest import EXACT, USED, Anthropic, AsyncOpenAI, Desk, Gemini, OpenAI
from tests.support.waiting import PATIENCE_S


def sent(desk: Desk) -> Any:
    """The body of the last request that the provider received."""
    return desk.provider.requests[-1].body


def test_raw_responses(desk: Desk) -> None:
    desk.provider.reply(text="raw", usage=USED, times=4)
    chat = OpenAI(desk).llm.chat.completions
    assert chat.with_raw_response.create(model="m", messages=[]).parse().choices[0].message.content == "raw"
    assert desk.commits == [(EXACT, {})]
    with chat.with_streaming_response.create(model="m", messages=[]) as response:
        assert response.parse().choices[0].message.content == "raw"
    assert desk.commits == [(EXACT, {})] * 2
    with chat.with_streaming_response.create(model="m", messages=[], stream=True) as response:
        lines = list(response.iter_lines())
    assert desk.commits == [(EXACT, {})] * 3
    assert not any("prompt_tokens" in line for line in lines)
    messages = Anthropic(desk).llm.messages
    raw = messages.with_raw_response.create(model="m", max_tokens=900, messages=[])
    assert raw.parse().content[0].text == "raw"
    assert desk.commits == [(EXACT, {})] * 4


def test_helper_streams(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED, times=3)
    with OpenAI(desk).llm.chat.completions.stream(model="m", messages=[]) as stream:
        assert stream.get_final_completion().choices[0].message.content == "a b c"
    with OpenAI(desk).llm.responses.stream(model="m", input="x") as responses:
        assert responses.get_final_response().output_text == "a b c"
    with Anthropic(desk).llm.messages.stream(model="m", max_tokens=999, messages=[]) as messages:
        assert messages.get_final_text() == "a b c"
    assert desk.commits == [(EXACT, {})] * 3


def test_leaving_a_helper_stream_early(desk: Desk) -> None:
    for make in (OpenAI, Anthropic):
        desk.provider.reply(text="a b c d e f", usage=USED)
        llm = make(desk).llm
        resource = llm.chat.completions if make is OpenAI else llm.messages
        more: dict[str, Any] = {} if make is OpenAI else {"max_tokens": 999}
        with resource.stream(model="m", messages=[], **more) as stream:
            next(iter(stream))
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed", "closed"]


def test_parsed_responses_and_tool_calls(desk: Desk) -> None:
    desk.provider.reply(text='{"city": "Ulm"}', usage=USED).reply(text="", tool_calls=[("f", {"x": 1})], usage=USED)
    pydantic: Any = pytest.importorskip("pydantic")
    place = pydantic.create_model("Place", city=(str, ...))
    llm = OpenAI(desk)
    parsed = llm.llm.chat.completions.parse(model="m", messages=[], response_format=place)
    assert parsed.choices[0].message.parsed.city == "Ulm"
    assert llm.complete().choices[0].message.tool_calls[0].function.name == "f"
    assert desk.commits == [(EXACT, {})] * 2


def test_a_response_that_fails_to_parse_is_paid(desk: Desk) -> None:
    desk.provider.reply(text="not json", usage=USED)
    pydantic: Any = pytest.importorskip("pydantic")
    place = pydantic.create_model("Place", city=(str, ...))
    with pytest.raises(pydantic.ValidationError):
        OpenAI(desk).llm.chat.completions.parse(model="m", messages=[], response_format=place)
    assert desk.commits == [(EXACT, {"outcome": "error"})]


def test_the_usage_event_is_shown_only_if_the_request_includes_it(desk: Desk) -> None:
    llm = OpenAI(desk)
    desk.provider.reply(text="a b", usage=USED, times=3)
    assert all(chunk.choices for chunk in llm.stream())
    assert sent(desk)["stream_options"] == {"include_usage": True}
    asked = list(llm.stream(stream_options={"include_usage": True}))
    assert asked[-1].usage.prompt_tokens == 1000
    assert desk.commits == [(EXACT, {})] * 2
    assert all(chunk.choices for chunk in llm.stream(stream_options={"include_usage": False}))
    assert desk.commits[-1][1] == {"actual_source": "estimate"}


@pytest.mark.parametrize("make", [OpenAI, AsyncOpenAI])
def test_a_stream_that_is_left_after_its_finish_reason_is_exact(
    desk: Desk, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.providers._pump._DRAIN_S", PATIENCE_S)
    desk.provider.reply(text="a b", usage=USED)
    assert make(desk).read(4) == 4  # the role, two words, the finish reason
    assert desk.commits == [(EXACT, {})]


def test_a_usage_event_that_does_not_come_in_time_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.providers._pump._DRAIN_S", 0.05)
    gate = threading.Event()
    desk.provider.reply(text="a b", usage=USED, gate=gate, gate_after=4)
    OpenAI(desk).read(4)
    gate.set()
    ((_, metadata),) = desk.commits
    assert metadata == {"actual_source": "estimate", "outcome": "closed"}


def test_a_signal_that_interrupts_the_wait_for_the_usage_leaves_the_call_settled(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.provider.reply(text="a b", usage=USED)
    stream = OpenAI(desk).stream()
    for _ in range(4):  # the role, two words, the finish reason
        next(stream)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cycles.providers._pump._drain", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stream.close()
    is_closed = stream.response.is_closed
    stream.response.close()  # a server of the test waits for it
    assert is_closed
    assert [metadata for _, metadata in desk.commits] == [{"actual_source": "estimate", "outcome": "closed"}]
    assert desk.held == 0


def test_a_stream_in_a_reference_cycle_is_settled(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED)
    stream = OpenAI(desk).stream()
    next(iter(stream))
    cycle: dict[str, Any] = {"stream": stream}
    cycle["self"] = cycle
    del stream, cycle
    desk.settle_dropped()
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed"]


def test_an_async_stream_that_is_dropped_without_a_loop_is_settled(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED)
    llm = AsyncOpenAI(desk)
    stream = desk.runner.run(llm.astream())
    del stream
    desk.settle_dropped()
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed"]


def test_a_client_with_its_own_http_client(desk: Desk) -> None:
    import httpx

    openai: Any = pytest.importorskip("openai")
    newest = int(openai.__version__.partition(".")[0]) >= 3  # older versions take httpx only
    for module in [httpx, *([pytest.importorskip("httpx2")] if newest else [])]:
        with module.Client() as http:
            llm = openai.OpenAI(api_key="k", base_url=desk.provider.openai_url, http_client=http)
            desk.provider.reply(usage=USED, times=2)
            guarded = desk.guard(llm)
            guarded.chat.completions.create(model="m", messages=[])
            assert list(guarded.chat.completions.create(model="m", messages=[], stream=True))
        assert desk.commits[-2:] == [(EXACT, {})] * 2


def test_a_stream_without_a_media_type_is_exact(desk: Desk) -> None:
    desk.provider.reply(usage=USED, headers={"content-type": ""})
    assert list(OpenAI(desk).stream())
    assert desk.commits == [(EXACT, {})]


def test_a_gemini_stream_whose_prompt_is_blocked_is_exact(desk: Desk) -> None:
    counts = {"promptTokenCount": 10, "totalTokenCount": 10}
    chunk = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": counts, "modelVersion": "m"}
    body = f"data: {json.dumps(chunk)}\n\n".encode()
    desk.provider.reply(body=body, headers={"content-type": "text/event-stream"})
    assert len(list(Gemini(desk).stream())) == 1
    assert desk.commits == [(10 * 100, {})]


def test_an_image_stream_is_exact(desk: Desk) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    partial = {"type": "image_generation.partial_image", "b64_json": "AAAA"}
    done = {"type": "image_generation.completed", "b64_json": "AAAA", "usage": usage}
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in (partial, done)).encode()
    desk.provider.reply(body=body)
    stream = OpenAI(desk).llm.images.generate(model="m", prompt="x", stream=True)
    assert len(list(stream)) == 2
    assert desk.commits == [(EXACT, {})]


def test_events_that_arrive_in_pieces_are_forwarded_when_they_are_complete() -> None:
    stream = StreamFilter(_openai.rules(), hide_usage=True)
    chunk = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\r\n\r\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\r\n\r\n'
    data, forwarded = chunk + usage + b"data: [DONE]\n\n", b""
    for index in range(len(data)):
        forwarded += stream.feed(data[index : index + 1])
        if index == len(chunk) - 1:
            assert forwarded == chunk
    assert forwarded == chunk + b"data: [DONE]\n\n"
    assert (stream.complete, stream.usage_seen, len(stream.reported())) == (True, True, 1)
    assert StreamFilter(_openai.rules(), hide_usage=False).feed(usage) == usage


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_every_size_of_pieces_gives_the_same_events(size: int, end: bytes) -> None:
    events = [b'data: {"choices":[{"delta":{"content":"%b"}}]}' % (b"a" * n) + end for n in (0, 1, 2, 300)]
    data = b"".join(events) + b"data: [DONE]"
    stream, forwarded = StreamFilter(_openai.rules(), hide_usage=True), b""
    for start in range(0, len(data), size):
        forwarded += stream.feed(data[start : start + size])
    assert list(stream.kept) == events
    assert forwarded + stream.flush() == data
    assert stream.complete


def test_the_cost_of_an_event_grows_linearly_with_its_size() -> None:
    def copied(pieces: int) -> int:
        """Return the bytes that are searched for one event of so many pieces."""
        searched = 0

        class Piece(bytes):
            def __radd__(self, tail: bytes) -> bytes:
                nonlocal searched
                searched += len(tail) + len(self)
                return bytes(tail) + bytes(self)

        stream = StreamFilter(_openai.rules(), hide_usage=False)
        for _ in range(pieces):
            assert stream.feed(Piece(b"a" * 1024)) == b""
        assert len(stream.feed(b"\n\n")) == 1024 * pieces + 2
        return searched

    assert copied(2000) < 2.1 * copied(1000)


def test_a_media_type_has_no_case(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    send = BaseHTTPRequestHandler.send_header

    def send_in_capitals(handler: BaseHTTPRequestHandler, name: str, value: str) -> None:
        send(handler, name, value.title() if name == "content-type" else value)

    monkeypatch.setattr(BaseHTTPRequestHandler, "send_header", send_in_capitals)
    desk.provider.reply(text="one two", usage=USED, times=2)
    sdk = OpenAI(desk)
    assert sdk.read() >= 2
    with sdk.llm.chat.completions.with_streaming_response.create(model="m", messages=[]) as response:
        response.read()
    assert desk.commits == [(EXACT, {})] * 2


def test_azures_first_event_without_choices_stays() -> None:
    first = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
    assert StreamFilter(_openai.rules(), hide_usage=True).feed(first) == first


def test_a_stream_that_is_alive_at_interpreter_exit_is_settled(desk: Desk) -> None:
    pytest.importorskip("uvicorn")
    desk.provider.reply(text="a b c d", usage=USED, times=2)
    program = """
import sys, cycles, openai
from cycles.providers import guard
book = cycles.PriceBook({"m": cycles.Price("1", "10")})
client = cycles.Cycles(base_url=sys.argv[1], api_key=sys.argv[2], tenant="acme", journal=False)
llm = guard(openai.OpenAI(api_key="k", base_url=sys.argv[3]), client=client, prices=book)
stream = llm.chat.completions.create(model="m", messages=[], stream=True)
next(iter(stream))
"""
    with desk.server.listen(port=0) as url:
        arguments = [sys.executable, "-c", program, url, desk.server.api_key, desk.provider.openai_url]
        done = subprocess.run(arguments, check=False, cwd=Path(__file__).parents[2], timeout=300)
    # CPython 3.13.0 crashes when httpx2 closes an unread stream at exit, also without a guard.
    assert done.returncode in (0, -11)
    assert [metadata["outcome"] for _, metadata in desk.commits] == ["closed"]
    assert desk.held == 0


def test_a_stream_that_ends_after_its_client_is_closed_is_settled(desk: Desk) -> None:
    desk.provider.reply(text="a b c", usage=USED)
    stream = OpenAI(desk).stream()
    next(iter(stream))
    desk.client.close()
    assert list(stream)
    assert [amount for amount, _ in desk.commits] == [EXACT]


def test_the_events_of_a_long_stream_are_kept_in_little_memory_and_in_order() -> None:
    stream = StreamFilter(_openai.rules(), hide_usage=False)
    events = [b'data: {"choices":[{"delta":{"content":"word %d"}}]}\n\n' % number for number in range(1000)]
    for event in events:
        stream.feed(event)
    assert list(stream.kept) == events
    assert sum(len(packed) for packed, _ in stream.kept._packed) < sum(map(len, events)) / 5
    stream.kept.clear()
    assert list(stream.kept) == []


class _ReadByHook:
    """An SDK whose HTTP client reads each response in a hook, as logging hooks and fake transports do."""

    def make(self) -> Any:
        llm = super().make()  # type: ignore[misc]

        def read(response: Any) -> None:
            response.read()

        package = sys.modules[type(llm).__module__.partition(".")[0]]
        return llm.copy(http_client=package.DefaultHttpxClient(event_hooks={"response": [read]}))


class ReadOpenAI(_ReadByHook, OpenAI):
    """OpenAI with such a hook."""


class ReadAnthropic(_ReadByHook, Anthropic):
    """Anthropic with such a hook."""


@pytest.mark.parametrize("make", [ReadOpenAI, ReadAnthropic])
def test_a_stream_that_a_hook_has_read_is_charged_exactly(desk: Desk, make: Any) -> None:
    desk.provider.reply(text="a b c", usage=USED, times=2)
    sdk = make(desk)
    assert sdk.read() > 1
    assert desk.commits == [(EXACT, {})]
    assert not any(getattr(chunk, "usage", None) for chunk in sdk.stream() if make is ReadOpenAI)


@pytest.mark.parametrize("make", [ReadOpenAI, ReadAnthropic])
def test_a_stream_that_a_hook_has_read_is_charged_exactly_when_the_user_leaves_it(desk: Desk, make: Any) -> None:
    desk.provider.reply(text="a b c d e f", usage=USED)
    make(desk).read(1)
    assert [amount for amount, _ in desk.commits] == [EXACT]  # its usage has arrived
