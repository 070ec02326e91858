"""The responses that the fake provider makes in the background: kept by their ids until they are deleted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from attrs import define, evolve

from cycles.testing import _openai
from cycles.testing._reply import Received, Reply

_MOST: Final = 1_000
"""How many responses are kept; a program may send requests for days."""
_PATH: Final = "/responses"


@define
class _Stored:
    """One response.

    Attributes:
        model: The model that it names.
        request: The members of the request.
        reply: What it will be.
        polls: How many more times it is in progress when it is retrieved.
        is_cancelled: It was cancelled before it was complete.
    """

    model: str
    request: Mapping[str, Any]
    reply: Reply
    polls: int
    is_cancelled: bool = False


class BackgroundResponses:
    """The responses of one fake provider."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._stored: dict[str, _Stored] = {}

    def begun(self, request: Received, model: str, reply: Reply) -> Reply:
        """Keep a response if it is to be made in the background; return the reply to the request that begins it."""
        body = request.body
        is_asked = request.path.endswith(_PATH) and isinstance(body, Mapping) and body.get("background") is True
        if not is_asked or reply.status >= 400 or reply.body is not None:
            return reply
        response_id = f"resp_{next(self._numbers)}"
        named = evolve(reply, extra={**reply.extra, "id": response_id})
        with self._lock:
            self._stored[response_id] = _Stored(model, body, named, reply.polls)
            while len(self._stored) > _MOST:
                del self._stored[next(iter(self._stored))]
        if body.get("stream") is True:
            return named
        return evolve(reply, body={**_openai.response(model, body, named, status="queued"), "id": response_id})

    def reply_to(self, request: Received) -> Reply | None:
        """Return the reply to a request that retrieves, cancels or deletes a response; None for other requests."""
        before, _, after = request.path.rpartition(f"{_PATH}/")
        response_id, _, operation = after.partition("/")
        if not before or not response_id.startswith("resp_"):
            return None
        with self._lock:
            stored = self._stored.get(response_id)
            if stored is None:
                return Reply(status=404, error=f"response {response_id} does not exist")
            if request.method == "DELETE":
                del self._stored[response_id]
                return Reply(body={"id": response_id, "object": "response", "deleted": True})
            if operation == "cancel" and stored.polls:
                stored.is_cancelled = True
            elif request.method == "GET" and "true" in parse_qs(request.query).get("stream", []):
                stored.polls = 0
                return Reply(body=b"".join(_openai.events(_PATH, stored.request, stored.reply)))
            return Reply(body=self._progress(stored, response_id))

    def _progress(self, stored: _Stored, response_id: str) -> Mapping[str, Any]:
        if stored.is_cancelled or stored.polls:
            stored.polls = max(0, stored.polls - 1)
            status = "cancelled" if stored.is_cancelled else "in_progress"
            return {**_openai.response(stored.model, stored.request, stored.reply, status=status), "id": response_id}
        done = _openai.response(stored.model, stored.request, stored.reply, status="completed")
        return {**done, **stored.reply.extra}
