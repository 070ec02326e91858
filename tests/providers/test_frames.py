"""Frames of AWS event streams: in any pieces, with usage, errors and packed events; bytes are forwarded unchanged."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from cycles.providers import _bedrock
from cycles.providers._frames import FrameFilter
from cycles.testing._bedrock import events, frame
from cycles.testing._reply import Reply

USED = {"tokens_input": 1000, "tokens_output": 100}
CONVERSE = list(events("/model/m/converse-stream", {}, Reply(text="one two", usage=USED)))


def packed(value: Any) -> bytes:
    return frame("chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode(), "p": "abc"})


def fed(*pieces: bytes) -> FrameFilter:
    found = FrameFilter(_bedrock.stream({}))
    for piece in pieces:
        assert found.feed(piece) == piece
    assert found.flush() == b""
    return found


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_frames_in_pieces(size: int) -> None:
    data = b"".join(CONVERSE)
    seen = fed(*(data[at : at + size] for at in range(0, len(data), size)))
    assert [event["usage"]["inputTokens"] for event in seen.reported()] == [1000]
    assert (seen.finished, seen.complete, seen.usage_seen, seen.failed) == (True, True, True, False)
    assert [json.loads(event)["delta"]["text"] for event in seen.kept if b"delta" in event] == ["one", " two"]


def test_the_usage_may_follow_the_stop_reason() -> None:
    seen = fed(*CONVERSE[:-1])
    assert (seen.finished, seen.complete, seen.usage_seen) == (True, False, False)


def test_an_exception_is_an_error() -> None:
    seen = fed(CONVERSE[0], frame("throttlingException", {"message": "slow down"}, "exception"))
    assert (seen.failed, seen.complete) == (True, False)


def test_packed_events_are_read() -> None:
    start = {"type": "message_start", "message": {"id": "m1", "model": "c", "usage": {"input_tokens": 7}}}
    metrics = {"inputTokenCount": 7, "outputTokenCount": 3}
    delta = {"type": "message_delta", "usage": {"output_tokens": 3}, "delta": {"stop_reason": "end_turn"}}
    stop = {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}
    seen = fed(packed(start), packed(delta), packed(stop))
    assert seen.reported() == [start, delta]
    assert (seen.complete, seen.usage_seen) == (True, True)
    last = {"generation": "x", "amazon-bedrock-invocationMetrics": metrics}
    seen = fed(packed({"generation": "x"}), packed(last))
    assert seen.reported() == [last]
    assert seen.usage_seen


def test_a_packed_event_that_is_no_base64_is_forwarded() -> None:
    seen = fed(frame("chunk", {"bytes": "abc"}), CONVERSE[-1])
    assert ([event["usage"]["inputTokens"] for event in seen.reported()], seen.failed) == ([1000], False)


def test_what_is_no_frame_is_forwarded() -> None:
    seen = fed(b"event: message\ndata: {}\n\n" * 10, CONVERSE[-1])
    assert (seen.reported(), seen.usage_seen) == ([], False)


def raw(headers: bytes, payload: bytes, length: int | None = None) -> bytes:
    """Return a frame with these headers, whose checksums are 0."""
    size = 16 + len(headers) + len(payload) if length is None else length
    begun = size.to_bytes(4, "big") + len(headers).to_bytes(4, "big") + bytes(4)
    return begun + headers + payload + bytes(4)


def header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2, "big") + value.encode()


ERROR = header(":message-type", "exception")


@pytest.mark.parametrize(
    ("data", "failed", "kept"),
    [
        (raw(ERROR, b""), True, []),  # the shortest frame
        (raw(ERROR, b"", 15 + len(ERROR)), False, []),  # one byte too short: it is none
        (raw(ERROR, b"x", 32 * 1024 * 1024 + 1), False, []),
        (raw(ERROR, b"{}")[:-1], False, []),  # not complete yet
        (raw(ERROR, b"{}")[:11], False, []),
        (raw(b"", b'{"a":1}'), False, [b'{"a":1}']),  # without a type it is an event
        (raw(header(":message-type", "event"), b'{"a":1}'), False, [b'{"a":1}']),
        (raw(header(":message-type", "error"), b'{"a":1}'), True, []),
        (raw(header(":event-type", "chunk"), b'{"bytes":"eA=="}'), False, [b"x"]),
        (raw(header(":event-type", "chunk"), b'{"bytes" : "eA=="}'), False, [b"x"]),
        (raw(header(":event-type", "chunk"), b'{"text":"eA=="}'), False, [b'{"text":"eA=="}']),
        (raw(header(":event-type", "other"), b'{"bytes":"eA=="}'), False, [b'{"bytes":"eA=="}']),
        (raw(b"\x05abc", b"{}"), False, [b"{}"]),  # headers that end too early
        (raw(b"\x01a", b"{}"), False, [b"{}"]),
        (raw(ERROR + b"\x01a\x06\x00\x02xy", b"{}"), True, []),
        (raw(b"\x01a\x06\x01\x00" + b"x" * 256 + ERROR, b"{}"), True, []),  # a value of 256 bytes
        (raw(header("a", "x" * 300) + ERROR, b"{}"), True, []),
        (raw(b"\x0d:message-typ\xff\x07\x00\x01\xff" + ERROR, b"{}"), True, []),
    ],
)
def test_what_a_frame_says(data: bytes, failed: bool, kept: list[bytes]) -> None:
    seen = fed(data)
    assert (seen.failed, list(seen.kept)) == (failed, kept)


def test_after_what_is_no_frame_nothing_is_read() -> None:
    seen = fed(raw(b"", b'{"a":1}') + b"\x00" * 16, raw(ERROR, b""))
    assert (seen.failed, list(seen.kept)) == (False, [b'{"a":1}'])


@pytest.mark.parametrize(("longest", "failed"), [(63, False), (64, True)])
def test_the_longest_frame(monkeypatch: pytest.MonkeyPatch, longest: int, failed: bool) -> None:
    monkeypatch.setattr("cycles.providers._frames._LONGEST", longest)
    assert fed(raw(ERROR, b"x" * (48 - len(ERROR)))).failed is failed


VALUES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""The types of headers whose values have a fixed number of bytes; before others (6 is bytes), there is their length."""


@pytest.mark.parametrize("header", [*(bytes((kind, *[1] * size)) for kind, size in VALUES.items()), b"\x06\x00\x02xy"])
def test_headers_of_other_types_are_skipped(header: bytes) -> None:
    error = frame("throttlingException", {}, "exception")
    length = int.from_bytes(error[4:8], "big")
    headers, payload = b"\x01a" + header + error[12 : 12 + length], error[12 + length : -4]
    assert fed(raw(headers, payload)).failed  # the header after it says that it is an error


def test_the_cost_of_a_large_frame_is_linear() -> None:
    data = packed({"type": "content_block_delta", "delta": {"text": "x" * 3_000_000}})
    seen = fed(*(data[at : at + 512] for at in range(0, len(data), 512)))
    assert len(list(seen.kept)) == 1
