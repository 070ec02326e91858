"""A signal that is set once. Threads wait for it with `BlockingIo.wait`, tasks with `TaskIo.wait`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from operator import call


class Signal:
    """Something that happens once. Callbacks run in the thread that sets it.

    It has no lock: a signal handler may use it in the middle of each method, and make a call that sets it.
    """

    __slots__ = ("_callbacks", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._callbacks: list[Callable[[], object]] = []

    def set(self) -> None:
        """Set it and call the callbacks; does nothing if it is set already."""
        self.is_set = True
        calling: list[Callable[[], object]] = []
        # A signal handler may raise at any point: what was not called completely is called, and the error raised.
        try:
            self._call(calling)
        except BaseException:
            self._call(calling)
            raise

    def on_set(self, callback: Callable[[], object]) -> None:
        """Call `callback` when it is set, or now if it is set already."""
        self._callbacks.append(callback)
        if self.is_set:  # looked at afterwards, so that `set` in another thread overlooks no callback
            self.set()

    def drop(self, callback: Callable[[], object]) -> None:
        """Call `callback` no longer: its caller does not wait any more."""
        with contextlib.suppress(ValueError):  # it was called in the meantime
            self._callbacks.remove(callback)

    def _call(self, calling: list[Callable[[], object]]) -> None:
        """Call the callback in `calling`, then each of the others."""
        while calling or self._callbacks:
            if not calling:
                # One call of C code moves it, so that no interrupt and no other thread comes in between.
                with contextlib.suppress(IndexError):  # another thread was faster
                    calling.extend(map(call, (self._callbacks.pop,)))
                continue
            calling[0]()
            calling.clear()
