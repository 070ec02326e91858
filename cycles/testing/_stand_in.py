"""The provider of `--fake`: a fake provider for programs, whose responses use up a budget soon."""

from __future__ import annotations

from typing import Final

from cycles.testing._limits import limit_of
from cycles.testing._reply import Received, Reply
from cycles.testing._server import FakeProvider, generates, model_of, request_body

OUTPUT_TOKENS: Final = 1_000
"""What a response reports if its output limit is not lower."""
_NO_TEXT: Final = ("/images/", "/audio/", "mbed")
"""Parts of the paths of endpoints that make no text."""


class FakeModels(FakeProvider):
    """A fake provider that numbers its responses, and keeps neither requests nor a bill."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def _receive(self, request: Received) -> Reply:
        self.clear()  # a program may send requests for days
        if not generates(request):
            return self._background.reply_to(request) or Reply()
        with self._lock:
            self._number += 1
            number = self._number
        body = request_body(request)
        reply = Reply(text=f"Done ({number}).")
        if any(part in request.path for part in _NO_TEXT):
            return reply
        limit = limit_of(model_of(request, reply), body)
        return Reply(text=reply.text, usage={**reply.counts(body), "tokens_output": min(limit, OUTPUT_TOKENS)})
