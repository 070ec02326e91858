"""Start a command whose network is loopback and the proxy only: ``python -I -S _seal.py MODE FD PORTS COMMAND...``.

A separate program that imports the standard library only. FD is a socket to `cycles run`, on which both sides send one
JSON object per line. The order: this process seals itself, sends what it listens on (or why it cannot be sealed), waits
for ``{"go": true}``, and becomes the command. If that fails, it sends the error number. The socket is closed at exec.

``namespaces``: a new user and network namespace. This process listens on the ports of `cycles run` inside it and sends
the sockets; only connections to them leave the namespace. ``network``: the same without a user namespace.
``landlock``: no namespace. Landlock allows TCP to PORTS only, and a seccomp filter allows no sockets that Landlock does
not see. Linux ABI: landlock(7), seccomp(2), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys

_NEWUSER = 0x10000000
_NEWNET = 0x40000000
_BACKLOG = 2048
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CONNECT_TCP, _NET_PORT, _ABI_WITH_TCP = 1 << 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


class CannotSealError(Exception):
    """This mode is not possible here; the message says why."""


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _unshare(flags: int, what: str) -> None:
    if _libc.unshare(flags) != 0:
        raise CannotSealError(f"{what} are denied ({_name(ctypes.get_errno())})")


def _map_user(user: int, group: int) -> None:
    """Map the user to itself, if `cycles run` could not map all users."""
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(text)
    except OSError as error:
        raise CannotSealError(f"user namespaces are denied ({_name(error.errno or 0)})") from error


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        try:
            found = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
            flags = struct.unpack("16sH14x", found)[1] | _IFF_UP
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))
        except OSError as error:
            raise CannotSealError(f"network namespaces are denied ({_name(error.errno or 0)})") from error


def _listening(ports: list[int]) -> list[socket.socket]:
    sockets = []
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
        sockets.append(listener)
    return sockets


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _restrict_tcp(ports: list[int]) -> None:
    """Allow connections to these ports only."""
    try:
        abi = _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        raise CannotSealError("Landlock is not in this kernel") from None
    if abi < _ABI_WITH_TCP:
        raise CannotSealError(f"Landlock of this kernel knows no TCP (ABI {abi}, needs {_ABI_WITH_TCP})")
    try:
        ruleset = struct.pack("QQ", 0, _CONNECT_TCP)
        descriptor = _syscall(_CREATE_RULESET, ruleset, ctypes.c_size_t(len(ruleset)), ctypes.c_uint32(0))
        for port in ports:
            rule = struct.pack("QQ", _CONNECT_TCP, port)
            _syscall(_ADD_RULE, ctypes.c_int(descriptor), ctypes.c_int(_NET_PORT), rule, ctypes.c_uint32(0))
        _prctl(_NO_NEW_PRIVS, 1, 0)
        _syscall(_RESTRICT_SELF, ctypes.c_int(descriptor), ctypes.c_uint32(0))
        os.close(descriptor)
    except OSError as error:
        raise CannotSealError(f"rules of Landlock are denied ({_name(error.errno or 0)})") from error


def _prctl(option: int, second: int, third: object) -> None:
    third = ctypes.c_ulong(third) if isinstance(third, int) else third
    zero = ctypes.c_ulong(0)
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(second), third, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# The filter. A line is (code, value, skip if true, skip if false); labels are resolved below.
_LOAD, _AND, _JEQ, _JGE, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW = 0x7FFF0000
_DENY = 0x00050000 | errno.EACCES
_UNKNOWN = 0x00050000 | errno.ENOSYS
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_FASTOPEN = 0x20000000
_IO_URING_SETUP = 425
_MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307}),
    "aarch64": (0xC00000B7, {"socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269}),
}


def _filter_lines(arch: int, numbers: dict[str, int]) -> list[tuple[int, int, str, str]]:
    """Return the filter with labels; an empty label is the next line, and a line's own label is in its place."""

    def load(offset: int) -> tuple[int, int, str, str]:
        return _LOAD, offset, "", ""

    def argument(index: int) -> tuple[int, int, str, str]:
        return load(_ARGUMENTS + 8 * index)  # its lower half: both architectures are little-endian

    def flags(label: str, index: int) -> list[tuple[int, int, str, str]]:
        return [(0, 0, label, ""), argument(index), (_AND, _FASTOPEN, "", ""), (_JEQ, 0, "allow", "deny")]

    return [
        load(_ARCH),
        (_JEQ, arch, "", "unknown"),
        load(_NR),
        (_JGE, _X32, "unknown", ""),
        (_JEQ, _IO_URING_SETUP, "deny", ""),
        (_JEQ, numbers["socket"], "socket", ""),
        (_JEQ, numbers["sendto"], "sendto", ""),
        (_JEQ, numbers["sendmsg"], "sendmsg", ""),
        (_JEQ, numbers["sendmmsg"], "sendto", "allow"),
        (0, 0, "socket", ""),
        argument(0),
        (_JEQ, socket.AF_UNIX, "allow", ""),
        (_JEQ, socket.AF_NETLINK, "allow", ""),
        (_JEQ, socket.AF_INET, "type", ""),
        (_JEQ, socket.AF_INET6, "type", "deny"),
        (0, 0, "type", ""),
        argument(1),
        (_AND, 0xF, "", ""),
        (_JEQ, socket.SOCK_STREAM, "", "deny"),
        argument(2),
        (_JEQ, 0, "allow", ""),
        (_JEQ, socket.IPPROTO_TCP, "allow", "deny"),
        *flags("sendto", 3),
        *flags("sendmsg", 2),
        (0, 0, "allow", ""),
        (_RETURN, _ALLOW, "", ""),
        (0, 0, "deny", ""),
        (_RETURN, _DENY, "", ""),
        (0, 0, "unknown", ""),
        (_RETURN, _UNKNOWN, "", ""),
    ]


def filter_program(machine: str) -> bytes:
    """Return the seccomp filter of a machine as bytes of ``struct sock_filter``.

    Raises:
        CannotSealError: if the machine is not known.
    """
    if machine not in _MACHINES:
        raise CannotSealError(f"the processor {machine} has no filter for Landlock")
    labels: dict[str, int] = {}
    lines: list[tuple[int, int, str, str]] = []
    for code, value, first, second in _filter_lines(*_MACHINES[machine]):
        if code == 0:
            labels[first] = len(lines)
        else:
            lines.append((code, value, first, second))
    program = b""
    for index, (code, value, first, second) in enumerate(lines):
        skips = [labels[label] - index - 1 if label else 0 for label in (first, second)]
        program += struct.pack("HBBI", code, *skips, value)
    return program


def _filter_sockets() -> None:
    """Allow no sockets that Landlock does not see, such as UDP."""
    program = filter_program(os.uname().machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    try:
        _prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(pointer))
    except OSError as error:
        raise CannotSealError(f"seccomp filters are denied ({_name(error.errno or 0)})") from error


class _Parent:
    """The socket to `cycles run`."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._lines = self._socket.makefile("r")

    def send(self, message: dict[str, object], sockets: list[socket.socket] | None = None) -> None:
        data = json.dumps(message).encode() + b"\n"
        if sockets:
            socket.send_fds(self._socket, [data], [each.fileno() for each in sockets])
        else:
            self._socket.sendall(data)

    def receive(self) -> dict[str, object]:
        line = self._lines.readline()
        if not line:
            sys.exit(1)  # `cycles run` was killed
        found: dict[str, object] = json.loads(line)
        return found


def _seal(mode: str, ports: list[int], parent: _Parent) -> list[socket.socket]:
    if mode == "landlock":
        _restrict_tcp(ports)
        _filter_sockets()
        return []
    if mode == "network":
        _unshare(_NEWNET, "network namespaces")
    else:
        user, group = os.geteuid(), os.getegid()
        _unshare(_NEWUSER | _NEWNET, "user namespaces")
        parent.send({"map": os.getpid()})
        if not parent.receive().get("mapped"):
            _map_user(user, group)
    _loopback_up()
    return _listening(ports)


def main(arguments: list[str]) -> int:
    """Seal this process, and become the command."""
    mode, descriptor, ports, *command = arguments
    parent = _Parent(int(descriptor))
    try:
        sockets = _seal(mode, json.loads(ports), parent)
    except (CannotSealError, OSError) as error:
        parent.send({"failed": str(error)})
        return 1
    parent.send({"sealed": mode}, sockets)
    parent.receive()
    for each in sockets:
        each.close()
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        with contextlib.suppress(OSError):
            parent.send({"exec": error.errno or errno.ENOENT})
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
