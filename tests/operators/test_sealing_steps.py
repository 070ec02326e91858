"""The side of `cycles run` of a sealed command: which mode it chooses, and what is left of launchers that fail."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

import cycles
from cycles.proxy import _sealing
from cycles.proxy._child import CommandError
from cycles.proxy._sealing import CannotSealError, SealedChild, _map_all_users

pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="only POSIX systems send sockets")

WORKS: Final[dict[str, Any]] = {}
DENIED: Final = {"failed": "user namespaces are denied (EPERM)"}
UNPRIVILEGED: Final = {"failed": "network namespaces are denied (EPERM)"}
ABSENT: Final = {"failed": "Landlock is not in this kernel"}


@attrs.define
class Place:
    """Starts launchers that are threads. `modes` says what they do; `started` and `discarded` are their modes."""

    modes: dict[str, dict[str, Any]] = attrs.Factory(dict)
    started: list[str] = attrs.Factory(list)
    discarded: list[str] = attrs.Factory(list)
    environment: dict[str, str] = attrs.Factory(dict)
    received: list[Any] = attrs.Factory(list)

    def seal(self, *modes: dict[str, Any], ports: Sequence[int] = (5000, 6000)) -> SealedChild:
        self.modes = dict(zip(("namespaces", "network", "landlock"), modes, strict=False))
        return SealedChild(["program", "argument"], {"A": "1"}, ports)

    def launch(self, mode: str, run: socket.socket, ports: Sequence[int]) -> None:
        """Be the launcher of one mode, until the connection ends."""
        how, lines = self.modes[mode], run.makefile("r")

        def say(message: Mapping[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
            data = json.dumps(message).encode() + b"\n"
            socket.send_fds(run, [data[:5]], [each.fileno() for each in sockets])
            run.sendall(data[5:])  # the run may receive a message in parts

        with run, lines, contextlib.ExitStack() as listening:
            if how.get("is") == "gone":
                return
            if "map" in how:
                say({"map": how["map"]})
                self.received.append(json.loads(lines.readline()))
            if "failed" in how:
                say({"failed": how["failed"]})
            elif how.get("is") != "silent":
                given = [] if mode == "landlock" else [socket.create_server(("127.0.0.1", 0)) for _ in ports]
                for each in given:
                    listening.enter_context(each)
                say({"sealed": mode}, given)
                self.received.append(json.loads(lines.readline() or "null"))
                if "exec" not in how:
                    return  # it became the command
                say({"exec": how["exec"]})
            lines.read()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made, threads = Place(), list[threading.Thread]()

    class Launcher:
        def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
            python, *options, script, mode, descriptor, ports, program, argument = command
            assert (python, options, Path(script).name) == (sys.executable, ["-I", "-S"], "_seal.py")
            assert (program, argument) == ("program", "argument")
            assert os.get_inheritable(int(descriptor))
            made.environment, self.mode = dict(environment), mode
            made.started.append(mode)
            connection = socket.socket(fileno=os.dup(int(descriptor)))
            threads.append(threading.Thread(target=made.launch, args=(mode, connection, json.loads(ports))))
            threads[-1].start()

        def discard(self) -> None:
            made.discarded.append(self.mode)

    monkeypatch.setattr(_sealing, "check_platform", lambda: None)
    monkeypatch.setattr(_sealing, "Child", Launcher)
    yield made
    for each in threads:
        each.join(60)
        assert not each.is_alive(), "the run has not closed its connection"


@pytest.mark.parametrize(
    ("modes", "mode", "sockets"),
    [
        ([WORKS], "namespace", 2),
        ([DENIED, WORKS], "namespace", 2),
        ([DENIED, UNPRIVILEGED, WORKS], "landlock", 0),
    ],
    ids=["at first", "with a privilege", "with Landlock"],
)
def test_the_first_mode_that_is_possible_is_chosen(
    place: Place, modes: list[dict[str, Any]], mode: str, sockets: int
) -> None:
    sealed = place.seal(*modes)
    assert (sealed.mode, len(sealed.sockets), place.environment) == (mode, sockets, {"A": "1"})
    assert place.started == ["namespaces", "network", "landlock"][: len(modes)]
    assert place.discarded == place.started[:-1]
    assert len({each.getsockname() for each in sealed.sockets}) == sockets
    for each in sealed.sockets:
        each.close()
    assert sealed.go() is not None
    assert (place.received, place.discarded) == ([{"go": True}], place.started[:-1])


def test_a_machine_that_cannot_seal_says_why_and_leaves_no_process(place: Place) -> None:
    with pytest.raises(CannotSealError) as caught:
        place.seal(DENIED, UNPRIVILEGED, ABSENT)
    why = "user namespaces are denied (EPERM), Landlock is not in this kernel"
    assert str(caught.value) == f"--sealed is not possible here: {why}; leave --sealed out"
    assert place.discarded == place.started == ["namespaces", "network", "landlock"]


def test_a_port_below_1024_needs_a_namespace(place: Place) -> None:
    sealed = place.seal(WORKS, ports=[80])
    assert (sealed.mode, len(sealed.sockets)) == ("namespace", 1)
    sealed.sockets[0].close()
    sealed.go()
    with pytest.raises(cycles.ConfigurationError, match=r"--share-port 1023 is below 1024.*denied \(EPERM\)\)"):
        place.seal(DENIED, UNPRIVILEGED, WORKS, ports=[5000, 1023])
    assert "landlock" not in place.started
    low = place.seal(DENIED, UNPRIVILEGED, WORKS, ports=[1024])
    assert (low.mode, low.sockets) == ("landlock", [])
    low.go()


@pytest.mark.parametrize(("number", "status"), [(errno.ENOENT, 127), (errno.EACCES, 126)])
def test_a_command_that_the_launcher_cannot_become(place: Place, number: int, status: int) -> None:
    sealed = place.seal({"exec": number})
    for each in sealed.sockets:
        each.close()
    with pytest.raises(CommandError, match="program") as caught:
        sealed.go()
    assert (caught.value.status, place.discarded) == (status, ["namespaces"])


@pytest.mark.parametrize(("what", "says"), [("gone", "the launcher ended"), ("silent", "the launcher did not respond")])
def test_a_launcher_that_does_not_respond(place: Place, monkeypatch: pytest.MonkeyPatch, what: str, says: str) -> None:
    if what == "silent":
        monkeypatch.setattr(_sealing, "_TIMEOUT_S", 0.001)
    with pytest.raises(CannotSealError, match=says):
        place.seal({"is": what}, {"is": what}, {"is": what})
    assert place.discarded == ["namespaces", "network", "landlock"]


@pytest.mark.parametrize("mapped", [True, False])
def test_the_run_says_whether_it_has_mapped_all_users(
    place: Place, monkeypatch: pytest.MonkeyPatch, mapped: bool
) -> None:
    pids: list[int] = []

    def map_users(pid: int) -> bool:
        pids.append(pid)
        return mapped

    monkeypatch.setattr(_sealing, "_map_all_users", map_users)
    sealed = place.seal({"map": 77})
    for each in sealed.sockets:
        each.close()
    sealed.go()
    assert (place.received, pids) == ([{"mapped": mapped}, {"go": True}], [77])


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC])
@pytest.mark.parametrize("failing", ["uid_map", "gid_map", None])
def test_users_are_mapped_to_themselves_where_the_run_may(
    monkeypatch: pytest.MonkeyPatch, number: int, failing: str | None
) -> None:
    written: dict[str, str] = {}

    def write(path: Path, text: str) -> None:
        if path.name == failing:
            raise OSError(number, os.strerror(number))
        written[str(path)] = text

    maps = {"uid_map": "         0       1000          1\n         1     100000      65536\n", "gid_map": "0 5 7\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: maps[path.name])
    monkeypatch.setattr(Path, "write_text", write)
    if failing is not None and number == errno.ENOSPC:
        with pytest.raises(OSError, match="No space"):
            _map_all_users(77)
        return
    assert _map_all_users(77) is (failing is None)
    if failing is None:
        assert written == {"/proc/77/uid_map": "0 0 1\n1 1 65536\n", "/proc/77/gid_map": "0 0 7\n"}


def test_another_system_cannot_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(CannotSealError, match="darwin has neither network namespaces nor Landlock"):
        SealedChild(["program"], {}, [5000])
