"""Server-sent events in bytes: forwarded when they are complete, read for usage, and one of them held back.

An event is parsed only if it may report usage, an error or an end. The others stay bytes until an estimate needs them.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cycles.providers._provider import StreamRules

_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_END: Final = 3  # bytes of an end that may be in the pieces before
_PACK: Final = 256
"""Events that are compressed together."""


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
        rules: How the provider's events report usage, ends and errors.
        hide_usage: Do not forward the event with the usage and nothing else.

    Attributes:
        finished: An event with a finish reason was seen.
        complete: The provider's last event was seen.
        failed: An error event was seen.
        usage_seen: A total of the whole response was seen.
        kept: Events that may carry output, as bytes.
    """

    __slots__ = (
        "_counted",
        "_hide_usage",
        "_latest",
        "_reported",
        "_rest",
        "_rules",
        "_shows_rest",
        "_tail",
        "complete",
        "failed",
        "finished",
        "kept",
        "usage_seen",
    )

    def __init__(self, rules: StreamRules, *, hide_usage: bool) -> None:
        self._rules = rules
        self._hide_usage = hide_usage
        self._latest: bytes | None = None  # the last event with running totals
        self._counted: list[bytes] = []  # those that are read beside it
        self._rest: list[bytes] = []  # pieces of an event that is not complete
        self._tail = b""  # its last bytes
        self._shows_rest: bool | None = None  # set by `see_rest`
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
        shows_rest = self.see_rest()
        rest, self._rest, self._tail = b"".join(self._rest), [], b""
        return rest if shows_rest else b""

    def see_rest(self) -> bool:
        """Note once what a last event reports that has no empty line behind it; False if it is not to be forwarded.

        A truncated event reports nothing: it must not replace the totals before it.
        """
        if self._shows_rest is None:
            rest = b"".join(self._rest)
            is_whole = parsed(rest) is not None or self._rules.last.is_in(rest)
            self._shows_rest = self._see(rest) if is_whole else True
        return self._shows_rest

    def reported(self) -> list[Any]:
        """Return the events with usage, parsed."""
        events = self._counted if self._latest is None else [*self._counted, self._latest]
        return [*self._reported, *(parsed(event) for event in events)]

    def _see(self, event: bytes) -> bool:
        """Note what an event reports; False if it is not to be forwarded."""
        rules = self._rules
        self.complete = self.complete or rules.last.is_in(event)
        self.finished = self.finished or rules.with_finish.is_in(event)
        if rules.counted.is_in(event):
            self._counted.append(event)
        may_fail, may_report = rules.with_error.is_in(event), rules.with_usage.is_in(event)
        if rules.running_totals:
            return self._see_running(event, may_fail, may_report)
        value = parsed(event) if may_fail or may_report else None
        if not isinstance(value, Mapping):
            self.kept.append(event)
            return True
        self.failed = self.failed or (may_fail and rules.failed(value))
        reported = rules.usage(value, self.finished)
        if reported is not None:
            self._reported.append(value)
            if reported != "part":
                self.usage_seen = self.finished = True
        if reported != "alone":
            self.kept.append(event)
        return not (reported == "alone" and self._hide_usage)

    def _see_running(self, event: bytes, may_fail: bool, may_report: bool) -> bool:
        self.kept.append(event)
        value = parsed(event) if may_fail else None
        self.failed = self.failed or (isinstance(value, Mapping) and self._rules.failed(value))
        if may_report:
            self._latest = event
            self.usage_seen = self.finished
        return True


def _ends(data: bytes) -> Iterator[int]:
    """Yield where events end."""
    if b"\r" in data:
        yield from (end.end() for end in _END.finditer(data))
        return
    end = data.find(b"\n\n")
    while end >= 0:
        yield end + 2
        end = data.find(b"\n\n", end + 2)


def parsed(event: bytes) -> Any:
    """Return the JSON of an event; None if it has none."""
    data = [part[5:] for part in event.splitlines() if part.startswith(b"data:")]
    try:
        return json.loads(b"\n".join(data) if data else event)
    except (ValueError, RecursionError):
        return None


_OUTPUT: Final = re.compile(
    "content|text|refusal|reasoning|reasoning_content|thinking|arguments|partial_json|transcript|completion|input|tool_plan"
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
                if member and _OUTPUT.fullmatch(str(name)):
                    yield member
            elif name in ("args", "input") and isinstance(member, Mapping):
                if member:
                    yield json.dumps(member, ensure_ascii=False, separators=(",", ":"))
            elif name not in ("usage", "tools", "metadata"):
                yield from strings_of(member)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
