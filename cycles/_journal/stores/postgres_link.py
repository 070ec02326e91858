"""Connections to PostgreSQL whose every operation ends at a deadline, also if the server stops responding.

libpq has no timeout for a response, so this uses its non-blocking functions and waits on the socket itself.

Each operation is one message with its settings and its statement, which the server runs as one transaction. So nothing
stays on the connection, neither a setting nor a prepared statement, and a pooler may pass each transaction to another
connection of the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from cycles._errors import StoreError
from cycles._journal.stores.store import package
from cycles._version import install_extra

Row = tuple[str, ...]
"""The values of a row as text, an empty one for null."""

_PARAMETER: Final = re.compile(rb"\$([1-9])")

# Classes of SQLSTATE that say something about the statement and nothing about the connection, which is kept.
_OF_THE_STATEMENT: Final = ("22", "23", "40", "42")


class LinkError(StoreError):
    """An SQL statement failed. `sqlstate` is its code, or None if there was no response."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class PostgresLink:
    """Connections that are made when they are needed, and again after a failure or a fork. One of them is kept open.

    No lock protects it: a signal handler that makes an operation in the middle of another one gets its own connection,
    and so do threads that come at the same moment.

    Args:
        conninfo: A URL or connection string of libpq.
        timeout_s: Bounds one operation, with the wait for the connection.
        settings: Statements for every transaction.
    """

    def __init__(self, conninfo: str, timeout_s: float, settings: str) -> None:
        self._pq = package("psycopg.pq", f", or has no libpq; {install_extra('postgres')}, with psycopg[binary]")
        self._conninfo = conninfo.encode()
        self._timeout_s = timeout_s
        self._settings = settings
        self._idle: deque[tuple[int, Any]] = deque(maxlen=1)  # process and connection; psycopg closes what is dropped

    def run(self, sql: str, parameters: Sequence[str] = ()) -> list[Row]:
        """Run one statement in a transaction and return its rows.

        Raises:
            StoreError: it failed, or took longer than the timeout. Its outcome is unknown then.
        """
        deadline = time.monotonic() + self._timeout_s
        connection = self._connected(deadline)
        try:
            rows = self._execute(connection, sql, parameters, deadline)
        except BaseException as error:
            # After anything else, also an interrupt, a late result could be taken for that of the next statement.
            if isinstance(error, LinkError) and (error.sqlstate or "")[:2] in _OF_THE_STATEMENT:
                self._idle.append((os.getpid(), connection))
            else:
                connection.finish()
            raise
        self._idle.append((os.getpid(), connection))
        return rows

    def close(self) -> None:
        """Close the connection."""
        self._idle.clear()

    def _connected(self, deadline: float) -> Any:
        with contextlib.suppress(IndexError):
            pid, connection = self._idle.pop()
            if pid == os.getpid() and self._is_usable(connection):  # else it is the parent's
                return connection
        return self._connect(deadline)

    def _is_usable(self, connection: Any) -> bool:
        """Return False if the connection is over, also if the server closed it while it was idle."""
        try:
            while connection.status == self._pq.ConnStatus.OK and _is_ready(connection.socket, 0.0, writes=False):
                connection.consume_input()
        except Exception:  # of psycopg: the server has closed it
            return False
        return bool(connection.status == self._pq.ConnStatus.OK)

    def _connect(self, deadline: float) -> Any:
        polling = self._pq.PollingStatus
        connection = self._pq.PGconn.connect_start(self._conninfo)
        try:
            while (status := connection.connect_poll()) != polling.OK:
                if status == polling.FAILED:  # also if it could not even begin
                    message = " ".join(_text(connection.error_message).split())[:200]
                    raise LinkError(f"no connection to PostgreSQL: {message}")
                self._wait(connection, deadline, writes=status == polling.WRITING)
            connection.nonblocking = 1
            return connection
        except BaseException:
            connection.finish()
            raise

    def _execute(self, connection: Any, sql: str, parameters: Sequence[str], deadline: float) -> list[Row]:
        """Run a statement in the form of the protocol that takes several, with its parameters as literals."""
        escape = self._pq.Escaping(connection).escape_literal
        literals = [bytes(escape(value.encode("utf-8", "surrogateescape"))) for value in parameters]
        statement = _PARAMETER.sub(lambda match: literals[int(match[1]) - 1], sql.encode())
        command = b"%b; %b" % (self._settings.encode(), statement)
        try:
            connection.send_query(command)
            while connection.flush():
                self._wait(connection, deadline, writes=True)
            rows: list[Row] = []
            failure: LinkError | None = None
            while True:
                while connection.is_busy():
                    self._wait(connection, deadline, writes=False)
                    connection.consume_input()
                result = connection.get_result()
                if result is None:
                    break
                failure = failure or self._failure(result)  # of the first one that failed; the others are "aborted"
                columns = range(result.nfields)
                rows = [tuple(_text(result.get_value(n, column)) for column in columns) for n in range(result.ntuples)]
        except StoreError:
            raise
        except Exception as error:  # of psycopg, whose messages are those of libpq
            text = " ".join(str(error).split())[:200]
            raise LinkError(f"the database failed: {type(error).__name__}: {text}") from error
        if failure is not None:
            raise failure
        return rows

    def _failure(self, result: Any) -> LinkError | None:
        if result.status in (self._pq.ExecStatus.TUPLES_OK, self._pq.ExecStatus.COMMAND_OK):
            return None
        state = result.error_field(self._pq.DiagnosticField.SQLSTATE)
        primary = result.error_field(self._pq.DiagnosticField.MESSAGE_PRIMARY) or b"no message"
        return LinkError(f"the database failed: {_text(primary)}", state and state.decode())

    def _wait(self, connection: Any, deadline: float, *, writes: bool) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not _is_ready(connection.socket, left, writes=writes):
            raise LinkError("no response of PostgreSQL within journal_store_timeout; check the server")


def _text(value: bytes | None) -> str:
    return bytes(value or b"").decode("utf-8", "replace")


def _is_ready(socket: int, timeout_s: float, *, writes: bool) -> bool:
    """Wait until a socket can be read, or written if `writes`. False: not within the time."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(socket, select.POLLOUT | select.POLLIN if writes else select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    return any(select.select([socket], [socket] if writes else [], [], timeout_s))
