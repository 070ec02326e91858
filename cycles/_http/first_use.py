"""A lock for what is imported and built at first use: a fork waits until it is free.

Another thread may import a module or build a client's parts while this one forks. The child would find the locks of
that moment held for ever. So first uses hold this lock, and so does a fork.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from cycles._errors import TransportError

first_use: Final = threading.RLock()


class Loading:
    """Names the problem if a part of the SDK cannot be loaded before a request: ``with first_use, loading:``.

    The lock is taken beside it: a signal handler that raises inside of a method of Python would leave it held.

    Raises:
        TransportError: It could not be read, usually because the process has no free file descriptor. The request was
            not sent.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        if isinstance(raised, OSError):
            raise TransportError(
                f"a part of the SDK could not be loaded, so nothing was sent: {raised}; close files or raise the limit "
                "of open files (ulimit -n)",
                cause=raised,
                request_sent=False,
            ) from raised


loading: Final = Loading()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=first_use.acquire, after_in_parent=first_use.release, after_in_child=first_use.release)
