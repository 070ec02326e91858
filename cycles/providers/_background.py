"""Requests that retrieve, cancel or delete a response that is made in the background: they end its call. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles.providers._bodies import parsed_json
from cycles.providers._call import Call, End, Outcome
from cycles.providers._endpoints import stored_response
from cycles.providers._held import HeldResponses, ended_in, response_in, responses_in
from cycles.providers._meter import Meter
from cycles.providers._stream_filter import StreamFilter


class Retrieval:
    """One request for a response that a call has open. It costs nothing itself.

    Attributes:
        meter: The settings of the client that has begun the response.
        call: The open call.
        streams: The response is read by the user.
        responded: Its response has a success status.
    """

    def __init__(self, call: Call, *, deletes: bool) -> None:
        self.meter: Meter = call.meter
        self.call = call
        self.streams = False
        self.responded = False
        self._deletes = deletes
        self._content: bytes | None = None
        self._filter: StreamFilter | None = None

    @property
    def usage_event(self) -> bool:
        """Whether the stream ends with an event that has the usage and nothing else: it does not."""
        return False

    @property
    def stream_outcome(self) -> Outcome:
        """How a stream that is closed now has ended: the call says that itself."""
        return None

    def whole(self, content: bytes) -> None:
        """Keep a whole response; it is read by `end_of_call`."""
        self._content, self.responded = content, True

    def stream(self, *, in_frames: bool = False) -> StreamFilter:
        """Begin to read a stream of events, and return its filter."""
        self._filter = StreamFilter(self.call.rules, hide_usage=False)
        return self._filter

    def end_of_call(self) -> End | None:
        """Return how the call ends by what was retrieved; None if its response is still being made."""
        if self._deletes:
            return End(None, None) if self.responded else None
        background = self.call.endpoint.background
        if background is None:
            return None
        found: Mapping[str, Any] | None = None
        if self._filter is not None:
            found = ended_in(background, responses_in(self._filter))
        elif self._content is not None:
            found = ended_in(background, iter([response_in(parsed_json(self._content))]))
        if found is None or found.get("id") != self.call.held_id:
            return None
        return End(None, None, found)


def retrieval_of(held: HeldResponses[Call], provider: str, method: str, path: str) -> Retrieval | None:
    """Return what a request retrieves, cancels or deletes; None if no open call has it.

    Args:
        held: The open calls.
        provider: Whose SDK sends it.
        method: HTTP method, in any case.
        path: As the SDK has it, before it adds deployments or regions.
    """
    if not held.is_empty and (call := held.get(stored_response(provider, path))) is not None:
        return Retrieval(call, deletes=method.upper() == "DELETE")
    return None
