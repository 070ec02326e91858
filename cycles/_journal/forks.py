"""Forks of this process, which may copy the descriptor of a file that another thread is just making.

A forked child closes the locked files of its parent, because each lock would outlive the parent there. It knows only
the files that are complete. So a file that was being made during a fork is made again.
"""

from __future__ import annotations

import os
import threading
from typing import Final


class _Forks:
    """The forks so far. Every change is one atomic step: threads can fork at the same time."""

    def __init__(self) -> None:
        self.latest = object()
        self.forking: Final[set[int]] = set()  # threads
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lambda: self.forking.add(threading.get_ident()),
                after_in_parent=self._end,
                after_in_child=self.forking.clear,
            )

    def _end(self) -> None:
        self.latest = object()
        self.forking.discard(threading.get_ident())


_FORKS: Final = _Forks()


def latest_fork() -> object:
    """Return a mark of the latest fork, for `forked_since`."""
    return _FORKS.latest


def forked_since(mark: object) -> bool:
    """Return whether this process has forked since then, or does so now."""
    return bool(_FORKS.forking) or _FORKS.latest is not mark
