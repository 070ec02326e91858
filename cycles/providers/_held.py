"""Responses that a provider makes in the background, with the calls that stay open until they end. No I/O.

Nothing here has a lock: each step is one call of C code, so threads, signal handlers and finalizers may be in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from cycles.providers._provider import Background
from cycles.providers._stream_filter import StreamFilter, parsed

C = TypeVar("C")


class HeldResponses(Generic[C]):
    """The open calls of one guarded client and its copies, or of one run of the proxy, by the ids of their responses.

    Attributes:
        is_closed: The client was dropped, or the run has ended: nothing is held any more.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._calls: dict[str, C] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no call is open."""
        return not self._calls

    def add(self, response_id: str, call: C) -> bool:
        """Add a call; return False if another one has a response of this id, or if nothing is held any more."""
        if self._calls.setdefault(response_id, call) is not call:
            return False
        if self.is_closed:  # looked at afterwards, so that `close` overlooks no call
            self.remove(response_id, call)
        return not self.is_closed

    def get(self, response_id: str | None) -> C | None:
        """Return the open call of a response, or None."""
        return None if response_id is None else self._calls.get(response_id)

    def remove(self, response_id: str, call: C) -> None:
        """Remove a call that has ended."""
        if self._calls.get(response_id) is call:
            self._calls.pop(response_id, None)

    def close(self) -> list[C]:
        """Hold nothing any more, and return the open calls."""
        self.is_closed = True
        return list(self._calls.values())


def response_in(value: Any) -> Mapping[str, Any]:
    """Return the response of a body or of an event; empty if there is none."""
    inner = value.get("response") if isinstance(value, Mapping) else None
    found = inner if isinstance(inner, Mapping) else value
    return found if isinstance(found, Mapping) else {}


def responses_in(seen: StreamFilter) -> Iterator[Mapping[str, Any]]:
    """Yield the response of each event of a stream that reports its status, those with usage last."""
    for event in seen.kept:
        if b'"status"' in event:
            yield response_in(parsed(event))
    for value in seen.reported():
        yield response_in(value)


def ended_in(background: Background, responses: Iterator[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the last response that has ended, or None."""
    found = [response for response in responses if response.get("status") in background.ended]
    return found[-1] if found else None


def running_in(background: Background, responses: Iterator[Mapping[str, Any]]) -> str | None:
    """Return the id of a response that is still being made, or None."""
    running: str | None = None
    for response in responses:
        if response.get("status") in background.ended:
            return None
        if response.get("status") in background.running and isinstance(response.get("id"), str):
            running = response["id"]
    return running
