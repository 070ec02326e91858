"""A signal that is set once. Threads wait for it with `BlockingIo.wait`, tasks with `TaskIo.wait`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


class Signal:
    """Something that happens once. Callbacks run in the thread that sets it."""

    __slots__ = ("_callbacks", "_lock", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Set it and call the callbacks; does nothing if it is set already."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
            self.is_set = True
        for callback in callbacks:
            callback()

    def on_set(self, callback: Callable[[], object]) -> None:
        """Call `callback` when it is set, or now if it is set already."""
        with self._lock:
            if not self.is_set:
                self._callbacks.append(callback)
                return
        callback()

    def drop(self, callback: Callable[[], object]) -> None:
        """Call `callback` no longer: its caller does not wait any more."""
        with self._lock, contextlib.suppress(ValueError):  # it was called in the meantime
            self._callbacks.remove(callback)
