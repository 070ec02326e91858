"""Which connection `PostgresStore` uses in a forked child, without a server and without libpq."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._journal.stores import postgres_link
from cycles._journal.stores.postgres_link import PostgresLink, Row


class Connection:
    """An idle connection that works."""

    status = "OK"

    def __init__(self) -> None:
        self._ends = socket.socketpair()
        self.socket = self._ends[0].fileno()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def finish(self) -> None:
        raise AssertionError("this ends the session of the other process too")


class Link(PostgresLink):
    """Notes which connection runs each statement."""

    def __init__(self) -> None:
        super().__init__("", 60.0, "")
        self.made: list[Connection] = []
        self.used: list[int] = []

    def _connect(self, deadline: float) -> Any:
        self.made.append(Connection())
        return self.made[-1]

    def _execute(self, connection: Any, sql: str, parameters: Sequence[str], deadline: float) -> list[Row]:
        self.used.append(self.made.index(connection))
        return []


def test_a_forked_child_has_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on one connection would read each other's results."""
    pq = SimpleNamespace(ConnStatus=SimpleNamespace(OK="OK"))
    monkeypatch.setattr(postgres_link, "package", lambda *_: pq)
    link, parent = Link(), os.getpid()
    for _ in range(2):
        link.run("select 1")
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: parent + 1)
        for _ in range(2):
            link.run("select 1")
    link.run("select 1")  # the same object, as if the child had forked too
    assert link.used == [0, 0, 1, 1, 2]
    for connection in link.made:
        connection.close()
