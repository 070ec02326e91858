"""Resolve the server's name in a separate thread, so that a deadline limits it and a slow name service delays no close.

The addresses that were found last are kept, and used while the name service is slow or down.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - getaddrinfo loads it: here it happens where no fork can interrupt it (`first_use`)
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Address: TypeAlias = tuple[Any, Any, int, str, tuple[Any, ...]]
"""One result of `socket.getaddrinfo`: family, type, protocol, canonical name, address."""

KNOWN_SHARE: Final = 0.25  # of the time left: a name with known addresses is not waited for any longer


class Resolver:
    """The addresses of one host. Threads and event loops may share it."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known: list[Address] = []
        self._lookup: Lookup | None = None

    def addresses(self, seconds: float) -> list[Address]:
        """Return the addresses within this time.

        Raises:
            OSError: There are none; TimeoutError if the name service has not responded in time.
        """
        if (numeric := self._numeric()) is not None:
            return numeric
        lookup, done = self._look_up(), queue.SimpleQueue[None]()
        lookup.when_done(lambda: done.put(None))
        with contextlib.suppress(queue.Empty):
            done.get(timeout=self.longest_wait(seconds))
        return self.result(lookup)

    def start(self) -> Lookup | list[Address]:
        """Return the addresses of a numeric host, or a lookup that is in progress."""
        numeric = self._numeric()
        return self._look_up() if numeric is None else numeric

    def longest_wait(self, seconds: float) -> float:
        """Return how many of these seconds to wait for the name service."""
        return max(0.0, seconds * KNOWN_SHARE if self._known else seconds)

    def result(self, lookup: Lookup) -> list[Address]:
        """Return what a lookup has found, or the addresses found before.

        Raises:
            OSError: as for `addresses`.
        """
        # Addresses that worked before are better than none, while the name service is down.
        if lookup.found:
            self._known = lookup.found
        if self._known:
            return self._known
        if lookup.error is not None:
            raise lookup.error
        raise TimeoutError(f"the name service has not resolved {self._host} in time")

    def _numeric(self) -> list[Address] | None:
        if not (self._host[-1:].isdigit() or ":" in self._host):
            return None
        try:
            return socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        except (OSError, UnicodeError):
            return None

    def _look_up(self) -> Lookup:
        """Start a lookup, or join the one in progress: a name service that hangs costs one thread."""
        lookup = self._lookup
        if lookup is None or lookup.done:
            lookup = self._lookup = Lookup(self._host, self._port)
            lookup.start()
        return lookup


class Lookup:
    """One call of the name service."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._listeners: deque[Callable[[], object]] = deque()
        self.found: list[Address] = []
        self.error: OSError | None = None
        self.done = False

    def start(self) -> None:
        """Run in a new thread; in this one if none can be started."""
        try:
            threading.Thread(target=self._run, name="cycles-resolver", daemon=True).start()
        except RuntimeError:
            self._run()

    def when_done(self, listener: Callable[[], object]) -> None:
        """Call the listener once, from the lookup's thread or from this one."""
        self._listeners.append(listener)
        if self.done:
            self._call_listeners()

    def _run(self) -> None:
        try:
            self.found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            self.error = error
        except UnicodeError as error:
            self.error = OSError(f"not a host name: {error}")
        self.done = True
        self._call_listeners()

    def _call_listeners(self) -> None:
        while True:
            try:
                listener = self._listeners.popleft()
            except IndexError:
                return
            listener()
