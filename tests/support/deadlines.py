"""Requests without a response, and when each of them would have ended at the latest."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest

from cycles._core.messages.outcome import Unreachable
from cycles._drivers.runtime import Runtime


class Unanswered:
    """Takes the requests of this thread in place of a server, and returns no response to them."""

    def __init__(self, runtime: Runtime, monkeypatch: Any) -> None:
        self.left_s: list[float] = []
        """How much time each request had."""
        self._thread = threading.get_ident()
        monkeypatch.setattr(runtime.channel, "send", self._send)

    async def _send(self, call: Any, loop: Any = None, ends_at_s: float = math.inf) -> Unreachable:
        if threading.get_ident() == self._thread:
            own_s = math.inf if call.options.timeout_s is None else call.options.timeout_s
            self.left_s.append(min(own_s, ends_at_s - time.monotonic()))
        return Unreachable("no response", sent=True)


def no_thread(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


def refuse_threads_of_schedulers(patch: pytest.MonkeyPatch) -> None:
    """Let no scheduler start a thread, as if the process was at its limit."""
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name.startswith("cycles-scheduler"):
            no_thread()
        start(thread)

    patch.setattr(threading.Thread, "start", start_others)
