"""What the fake provider returns, and what it has received: values without behaviour."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from cycles._core.values.usage import checked_counts
from cycles._errors import InvalidRequestError
from cycles._version import readable


@frozen
class ToolCall:
    """A call of a tool of the agent: its name and its arguments."""

    name: str
    arguments: Mapping[str, Any] = field(factory=dict)


def _tool_calls(given: Iterable[ToolCall | tuple[str, Mapping[str, Any]]]) -> tuple[ToolCall, ...]:
    return tuple(_tool_call(call) for call in given)


def _tool_call(given: ToolCall | tuple[str, Mapping[str, Any]]) -> ToolCall:
    if isinstance(given, ToolCall):
        return given
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], Mapping):
        raise InvalidRequestError(f"a tool call must be a ToolCall or a pair of name and arguments, got {given!r:.80}")
    return ToolCall(*given)


def _status(_: object, __: object, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise InvalidRequestError(f"status must be an integer from 200 to 599, got {value!r:.80}")


def _usage(_: object, __: object, value: Mapping[str, int] | None) -> None:
    if value is not None:
        checked_counts(value)


@frozen(kw_only=True)
class Reply:
    """How the fake provider responds to one request.

    Attributes:
        text: What the model writes; a stream sends it word by word.
        tool_calls: Calls of tools, each a `ToolCall` or a pair of name and arguments.
        reasoning: Reasoning that comes before the text, in the APIs that show it.
        usage: Counts by the names of `docs/prices.md`; by default a count of words. ``{}``: no usage is reported.
        model: The model that the response names; by default that of the request.
        extra: Members that are merged into the response, for example ``{"service_tier": "flex"}``.
        body: The whole body of the response, in place of all of the above.
        status: HTTP status; from 400 on the response is an error in the provider's shape.
        error: The message of an error.
        headers: More response headers, or others in place of the usual ones.
        error_after: A stream sends this many events, then an error event.
        drop_after: A stream sends this many events, then the connection breaks; 0 breaks it before any byte.
        delay_s: Seconds to wait before the response.
        gate: The response waits for this event; in a stream, after `gate_after` events.
        gate_after: How many events of a stream are sent before `gate`.
        polls: How many times a response that is made in the background is still in progress when it is retrieved.
        gzip: Whether the body is compressed.
        truncated: Whether it ends with ``length``, ``max_tokens`` or ``MAX_TOKENS``. The provider sets it if the output
            limit of the request is lower than the output tokens.

    Raises:
        InvalidRequestError: (a ValueError) for a wrong count, status or tool call.
        TypeError: for a name in `usage` that is no count.
    """

    text: str = "Hello from the fake provider"
    tool_calls: tuple[ToolCall, ...] = field(default=(), converter=_tool_calls)
    reasoning: str = ""
    usage: Mapping[str, int] | None = field(default=None, validator=_usage)
    model: str | None = None
    extra: Mapping[str, Any] = field(factory=dict)
    body: Mapping[str, Any] | bytes | None = None
    status: int = field(default=200, validator=_status)
    error: str = "the fake provider fails as configured"
    headers: Mapping[str, str] = field(factory=dict)
    error_after: int | None = None
    drop_after: int | None = None
    delay_s: float = 0.0
    gate: threading.Event | None = None
    gate_after: int = 0
    polls: int = 0
    gzip: bool = False
    truncated: bool = False

    def pieces(self) -> list[str]:
        """Return the text in the pieces of a stream."""
        return [word if first else f" {word}" for first, word in _marked(self.text.split(" "))] if self.text else []

    def counts(self, request: Mapping[str, Any]) -> Mapping[str, int]:
        """Return the counts to report; by default the number of words."""
        if self.usage is not None:
            return self.usage
        read = len(str(request).split())
        written = len(self.text.split()) + len(self.reasoning.split()) + 5 * len(self.tool_calls)
        return {"tokens_input": read, "tokens_output": max(1, written)}


def _marked(chunks: list[str]) -> Iterable[tuple[bool, str]]:
    return ((index == 0, chunk) for index, chunk in enumerate(chunks))


@frozen
class Received:
    """One request that the fake provider received.

    Attributes:
        method: HTTP method.
        path: Path without query.
        query: The query string.
        headers: By lower-case name.
        body: The JSON body; the raw bytes if it is no JSON.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Any


readable(Received, Reply, ToolCall)
