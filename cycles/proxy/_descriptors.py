"""The limit of open files: it is raised at the start, and connections beyond it wait.

A call needs two descriptors, one to the program and one to the provider. A part of the limit is kept for providers: if
programs could take all of it, no call could end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sized
from typing import Any, Final

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

OTHERS: Final = 100
"""Descriptors for everything but connections of programs and providers: files, the ledger, event loops."""
MOST: Final = 65_536
"""The limit that is set if the system sets none."""
PAUSE_S: Final = 0.05
_NO_MORE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log: Final = logging.getLogger("cycles")


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it."""
    if resource is None:
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS: the kernel has a lower one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return min(MOST, soft) if soft != resource.RLIM_INFINITY else MOST


@contextlib.contextmanager
def restored_limit(before: tuple[int, int] | None) -> Iterator[None]:
    """Set the limit to what it was for a process that is started in the block: `select` fails above 1,024 files."""
    if resource is None or before is None:
        yield
        return
    now = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], now[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, now)


def current_limit() -> tuple[int, int] | None:
    """Return the soft and the hard limit; None if the system has none."""
    return None if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)


def for_providers(limit: int, *, fake: bool) -> int:
    """Return how many connections to providers may be open; a fake provider in this process needs two for each."""
    return max(4, limit // (8 if fake else 4))


def for_programs(limit: int) -> int:
    """Return how many connections of programs are accepted."""
    return max(8, limit - limit // 4 - OTHERS)


class Listener:
    """Accepts connections while fewer than `most` are open; the others wait in the queue of the socket.

    It stands in for the servers of an event loop, which have no such limit, and log a traceback if there is no
    descriptor for a connection.
    """

    def __init__(
        self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol], connections: Sized, most: int
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._protocol = protocol
        self._connections = connections
        self._most = most
        self._warned = False
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if len(self._connections) >= self._most:
                self._warn()
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                connection, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                if error.errno in _NO_MORE:
                    self._warn()
                await asyncio.sleep(PAUSE_S)
                continue
            with contextlib.suppress(OSError):  # it is closed already
                await loop.connect_accepted_socket(self._protocol, connection)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "%d connections are open, and the limit of open files allows no more: others wait; raise it with "
                "ulimit -n before cycles is started",
                len(self._connections),
            )

    def close(self) -> None:
        """Accept no more connections."""
        self._task.cancel()
        self._sock.close()

    async def wait_closed(self) -> Any:
        """Wait until none is being accepted."""
        return await asyncio.wait([self._task])
