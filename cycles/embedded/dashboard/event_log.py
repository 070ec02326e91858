"""Numbered server-sent events: the newest ones are kept, so that a page that lost its connection can continue."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

KEPT_EVENTS: Final = 1_000


class EventLog:
    """The last 1,000 events, encoded. They are compressed: at full speed an event has some hundred kilobytes.

    Args:
        first_id: Id before the first event. Ids of a later server must be higher, so that a page which outlives its
            server is not continued with the events of another one.
        encode: Makes JSON of the data.
    """

    def __init__(self, first_id: int, encode: Callable[[Any], bytes]) -> None:
        self.last_id: int = first_id
        self._encode = encode
        self._kept: deque[bytes] = deque(maxlen=KEPT_EVENTS)

    def add(self, data: Mapping[str, Any] | None) -> None:
        """Number and keep an event with this data. None makes the event `reset`: the page reads the state again."""
        event_id = self.last_id + 1
        body = self._encode({"last_event_id": event_id, **(data or {})})
        self._kept.append(zlib.compress(framed(event_id, body, is_reset=data is None), 1))
        self.last_id = event_id

    def since(self, event_id: int) -> list[bytes]:
        """Return the events after `event_id`: a `reset` if they are not kept any more or the id is unknown."""
        missing = self.last_id - event_id
        if not 0 <= missing <= len(self._kept):
            return [framed(self.last_id, self._encode({"last_event_id": self.last_id}), is_reset=True)]
        kept = list(self._kept)
        return [zlib.decompress(event) for event in kept[len(kept) - missing :]]


def framed(event_id: int, body: bytes, *, is_reset: bool) -> bytes:
    """Return an event in the format of server-sent events."""
    name = b"event: reset\n" if is_reset else b""
    return b"%sid: %d\ndata: %s\n\n" % (name, event_id, body)
