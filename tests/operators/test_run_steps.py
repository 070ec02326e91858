"""The steps of a run around its command: what a sealed command reaches, and what the end of a proxy waits for."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import pytest

import cycles
from cycles.proxy import _child
from cycles.proxy._child import Child, blocked_signals
from cycles.proxy._kept import kept_runs
from cycles.proxy._ledger import RunLedger, open_ledger
from cycles.proxy._run import Run
from cycles.proxy._sealing import CannotSealError
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from cycles.testing import FakeProvider
from tests.operators.proxying import BOOK, EXACT, USED, upstreams
from tests.operators.test_run_ends import signals_blocked
from tests.operators.tunnels import echo, listening
from tests.support.held import Watch
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_spawnp"), reason="commands are started with posix_spawn")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PATIENCE_S = 60


def get(port: int, path: str) -> tuple[int, str]:
    response = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S, trust_env=False)
    return response.status_code, response.text


def posted(port: int, path: str) -> int:
    url = f"http://127.0.0.1:{port}{path}/chat/completions"
    return httpx.post(url, json=CHAT, timeout=PATIENCE_S, trust_env=False).status_code


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


# --- sealed commands ------------------------------------------------------------------------------------------------


@attrs.define
class Sealed:
    """In place of a sealed command: its `program` runs in this process when it is started."""

    program: Callable[[Sealed], int]
    mode: str
    error: Exception | None = None
    environment: dict[str, str] = attrs.Factory(dict)
    ports: list[int] = attrs.Factory(list)
    sockets: list[socket.socket] = attrs.Factory(list)
    inside: list[int] = attrs.Factory(list)

    def seal(self, command: Sequence[str], environment: Mapping[str, str], ports: Sequence[int]) -> Sealed:
        self.environment, self.ports = dict(environment), list(ports)
        if self.error is not None:
            raise self.error
        if self.mode == "namespace":
            self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
        self.inside = [each.getsockname()[1] for each in self.sockets]
        return self

    def go(self) -> Sealed:
        return self

    def wait(self) -> int:
        return self.program(self)


@attrs.define
class Place:
    """A run with a sealed command, a ledger over HTTP, and a server of this machine whose port is shared."""

    provider: FakeProvider
    ledger: str
    client: cycles.Cycles
    shared: int
    base_url: str | None = None
    said: list[str] = attrs.Factory(list)
    closed: list[str] = attrs.Factory(list)

    def run(self, sealed: Sealed) -> Any:
        settings = ProxySettings(
            upstreams=upstreams(self.provider.url), prices=BOOK, sealed=True, shared_ports=(self.shared,)
        )
        ledger, closing = RunLedger(self.client, None, None, "USD_MICROCENTS"), ExitStack()
        closing.callback(self.closed.append, "files")
        if self.base_url is not None:
            ledger.environment["CYCLES_BASE_URL"] = self.base_url
        run = Run(settings, ledger, closing=closing, say=self.said.append)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cycles.proxy._sealing.SealedChild", sealed.seal)
            patch.setattr(ledger, "close", lambda: self.closed.append("ledger"))
            return run.run(["program"], {})


@pytest.fixture
def place() -> Iterator[Place]:
    with (
        FakeProvider() as provider,
        cycles.EmbeddedServer({"tenant:run": cycles.usd(1)}) as server,
        server.listen() as url,
        listening(echo) as shared,
        cycles.Cycles(base_url=url, api_key=server.api_key, tenant="run", journal=False) as client,
    ):
        provider.reply(usage=USED)
        yield Place(provider, url, client, shared)


HEALTH = "/actuator/health/liveness"


def test_a_command_in_a_namespace_reaches_the_proxy_a_shared_port_and_the_ledger(place: Place) -> None:
    def program(sealed: Sealed) -> int:
        proxy, shared, ledger = sealed.inside
        url = urlsplit(sealed.environment["OPENAI_BASE_URL"])
        assert posted(proxy, url.path) == 200
        with socket.create_connection(("127.0.0.1", shared), PATIENCE_S) as near:
            near.sendall(b"x")
            assert near.recv(1) == b"x"
        assert get(ledger, HEALTH) == (200, '{"status":"UP"}')
        assert sealed.environment["CYCLES_BASE_URL"] == f"http://127.0.0.1:{sealed.ports[2]}"
        assert sealed.ports[:2] == [url.port, place.shared]
        return 7

    found = place.run(Sealed(program, "namespace"))
    assert (found.status, found.document["calls"], found.document["sealed"]) == (7, 1, "namespace")
    assert "sealed: with a network namespace" in found.lines
    assert (place.said, place.closed) == ([], ["ledger", "files"])


def test_a_connection_of_a_sealed_command_may_last(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no head like that of CONNECT, so the time for such a head is not its own."""
    monkeypatch.setattr("cycles.proxy._tunnel.HEAD_S", 0)

    def program(sealed: Sealed) -> int:
        with socket.create_connection(("127.0.0.1", sealed.inside[1]), PATIENCE_S) as near:
            for data in (b"a", b"b"):
                near.sendall(data)
                assert near.recv(1) == data
        return 0

    assert place.run(Sealed(program, "namespace")).status == 0


def test_a_command_under_landlock_reaches_the_ledger_through_a_port_of_its_own(place: Place) -> None:
    def program(sealed: Sealed) -> int:
        address = urlsplit(sealed.environment["CYCLES_BASE_URL"])
        assert address.port == sealed.ports[2]
        assert address.port != urlsplit(place.ledger).port, "Landlock sees ports and no hosts"
        assert get(sealed.ports[2], HEALTH)[0] == 200
        return 0

    found = place.run(Sealed(program, "landlock"))
    assert (found.status, found.document["sealed"]) == (0, "landlock")
    assert place.said == ["under Landlock the command cannot reach its own servers by TCP"]


@pytest.mark.parametrize("error", [CannotSealError("no"), cycles.ConfigurationError("no")], ids=["mode", "port"])
def test_a_run_that_cannot_seal_leaves_nothing_open(place: Place, error: Exception) -> None:
    sealed = Sealed(lambda _: 0, "namespace", error)
    with pytest.raises(type(error), match="no"):
        place.run(sealed)
    assert place.closed == ["ledger", "files"]
    assert is_refused(sealed.ports[0]), "the proxy has stopped"


def test_a_run_whose_proxy_cannot_start_leaves_no_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise cycles.ConfigurationError("no port")

    monkeypatch.setattr("cycles.proxy._run.ProxyServer.start", fail)
    with pytest.raises(cycles.ConfigurationError, match="no port"):
        place.run(Sealed(lambda _: 0, "namespace"))
    assert place.closed == ["ledger", "files"]


@pytest.mark.parametrize(
    ("url", "through", "target"),
    [
        ("http://ledger.example", "http://127.0.0.1", ("ledger.example", 80)),
        ("http://ledger.example:7878/base", "http://127.0.0.1", ("ledger.example", 7878)),
        ("https://localhost", "https://localhost", ("localhost", 443)),
        ("https://127.0.0.1/x", "https://127.0.0.1", ("127.0.0.1", 443)),
        ("https://[::1]:8443", "https://127.0.0.1", ("::1", 8443)),
        ("http://localhost:1", "http://localhost", ("localhost", 1)),
        ("https://ledger.example", None, None),
        ("", None, None),
    ],
)
def test_which_ledger_a_sealed_command_reaches_through_a_port(
    monkeypatch: pytest.MonkeyPatch, place: Place, url: str, through: str | None, target: tuple[str, int] | None
) -> None:
    """Others, whose certificate names their host, are reached through the tunnel."""
    relayed: list[tuple[str, int]] = []
    addresses: list[str] = []

    def program(sealed: Sealed) -> int:
        addresses.append(sealed.environment["CYCLES_BASE_URL"].replace(f":{sealed.ports[-1]}", ""))
        return 0

    def relay(_: ProxyServer, sock: socket.socket, host: str, port: int) -> None:
        sock.close()
        relayed.append((host, port))

    monkeypatch.setattr(ProxyServer, "relay", relay)
    place.base_url = url
    assert place.run(Sealed(program, "namespace")).status == 0
    path = urlsplit(url).path
    assert addresses == [url if through is None else f"{through}{path}"]
    assert relayed == [("127.0.0.1", place.shared), *([] if target is None else [target])]


# --- the end of a proxy ---------------------------------------------------------------------------------------------


def test_the_end_of_a_proxy_lets_a_running_call_finish_and_its_kept_total_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    gate, stop, statuses = threading.Event(), threading.Event(), list[int]()
    drained: list[int] = []

    def call(url: str) -> None:
        statuses.append(httpx.post(url, json=CHAT, timeout=PATIENCE_S, trust_env=False).status_code)

    def end(proxy: ProxyServer, seconds: int) -> None:
        drained.append(seconds)
        gate.set()
        stop_proxy(proxy, seconds)

    def announce(url: str) -> None:
        caller = threading.Thread(target=call, args=(f"{url}/openai/v1/chat/completions",))
        caller.start()
        until(lambda: provider.requests)
        stop.set()

    stop_proxy = ProxyServer.stop
    monkeypatch.setattr(ProxyServer, "stop", end)
    with FakeProvider() as provider:
        provider.reply(usage=USED, gate=gate)
        ledger = open_ledger(cycles.Config(), cycles.usd(1), embedded=True, keep="mine")
        settings = ProxySettings(upstreams=upstreams(provider.url), prices=BOOK)
        found = Run(settings, ledger).serve("127.0.0.1", 0, announce, stop)
        until(lambda: statuses)
    assert drained[0] == 30, "so long may a running call take"
    assert statuses == [200]
    assert (found.status, found.document["calls"], found.document["estimated"]) == (0, 1, 0)
    assert found.document["kept"]["spent"]["amount"] == EXACT
    assert [(run.spent, run.in_use) for run in kept_runs()] == [(cycles.Amount("USD_MICROCENTS", EXACT), False)]


def test_a_proxy_whose_ledger_decides_nothing_ends_with_0() -> None:
    """Only the status of a command says that; programs of a proxy are not its own."""
    stop = threading.Event()

    def announce(url: str) -> None:
        assert posted(urlsplit(url).port or 0, "/openai/v1") == 503
        stop.set()

    with (
        FakeProvider() as provider,
        cycles.Cycles(base_url="http://127.0.0.1:9", api_key="k", tenant="t", journal=False, max_retries=0) as client,
    ):
        settings = ProxySettings(upstreams=upstreams(provider.url), prices=BOOK)
        found = Run(settings, RunLedger(client, None, None, "USD_MICROCENTS")).serve("127.0.0.1", 0, announce, stop)
    assert (found.status, found.document["exit"], found.document["failed"]) == (0, 0, 1)
    assert "no call could be sent, because the budget server decided none" in " ".join(found.lines)


# --- the command as a process ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux shows the signals of a process")
@pytest.mark.parametrize("shares_terminal", [True, False])
def test_a_command_has_the_signals_of_a_shell_and_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares_terminal: bool
) -> None:
    """A run ignores SIGPIPE, as Python does, and blocks what it passes."""
    monkeypatch.setattr(_child, "has_terminal", lambda: shares_terminal)
    shown, grouped = tmp_path / "status", tmp_path / "group"
    script = f"read -r pid name state parent group rest < /proc/$$/stat; echo $pid $group > {grouped}"
    with signals_blocked():
        for command in (["/bin/sh", "-c", script], ["cp", "/proc/self/status", str(shown)]):  # a shell may unblock some
            assert Child(command, {"PATH": os.environ["PATH"]}).wait() == 0
    members = dict(line.split(":\t", 1) for line in shown.read_text().splitlines() if ":\t" in line)
    assert int(members["SigBlk"], 16) == 0
    ours = {signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1}
    assert [each for each in ours if int(members["SigIgn"], 16) >> (each - 1) & 1] == []
    pid, group = map(int, grouped.read_text().split())
    assert group == (os.getpgrp() if shares_terminal else pid)


def test_the_end_of_a_command_is_seen_if_another_thread_took_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_child, "LOOK_S", 0.01)
    ready, go = threading.Event(), threading.Event()

    def other() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        ready.set()
        go.wait(PATIENCE_S)

    with signals_blocked():
        thread = threading.Thread(target=other)
        thread.start()
        assert ready.wait(PATIENCE_S)
        child = Child(["/bin/sh", "-c", "exit 5"], {})
        os.waitid(os.P_PID, child._pid, os.WEXITED | os.WNOWAIT)
        until(lambda: signal.SIGCHLD not in signal.sigpending())
        assert child.wait() == 5
        go.set()
        thread.join()


def test_signals_stay_blocked_only_if_the_run_was_started() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGWINCH})  # the caller has blocked them
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    passed = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2}
    try:
        for raised in (SystemExit, KeyboardInterrupt, ValueError):
            with contextlib.suppress(raised), blocked_signals():
                assert passed <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
                raise raised
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == kept
        with blocked_signals():
            pass
        assert passed | kept <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_command_that_ignores_the_stop_is_killed_and_the_run_does_not_wait_for_the_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = tmp_path / "up"
    os.mkfifo(up)
    monkeypatch.setattr(_child, "STOP_S", 0.01)
    before = set(threading.enumerate())
    with signals_blocked():
        child = Child(["/bin/sh", "-c", f'trap "" TERM; echo up > {up}; read x < {up}'], dict(os.environ))
        assert up.read_text() == "up\n"
        child.stop()
        assert all(each.daemon for each in set(threading.enumerate()) - before), "10 s, in which a run could not end"
        assert child.wait() == 137


def test_a_process_that_has_ended_gets_no_signal_whichever_thread_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of another process as soon as its end was taken, so both happen under one lock."""
    watch, numbers, spawn = Watch(monkeypatch), list[int](), os.posix_spawnp

    def spawned(*given: Any, **options: Any) -> int:
        numbers.append(spawn(*given, **options))
        return numbers[-1]

    monkeypatch.setattr(os, "posix_spawnp", spawned)
    watch.of(Child, "_lock", "_ended _pid")
    with signals_blocked():
        ended, discarded = (Child(["/bin/sh", "-c", script], {}) for script in ("exit 3", "kill -STOP $$"))
        assert ended.wait() == 3
        discarded.discard()
    monkeypatch.setattr(os, "kill", lambda *given: pytest.fail(f"sent to another process: {given}"))
    for child in (ended, discarded):
        child.send(signal.SIGTERM)
        child.discard()
    for number in numbers:
        with pytest.raises(ChildProcessError):
            os.waitpid(number, os.WNOHANG)
    assert (watch.used, dict(watch.without)) == ({"_ended", "_pid"}, {})
