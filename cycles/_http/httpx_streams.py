"""Change how httpcore reads and writes on the connections that an exchange over an httpx client opens.

A stream has the interface that httpcore documents: `read(max_bytes, timeout)` and `write(buffer, timeout)`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any


class _ThisThread(threading.local):
    deadline: float | None = None
    """When the blocking attempt of this thread ends (monotonic seconds)."""
    is_sending_head: bool = False
    """Whether the next head that this thread writes is one of ours, with a body that follows it."""


this_thread = _ThisThread()


def bound_reads(stream: Any) -> None:
    """Let every read on this connection end at the deadline of the attempt that reads.

    httpcore gives each read of a response head the whole read timeout, so a server that sends one byte at a time would
    never be timed out.
    """
    read = getattr(stream, "read", None)
    if read is None:
        return

    def bounded(max_bytes: int, timeout: float | None = None) -> Any:
        deadline = this_thread.deadline
        if deadline is not None:
            left = max(0.001, deadline - time.monotonic())
            timeout = left if timeout is None else min(timeout, left)
        return read(max_bytes, timeout)

    with contextlib.suppress(AttributeError):  # a stream with slots keeps its timeout for each read
        stream.read = bounded


class _Writes:
    """Keeps the head of a request until the body comes, so that one system call (and one packet) sends both.

    httpcore writes them one after the other. Only heads of ours are kept: their body follows without a wait.
    """

    def __init__(self) -> None:
        self._head = b""

    def take(self, buffer: bytes) -> bytes:
        """Return the bytes to write now."""
        if this_thread.is_sending_head and buffer[:5] == b"POST " and buffer[-4:] == b"\r\n\r\n":
            this_thread.is_sending_head = False
            self._head = buffer
            return b""
        head, self._head = self._head, b""
        return head + buffer


def join_writes(stream: Any, *, is_async: bool) -> None:
    """Write the head and the body of our requests in one system call on this connection."""
    write = getattr(stream, "write", None)
    if write is None:
        return
    writes = _Writes()

    def joined(buffer: bytes, timeout: float | None = None) -> None:
        if data := writes.take(buffer):
            write(data, timeout)

    async def joined_async(buffer: bytes, timeout: float | None = None) -> None:
        if data := writes.take(buffer):
            await write(data, timeout)

    with contextlib.suppress(AttributeError):
        stream.write = joined_async if is_async else joined
