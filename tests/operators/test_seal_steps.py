"""`_seal.py` in this process: the filter as the kernel reads it, and the steps of the launcher with `cycles run`."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from cycles.proxy import _seal
from cycles.proxy._seal import CannotSealError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can seal a program")

# --- the filter -----------------------------------------------------------------------------------------------------

ALLOWED: Final = 0x7FFF0000
DENIED: Final = 0x00050000 | errno.EACCES
UNKNOWN: Final = 0x00050000 | errno.ENOSYS
MACHINES: Final = {
    "x86_64": (0xC000003E, {"socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "sendmmsg": 307}),
    "aarch64": (0xC00000B7, {"socket": 198, "connect": 203, "sendto": 206, "sendmsg": 211, "sendmmsg": 269}),
}
FASTOPEN: Final = 0x20000000
TCP, UDP, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
CALLS: Final[dict[str, tuple[str, tuple[int, ...], int]]] = {
    "tcp": ("socket", (socket.AF_INET, TCP, 0), ALLOWED),
    "tcp, named": ("socket", (socket.AF_INET, TCP, 6), ALLOWED),
    "tcp, closed at exec": ("socket", (socket.AF_INET, TCP | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0), ALLOWED),
    "tcp over ipv6": ("socket", (socket.AF_INET6, TCP, 0), ALLOWED),
    "multipath tcp": ("socket", (socket.AF_INET, TCP, 262), DENIED),
    "multipath tcp over ipv6": ("socket", (socket.AF_INET6, TCP, 262), DENIED),
    "sctp": ("socket", (socket.AF_INET, TCP, 132), DENIED),
    "udp": ("socket", (socket.AF_INET, UDP, 0), DENIED),
    "udp, closed at exec": ("socket", (socket.AF_INET, UDP | socket.SOCK_CLOEXEC, 17), DENIED),
    "udp over ipv6": ("socket", (socket.AF_INET6, UDP, 0), DENIED),
    "raw": ("socket", (socket.AF_INET, RAW, 1), DENIED),
    "unix": ("socket", (socket.AF_UNIX, UDP, 0), ALLOWED),
    "netlink": ("socket", (16, RAW, 0), ALLOWED),
    "packets": ("socket", (17, RAW, 0), DENIED),
    "vsock": ("socket", (40, TCP, 0), DENIED),
    "connect": ("connect", (3, 0, FASTOPEN, FASTOPEN), ALLOWED),
    "send": ("sendto", (3, 0, FASTOPEN, 0x4000), ALLOWED),
    "send and connect": ("sendto", (3, 0, 9, FASTOPEN | 0x4000), DENIED),
    "send a message": ("sendmsg", (3, 0, 0x4000, FASTOPEN), ALLOWED),
    "send a message and connect": ("sendmsg", (3, 0, FASTOPEN, 0), DENIED),
    "send messages": ("sendmmsg", (3, 0, FASTOPEN, 0), ALLOWED),
    "send messages and connect": ("sendmmsg", (3, 0, 1, FASTOPEN), DENIED),
}


def filtered(machine: str, number: int, arguments: tuple[int, ...] = (), arch: int | None = None) -> int:
    """Run the filter on a system call, as the kernel does, and return what it returns."""
    known = MACHINES[machine][0] if arch is None else arch
    data = struct.pack("IIQ6Q", number, known, 0, *arguments, *[0] * (6 - len(arguments)))
    program = _seal.filter_program(machine)
    lines = [struct.unpack_from("HBBI", program, place) for place in range(0, len(program), 8)]
    place = loaded = 0
    while True:
        code, if_true, if_false, value = lines[place]
        place += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (loaded,) = struct.unpack_from("I", data, value)
        elif code == 0x54:
            loaded &= value
        else:
            assert code in (0x15, 0x35)
            place += if_true if (loaded == value if code == 0x15 else loaded >= value) else if_false


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", CALLS)
def test_which_sockets_the_filter_allows(machine: str, name: str) -> None:
    call, arguments, expected = CALLS[name]
    assert filtered(machine, MACHINES[machine][1][call], arguments) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_other_ways_to_make_a_call_are_closed(machine: str) -> None:
    assert filtered(machine, 0) == ALLOWED
    assert filtered(machine, 425) == DENIED, "io_uring makes sockets too"
    assert filtered(machine, 0x3FFFFFFF) == ALLOWED
    assert filtered(machine, 0x40000000 + MACHINES[machine][1]["socket"]) == UNKNOWN, "the x32 calls"
    (other,) = [arch for name, (arch, _) in MACHINES.items() if name != machine]
    assert filtered(machine, 0, arch=other) == UNKNOWN
    assert filtered(machine, 0, arch=0x40000003) == UNKNOWN, "the 32-bit calls"


def test_a_processor_without_a_filter() -> None:
    with pytest.raises(CannotSealError, match="the processor riscv64 has no filter for Landlock"):
        _seal.filter_program("riscv64")


# --- Landlock -------------------------------------------------------------------------------------------------------


@attrs.define
class Kernel:
    """A kernel with Landlock: what it was asked, in order. `fails` is the step that it denies."""

    abi: int = 4
    fails: str = ""
    asked: list[tuple[Any, ...]] = attrs.Factory(list)

    def syscall(self, number: int, *arguments: Any) -> int:
        names = {444: "rules", 445: "rule", 446: "restrict"}
        if number == 444 and arguments[0] is None:
            self._take("version")
            return self.abi
        given = [struct.unpack("QQ", each) for each in arguments if isinstance(each, bytes)]
        self._take(names[number], *given)
        return os.open(os.devnull, os.O_RDONLY) if number == 444 else 0

    def prctl(self, option: int, second: int, third: object) -> None:
        self._take({38: "no new privileges", 22: "filter"}[option])

    def _take(self, name: str, *more: Any) -> None:
        self.asked.append((name, *more))
        if name == self.fails:
            raise OSError(errno.EPERM, "denied")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(_seal, "_syscall", made.syscall)
    monkeypatch.setattr(_seal, "_prctl", made.prctl)
    return made


# --- the launcher ---------------------------------------------------------------------------------------------------


def open_files() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


@attrs.define
class Launch:
    """The launcher with a scripted kernel, and the socket on which `cycles run` speaks with it."""

    near: socket.socket
    far: int
    steps: list[Any] = attrs.Factory(list)
    denied: str = ""
    open_at_exec: list[str] = attrs.Factory(list)

    def say(self, *messages: dict[str, Any]) -> None:
        self.near.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in messages))

    def run(self, mode: str, ports: list[int], *command: str) -> int | str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the end of its process closes what it has
            try:
                return _seal.main([mode, str(self.far), json.dumps(ports), *command])
            except SystemExit as ended:
                return f"exits with {ended.code}"

    def heard(self) -> tuple[list[dict[str, Any]], list[socket.socket]]:
        """Return what the launcher has said, and the sockets that it has sent."""
        data, descriptors, _, _ = socket.recv_fds(self.near, 65536, 10)
        while part := self.near.recv(65536):
            data += part
        return [json.loads(line) for line in data.splitlines()], [socket.socket(fileno=each) for each in descriptors]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    near, far = socket.socketpair()
    near.settimeout(60)
    made = Launch(near, far.detach())
    before = open_files()

    def unshare(flags: int, what: str) -> None:
        made.steps.append(("unshare", flags))
        if made.denied == what:
            raise CannotSealError(f"{what} are denied (EPERM)")

    def execvp(program: str, command: list[str]) -> None:
        made.steps.append(("exec", command))
        made.open_at_exec = sorted(open_files() - before)
        raise FileNotFoundError(errno.ENOENT, "no such program")

    monkeypatch.setattr(_seal, "_unshare", unshare)
    monkeypatch.setattr(_seal, "_loopback_up", lambda: made.steps.append("loopback"))
    monkeypatch.setattr(_seal, "_map_user", lambda user, group: made.steps.append(("map", user, group)))
    monkeypatch.setattr(os, "execvp", execvp)
    yield made
    near.close()


NEW_NET, NEW_USER = 0x40000000, 0x10000000


def test_a_privileged_launcher_needs_no_user_namespace(launch: Launch) -> None:
    launch.say({"go": True})
    assert launch.run("network", [0, 0], "program", "argument") == 1
    said, sockets = launch.heard()
    assert said == [{"sealed": "network"}, {"exec": errno.ENOENT}]
    assert launch.steps == [("unshare", NEW_NET), "loopback", ("exec", ["program", "argument"])]
    assert launch.open_at_exec == [], "the command has no socket of the run"
    assert len({each.getsockname() for each in sockets}) == 2
    for each in sockets:
        with each:
            assert each.getsockname()[0] == "127.0.0.1"
            socket.create_connection(each.getsockname(), 60).close()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_launcher_maps_its_own_user_if_the_run_could_not_map_all(launch: Launch, mapped: bool) -> None:
    launch.say({"mapped": mapped}, {"go": True})
    assert launch.run("namespaces", [], "program") == 1
    own = [] if mapped else [("map", os.geteuid(), os.getegid())]
    assert launch.steps == [("unshare", NEW_NET | NEW_USER), *own, "loopback", ("exec", ["program"])]
    assert launch.heard()[0] == [{"map": os.getpid()}, {"sealed": "namespaces"}, {"exec": errno.ENOENT}]


@pytest.mark.parametrize(("mode", "what"), [("namespaces", "user namespaces"), ("network", "network namespaces")])
def test_a_launcher_that_cannot_seal_starts_nothing(launch: Launch, mode: str, what: str) -> None:
    launch.denied = what
    launch.near.shutdown(socket.SHUT_WR)
    assert launch.run(mode, [], "program") == 1
    assert [name for name, _ in launch.steps] == ["unshare"]
    assert launch.heard()[0] == [{"failed": f"{what} are denied (EPERM)"}]


def test_a_port_that_is_taken_in_the_namespace_starts_nothing(launch: Launch) -> None:
    launch.near.shutdown(socket.SHUT_WR)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert launch.run("network", [taken.getsockname()[1]], "program") == 1
    (said,) = launch.heard()[0]
    assert "Address already in use" in said["failed"]
    assert ("exec", ["program"]) not in launch.steps


@pytest.mark.parametrize("said", [[], [{"mapped": True}]], ids=["asked to map", "sealed"])
def test_a_launcher_whose_run_was_killed_starts_nothing(launch: Launch, said: list[dict[str, Any]]) -> None:
    launch.say(*said)
    launch.near.shutdown(socket.SHUT_WR)
    assert launch.run("namespaces", [], "program") == "exits with 1"
    assert ("exec", ["program"]) not in launch.steps


def test_landlock_allows_the_ports_and_nothing_else_before_the_filter(kernel: Kernel, launch: Launch) -> None:
    connect = 2
    launch.say({"go": True})
    assert launch.run("landlock", [5000, 6000], "program") == 1
    assert launch.heard() == ([{"sealed": "landlock"}, {"exec": errno.ENOENT}], [])
    assert launch.steps == [("exec", ["program"])]
    assert kernel.asked == [
        ("version",),
        ("rules", (0, connect)),
        ("rule", (connect, 5000)),
        ("rule", (connect, 6000)),
        ("no new privileges",),
        ("restrict",),
        ("filter",),
    ]


@pytest.mark.parametrize(
    ("abi", "fails", "says"),
    [
        (4, "version", "Landlock is not in this kernel"),
        (3, "", "Landlock of this kernel knows no TCP (ABI 3, needs 4)"),
        (4, "rules", "rules of Landlock are denied (EPERM)"),
        (4, "rule", "rules of Landlock are denied (EPERM)"),
        (4, "restrict", "rules of Landlock are denied (EPERM)"),
        (4, "filter", "seccomp filters are denied (EPERM)"),
    ],
)
def test_a_kernel_that_cannot_seal_starts_nothing(
    kernel: Kernel, launch: Launch, abi: int, fails: str, says: str
) -> None:
    kernel.abi, kernel.fails = abi, fails
    launch.near.shutdown(socket.SHUT_WR)
    assert launch.run("landlock", [5000], "program") == 1
    assert (launch.heard()[0], launch.steps) == ([{"failed": says}], [])
