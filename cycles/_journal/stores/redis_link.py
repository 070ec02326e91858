"""One connection to Redis that `RedisStore` keeps for its puts.

A commit waits for its put. A client of redis-py takes a connection from its pool for each command and releases it,
which takes longer than Redis needs to save the record.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any


class RedisLink:
    """A connection that is made when it is needed, and again after a failure or a fork.

    It serves one thread at a time; a second one uses the pool of the client.

    Args:
        module: The package `redis`.
        client: The client of the store, whose settings and pool the connection has.
        repeat_s: A command is sent once more if the connection was lost within this time: the server has closed it
            while it was idle. The scripts of puts may run twice.
    """

    def __init__(self, module: Any, client: Any, repeat_s: float) -> None:
        self._response_error = module.exceptions.ResponseError
        self._lost = module.exceptions.ConnectionError
        self._client = client
        self._repeat_s = repeat_s
        self._own: Any = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def evalsha(self, *arguments: Any) -> Any:
        """Run a script that Redis knows, and return its result. Raises what the package raises."""
        self._after_fork()
        if not self._lock.acquire(blocking=False):
            return self._client.evalsha(*arguments)
        was_used, began_s = self._own is not None, time.monotonic()
        try:
            return self._run(("EVALSHA", *arguments))
        except self._response_error:  # the response of a connection that works
            raise
        except self._lost:
            self._drop()
            if not was_used or time.monotonic() - began_s > self._repeat_s:
                raise
        except BaseException:
            self._drop()
            raise
        finally:
            self._lock.release()
        return self._client.evalsha(*arguments)

    def close(self) -> None:
        """Close the connection."""
        self._after_fork()
        with self._lock:
            self._drop()

    def _run(self, arguments: Sequence[Any]) -> Any:
        if self._own is None:
            self._own = self._client.client()
        connection = self._own.connection
        connection.send_packed_command(connection.pack_command(*arguments), check_health=False)
        return connection.read_response()

    def _drop(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.connection.disconnect()
            own.close()

    def _after_fork(self) -> None:
        if self._pid != os.getpid():  # the connection and the lock are those of the parent
            self._pid, self._own, self._lock = os.getpid(), None, threading.Lock()
