"""The side of `cycles run` of a sealed command: choose a mode, start `_seal.py`, and take the sockets that it sends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cycles._errors import ConfigurationError
from cycles.proxy._child import Child, not_started

_LAUNCHER: Final = Path(__file__).with_name("_seal.py")
_MODES: Final = ("namespaces", "network", "landlock")
_PRIVILEGED: Final = 1024
_TIMEOUT_S: Final = 60.0
_MOST_BYTES: Final = 65536
_MOST_SOCKETS: Final = 250


class CannotSealError(Exception):
    """No mode is possible on this machine; nothing was started."""


def check_platform() -> None:
    """Raise `CannotSealError` if this system has no way to seal a program."""
    if sys.platform != "linux":
        raise CannotSealError(_impossible([f"{sys.platform} has neither network namespaces nor Landlock"]))


def _impossible(reasons: Sequence[str]) -> str:
    return f"--sealed is not possible here: {', '.join(dict.fromkeys(reasons))}; leave --sealed out"


class SealedChild:
    """A command that is sealed and waits to be started.

    Attributes:
        mode: ``"namespace"`` or ``"landlock"``.
        sockets: For each port a socket that listens on it inside the namespace; empty with Landlock.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], ports: Sequence[int]) -> None:
        """Seal a command.

        Raises:
            CannotSealError: if no mode is possible.
            ConfigurationError: if only Landlock is possible and a port is below 1024.
        """
        check_platform()
        reasons: list[str] = []
        for mode in _MODES:
            if mode == "landlock" and (low := [port for port in ports if port < _PRIVILEGED]):
                _reject_low(low[0], reasons)
            try:
                self._start(mode, command, environment, ports)
            except ModeFailedError as error:
                if mode != "network":  # it needs privileges that few have, so its reason says nothing
                    reasons.append(str(error))
            else:
                self.mode = "landlock" if mode == "landlock" else "namespace"
                return
        raise CannotSealError(_impossible(reasons))

    def _start(self, mode: str, command: Sequence[str], environment: Mapping[str, str], ports: Sequence[int]) -> None:
        near, far = socket.socketpair()
        with far:
            far.set_inheritable(True)
            arguments = [sys.executable, "-I", "-S", str(_LAUNCHER), mode, str(far.fileno()), json.dumps(list(ports))]
            self._child = Child([*arguments, *command], environment)
        self._socket = near
        self._command = command[0]
        near.settimeout(_TIMEOUT_S)
        try:
            self.sockets = self._sealed()
        except ModeFailedError:
            near.close()
            self._child.discard()
            raise

    def _sealed(self) -> list[socket.socket]:
        message, sockets = self._receive()
        if "map" in message:
            self._send({"mapped": _map_all_users(int(message["map"]))})
            message, sockets = self._receive()
        if "sealed" not in message:
            reason = message.get("failed", "the launcher ended")
            raise ModeFailedError(str(reason))
        return sockets

    def _receive(self) -> tuple[dict[str, Any], list[socket.socket]]:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _MOST_BYTES, _MOST_SOCKETS)
            while data and not data.endswith(b"\n"):
                data += self._socket.recv(_MOST_BYTES)
        except OSError as error:
            raise ModeFailedError(f"the launcher did not respond ({error})") from error
        message: dict[str, Any] = json.loads(data) if data else {}
        return message, [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended; `_receive` says so
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def go(self) -> Child:
        """Start the command, and return its process.

        Raises:
            CommandError: if it is not found or not executable.
        """
        self._send({"go": True})
        with self._socket:
            message, _ = self._receive()  # the end of the connection, if the command was started
        if "exec" in message:
            self._child.discard()
            raise not_started(self._command, OSError(message["exec"], os.strerror(message["exec"])))
        return self._child


class ModeFailedError(Exception):
    """A mode is not possible."""


def _reject_low(port: int, reasons: Sequence[str]) -> None:
    raise ConfigurationError(
        f"--share-port {port} is below 1024: this machine can seal with Landlock only ({', '.join(reasons)}), "
        "which sees ports and no hosts; use a port of 1024 or more"
    )


def _map_all_users(pid: int) -> bool:
    """Map all users of this process to themselves in the namespace of another; False without the privilege."""
    try:
        for name in ("uid_map", "gid_map"):
            ranges = [line.split() for line in Path(f"/proc/self/{name}").read_text().splitlines()]
            text = "".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges)
            Path(f"/proc/{pid}/{name}").write_text(text)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):
            raise
        return False
    return True
