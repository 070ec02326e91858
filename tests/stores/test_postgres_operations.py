"""How `PostgresLink` runs a statement within its time, without a server and without its package."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cycles._journal.stores import postgres_link
from cycles._journal.stores.postgres_link import LinkError, PostgresLink, _is_ready
from tests.journal.kit import posix_only

LATE = "no response of PostgreSQL within journal_store_timeout; check the server"


class Result:
    """What the server returns for one statement."""

    def __init__(
        self, *rows: tuple[bytes | None, ...], state: bytes | None = None, message: bytes | None = b"no"
    ) -> None:
        self._rows, self._fields = rows, {"state": state, "message": message}
        self.status = "tuples" if rows else "failed" if state or message != b"no" else "command"
        self.nfields, self.ntuples = (len(rows[0]) if rows else 0), len(rows)

    def get_value(self, row: int, column: int) -> bytes | None:
        return self._rows[row][column]

    def error_field(self, field: str) -> bytes | None:
        return self._fields[field]


class Connection:
    """A connection of libpq. What it returns is prepared; what it is asked for is noted."""

    def __init__(self, *results: Any) -> None:
        self.results = [*results, None]
        self.told: list[Any] = []
        self.polls = ["ok"]
        self.flushes, self.busy = [0], 0
        self.status, self.socket, self.nonblocking = "fine", 7, 0
        self.error_message: bytes | None = b"connection  to\nserver failed"
        self.idle_input: list[Any] = []

    def connect_poll(self) -> str:
        return self.polls.pop(0)

    def send_query(self, command: bytes) -> None:
        self.told.append(command)

    def flush(self) -> int:
        return self.flushes.pop(0) if self.flushes else 0

    def is_busy(self) -> bool:
        self.busy -= 1
        return self.busy >= 0

    def consume_input(self) -> None:
        self.told.append("input")
        if self.idle_input and isinstance(error := self.idle_input.pop(0), Exception):
            raise error

    def get_result(self) -> Any:
        result = self.results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    def finish(self) -> None:
        self.told.append("finish")


class World:
    """The package, the time, and the sockets that a link waits for."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.begun: list[bytes] = []
        self.now_s, self.step_s = 100.0, 0.25
        self.waits: list[tuple[float, bool]] = []
        self.is_ready: list[bool] = []

    def connect(self, conninfo: bytes) -> Connection:
        self.begun.append(conninfo)
        return self.connections[len(self.begun) - 1]

    def wait(self, socket: int, timeout_s: float, *, writes: bool) -> bool:
        assert socket == 7
        if timeout_s == 0.0:  # a look at an idle connection
            used = next(each for each in reversed(self.connections[: len(self.begun)]))
            return bool(used.idle_input)
        assert timeout_s > 0, "a negative time is waited for ever"
        self.waits.append((timeout_s, writes))
        self.now_s += self.step_s
        return self.is_ready.pop(0) if self.is_ready else True

    def link(self, *connections: Connection) -> PostgresLink:
        self.connections = list(connections)
        return PostgresLink("host=db", 1.0, "set a")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    pq = ModuleType("psycopg.pq")
    names = SimpleNamespace
    vars(pq).update(
        PGconn=names(connect_start=world.connect),
        PollingStatus=names(OK="ok", FAILED="failed", WRITING="writing", READING="reading"),
        ConnStatus=names(OK="fine"),
        ExecStatus=names(TUPLES_OK="tuples", COMMAND_OK="command"),
        DiagnosticField=names(SQLSTATE="state", MESSAGE_PRIMARY="message"),
        Escaping=lambda connection: names(escape_literal=lambda value: b"'" + value.replace(b"'", b"''") + b"'"),
    )
    monkeypatch.setitem(sys.modules, "psycopg.pq", pq)
    monkeypatch.setattr(postgres_link, "_is_ready", world.wait)
    monkeypatch.setattr(postgres_link, "time", SimpleNamespace(monotonic=lambda: world.now_s))
    return world


def test_a_statement_and_the_settings_are_one_message(world: World) -> None:
    connection = Connection(Result(), Result((b"1", None), (b"\xff", b"")))
    link = world.link(connection)
    assert link.run("select $1, $2, $1", ["it's", "\udcff"]) == [("1", ""), ("\ufffd", "")]
    assert connection.told == [b"set a; select 'it''s', '\xff', 'it''s'"]
    assert (world.begun, connection.nonblocking, world.waits) == ([b"host=db"], 1, [])
    connection.results = [Result(), None]
    assert link.run("delete") == []
    assert (len(world.begun), connection.told[1:]) == (1, [b"set a; delete"])


def test_a_closed_link_connects_again(world: World) -> None:
    link = world.link(Connection(Result((b"1",))), Connection(Result((b"2",))))
    assert link.run("a") == [("1",)]
    link.close()
    assert link.run("b") == [("2",)]


def test_each_step_waits_for_what_is_left_of_the_time(world: World) -> None:
    connection = Connection(Result((b"1",)))
    connection.polls, connection.flushes, connection.busy = ["writing", "reading", "ok"], [1, 0], 1
    assert world.link(connection).run("a") == [("1",)]
    assert world.waits == [(1.0, True), (0.75, False), (0.5, True), (0.25, False)]
    assert connection.told[1:] == ["input"]


@pytest.mark.parametrize("step", ["polls", "flushes", "busy"])
@pytest.mark.parametrize("is_over", [True, False])
def test_a_statement_ends_in_time_and_its_connection_is_not_used_again(world: World, step: str, is_over: bool) -> None:
    connection = Connection(Result((b"1",)))
    setattr(connection, step, {"polls": ["reading"] * 9, "flushes": [1] * 9, "busy": 9}[step])
    world.is_ready, world.step_s = [True] * 9 if is_over else [True, False], 0.375
    link = world.link(connection, Connection(Result((b"2",))))
    with pytest.raises(LinkError) as caught:
        link.run("a")
    assert (str(caught.value), caught.value.sqlstate) == (LATE, None)
    assert len(world.waits) == (3 if is_over else 2)
    assert connection.told[-1] == "finish"
    assert link.run("b") == [("2",)]


@pytest.mark.parametrize(
    ("state", "is_kept"),
    [(b"22P02", True), (b"23505", True), (b"40001", True), (b"42P01", True), (b"57P01", False), (b"08006", False)],
)
def test_an_error_of_the_statement_keeps_the_connection(world: World, state: bytes, is_kept: bool) -> None:
    connection = Connection(Result(), Result(state=state, message=b"first"), Result(state=b"25P02", message=b"aborted"))
    link = world.link(connection, Connection(Result((b"2",))))
    with pytest.raises(LinkError) as caught:
        link.run("a")
    assert (str(caught.value), caught.value.sqlstate) == ("the database failed: first", state.decode())
    assert ("finish" in connection.told) is not is_kept
    connection.results = [Result((b"1",)), None]
    assert link.run("b") == [("1" if is_kept else "2",)]


def test_an_error_without_a_code_or_a_message_is_one(world: World) -> None:
    with pytest.raises(LinkError) as caught:
        world.link(Connection(Result(state=None, message=None))).run("a")
    assert (str(caught.value), caught.value.sqlstate) == ("the database failed: no message", None)


def test_a_lost_connection_is_an_error_in_one_line(world: World) -> None:
    connection = Connection(RuntimeError("server\n  closed " + "x" * 300))
    with pytest.raises(LinkError) as caught:
        world.link(connection).run("a")
    assert str(caught.value) == f"the database failed: RuntimeError: server closed {'x' * 186}"
    assert connection.told[-1] == "finish"


def test_an_interrupt_closes_the_connection(world: World) -> None:
    connection = Connection(KeyboardInterrupt())
    link = world.link(connection, Connection(Result((b"2",))))
    with pytest.raises(KeyboardInterrupt):
        link.run("a")
    assert connection.told[-1] == "finish"
    assert link.run("b") == [("2",)]


@pytest.mark.parametrize(
    ("message", "shown"),
    [(b"connection  to\nserver failed", "connection to server failed"), (b"x" * 300, "x" * 200), (None, "")],
)
def test_a_server_that_cannot_be_reached_is_an_error_in_one_line(
    world: World, message: bytes | None, shown: str
) -> None:
    connection = Connection()
    connection.polls, connection.error_message = ["reading", "failed"], message
    with pytest.raises(LinkError) as caught:
        world.link(connection).run("a")
    assert (str(caught.value), caught.value.sqlstate) == (f"no connection to PostgreSQL: {shown}", None)
    assert connection.told == ["finish"]


@pytest.mark.parametrize(
    ("idle_input", "status", "is_used"),
    [
        ([], "fine", True),
        ([None, None], "fine", True),
        ([], "bad", False),
        ([None, RuntimeError("closed")], "fine", False),
    ],
)
def test_an_idle_connection_is_used_unless_it_is_over(
    world: World, idle_input: list[Any], status: str, is_used: bool
) -> None:
    connection = Connection(Result((b"1",)))
    link = world.link(connection, Connection(Result((b"2",))))
    link.run("a")
    connection.results, connection.idle_input, connection.status = [Result((b"1",)), None], idle_input, status
    inputs = len(idle_input)
    assert link.run("b") == [("1" if is_used else "2",)]
    assert connection.told.count("input") == inputs


def test_a_forked_child_makes_its_own_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    link = world.link(Connection(Result((b"1",))), Connection(Result((b"2",))))
    link.run("a")
    monkeypatch.setattr(postgres_link, "os", SimpleNamespace(getpid=lambda: os.getpid() + 1))
    assert link.run("b") == [("2",)]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@posix_only
@pytest.mark.parametrize("has_poll", [True, False])
def test_a_socket_is_ready_if_it_can_be_read_or_also_written(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, has_poll: bool
) -> None:
    if not has_poll:
        monkeypatch.setattr(postgres_link, "select", SimpleNamespace(select=select.select))
    one, other = pair
    one.setblocking(False)
    assert (_is_ready(one.fileno(), 0.0, writes=False), _is_ready(one.fileno(), 0.0, writes=True)) == (False, True)
    with pytest.raises(BlockingIOError):
        while True:
            one.send(bytes(65_536))
    assert not _is_ready(one.fileno(), 0.001, writes=True)
    other.send(b"1")
    assert (_is_ready(one.fileno(), 60.0, writes=False), _is_ready(one.fileno(), 60.0, writes=True)) == (True, True)
