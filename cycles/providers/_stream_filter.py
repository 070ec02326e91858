"""Server-sent events in bytes: forwarded when they are complete, read for usage, and one of them held back.

An event is parsed only if it may report usage, an error or an end. The others stay bytes until an estimate needs them.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_END: Final = 3  # bytes of an end that may be in the pieces before
_USAGE: Final = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{')
_FINISH: Final = re.compile(rb'"(?:finish_reason|stop_reason|finishReason)"\s*:\s*"')
_PACK: Final = 256
"""Events that are compressed together."""
_NO_REASON: Final = re.compile(rb'eason":\s*null')
_LAST: Final = (b"data: [DONE]", b"data:[DONE]", b'"type":"message_stop"', b'"type": "message_stop"')
_ERROR: Final = re.compile(
    rb'^event:\s*error|"error"\s*:\s*[{"]|"type"\s*:\s*"(?:error|response\.failed)"', re.MULTILINE
)
_GROUNDING: Final = b'"groundingMetadata"'
_COMPLETED: Final = re.compile(rb'"type"\s*:\s*"[\w.]*\.(?:completed|incomplete|done|failed)"')


class Kept:
    """Events that an estimate may need, in a tenth of their memory: thousands of streams may be open."""

    __slots__ = ("_packed", "_recent")

    def __init__(self) -> None:
        self._recent: list[bytes] = []
        self._packed: list[tuple[bytes, list[int]]] = []  # compressed events, and their sizes

    def append(self, event: bytes) -> None:
        """Add an event."""
        self._recent.append(event)
        if len(self._recent) == _PACK:
            sizes = [len(each) for each in self._recent]
            self._packed.append((zlib.compress(b"".join(self._recent), 1), sizes))
            self._recent = []

    def clear(self) -> None:
        """Delete all of them."""
        self._recent, self._packed = [], []

    def __iter__(self) -> Iterator[bytes]:
        for packed, sizes in self._packed:
            data, start = zlib.decompress(packed), 0
            for size in sizes:
                yield data[start : start + size]
                start += size
        yield from self._recent


class StreamFilter:
    """Splits a stream into events and notes what they report.

    Args:
        hide_usage: Do not forward the event with the usage and nothing else.
        running_totals: Each event reports the totals so far, as Gemini's do: the last one is parsed.

    Attributes:
        finished: An event with a finish reason was seen.
        complete: The provider's last event was seen.
        failed: An error event was seen.
        usage_seen: A total of the whole response was seen.
        kept: Events that may carry output, as bytes.
    """

    __slots__ = (
        "_grounded",
        "_hide_usage",
        "_latest",
        "_reported",
        "_rest",
        "_running",
        "_tail",
        "complete",
        "failed",
        "finished",
        "kept",
        "usage_seen",
    )

    def __init__(self, *, hide_usage: bool, running_totals: bool = False) -> None:
        self._hide_usage = hide_usage
        self._running = running_totals
        self._latest: bytes | None = None  # the last event with running totals
        self._grounded: list[bytes] = []
        self._rest: list[bytes] = []  # pieces of an event that is not complete
        self._tail = b""  # its last bytes
        self.finished = False
        self.complete = False
        self.failed = False
        self.usage_seen = False
        self.kept = Kept()
        self._reported: list[Any] = []  # parsed events with usage

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the body and return the bytes of the events that are complete now."""
        tail = self._tail
        searched = tail + chunk if tail else chunk  # only new bytes: an event may come in thousands of pieces
        ends = list(_ends(searched))
        if not ends:
            self._rest.append(chunk)
            self._tail = searched[-_LONGEST_END:]
            return b""
        before, data = 0, chunk
        if self._rest:
            before = sum(map(len, self._rest)) - len(tail)
            data = b"".join([*self._rest, chunk])
        forward = []
        start = 0
        for end in ends:
            event = data[start : before + end]
            start = before + end
            if self._see(event):
                forward.append(event)
        rest = data[start:]
        self._rest, self._tail = [rest] if rest else [], rest[-_LONGEST_END:]
        return forward[0] if len(forward) == 1 else b"".join(forward)

    def flush(self) -> bytes:
        """Return what is left when the body ends."""
        rest, self._rest, self._tail = b"".join(self._rest), [], b""
        return rest if rest and self._see(rest) else b""

    def reported(self) -> list[Any]:
        """Return the events with usage, parsed."""
        events = self._grounded if self._latest is None else [*self._grounded, self._latest]
        return [*self._reported, *(parsed(event) for event in events)]

    def _see_running(self, event: bytes) -> bool:
        self.kept.append(event)
        if _may_fail(event) and _is_error(parsed(event)):
            self.failed = True
        if _finishes(event):
            self.finished = True
        if _GROUNDING in event:
            self._grounded.append(event)
        if _reports_usage(event):
            self._latest = event
            self.usage_seen = self.finished
        return True

    def _see(self, event: bytes) -> bool:
        """Note what an event reports; False if it is not to be forwarded."""
        if self._running:
            return self._see_running(event)
        self.complete = self.complete or _is_last(event)
        error = _may_fail(event)
        if not error and not _reports_usage(event):
            self.finished = self.finished or _finishes(event)
            self.kept.append(event)
            return True
        value = parsed(event)
        if error and _is_error(value):
            self.failed = True
        if _finishes(event):
            self.finished = True
        if not _has_usage(value):
            self.kept.append(event)
            return True
        self._reported.append(value)
        if _COMPLETED.search(event) is not None or _is_total(value):
            self.usage_seen = self.finished = True
        hidden = isinstance(value, Mapping) and value.get("choices") == []
        if "choices" in value and (hidden or self.finished):
            self.usage_seen = True
        if not hidden:
            self.kept.append(event)
        return not (hidden and self._hide_usage)


# One event in twenty matters, and searching for a substring is ten times faster than these expressions.


def _is_last(event: bytes) -> bool:
    return (b"[DONE]" in event or b"message_stop" in event) and any(last in event for last in _LAST)


def _may_fail(event: bytes) -> bool:
    return (b"error" in event or b"failed" in event) and _ERROR.search(event) is not None


def _reports_usage(event: bytes) -> bool:
    return b"usage" in event and _USAGE.search(event) is not None


def _finishes(event: bytes) -> bool:
    if b"eason" not in event or (event.count(b"eason") == 1 and _NO_REASON.search(event) is not None):
        return False
    return _FINISH.search(event) is not None


def _ends(data: bytes) -> Iterator[int]:
    """Yield where events end."""
    if b"\r" in data:
        yield from (end.end() for end in _END.finditer(data))
        return
    end = data.find(b"\n\n")
    while end >= 0:
        yield end + 2
        end = data.find(b"\n\n", end + 2)


def _is_total(value: Any) -> bool:
    """Whether an event of the messages API reports the output so far; one whose output is null does not. Or the last
    event of Cohere."""
    if value.get("type") == "message-end":
        return True
    reported = value.get("usage") if value.get("type") == "message_delta" else None
    return isinstance(reported, Mapping) and isinstance(reported.get("output_tokens"), int)


def _has_usage(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    inner = next((value[name] for name in ("response", "message", "x_groq", "delta") if value.get(name)), None)
    return bool(value.get("usage") or (isinstance(inner, Mapping) and inner.get("usage")))


def _is_error(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    delta = value.get("delta")
    if isinstance(delta, Mapping) and delta.get("error"):
        return True
    return bool(value.get("error")) or value.get("type") in ("error", "response.failed")


def parsed(event: bytes) -> Any:
    """Return the JSON of an event; None if it has none."""
    data = [part[5:] for part in event.splitlines() if part.startswith(b"data:")]
    try:
        return json.loads(b"\n".join(data) if data else event)
    except ValueError:
        return None


_OUTPUT: Final = (
    "content",
    "text",
    "refusal",
    "reasoning",
    "reasoning_content",
    "thinking",
    "arguments",
    "partial_json",
    "transcript",
    "completion",
    "input",
    "tool_plan",
)


def strings_of(value: Any) -> Iterator[str]:
    """Yield the text, reasoning and tool arguments of an event or of a whole response."""
    if isinstance(value, Mapping):
        kind = value.get("type")
        if isinstance(kind, str) and kind.startswith("response."):
            delta = value.get("delta")
            if isinstance(delta, str):
                yield delta
            return
        for name, member in value.items():
            if isinstance(member, str):
                if name in _OUTPUT and member:
                    yield member
            elif name in ("args", "input") and isinstance(member, Mapping):
                if member:
                    yield json.dumps(member, ensure_ascii=False, separators=(",", ":"))
            elif name not in ("usage", "tools", "metadata"):
                yield from strings_of(member)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
