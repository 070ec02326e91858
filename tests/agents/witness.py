"""A world in which no call can leave unseen: a user and network namespace where each provider host is a listener.

`enter` moves this process into it. Each host of a provider resolves to an address of loopback, on which connections to
the port of TLS are counted and closed. There is no other network.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Final

_NEWUSER, _NEWNET, _NEWNS = 0x10000000, 0x40000000, 0x00020000
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_TLS_PORT: Final = 443
HOSTS: Final = (
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "us-east5-aiplatform.googleapis.com",
    "my.openai.azure.com",
    "api.groq.com",
    "api.mistral.ai",
    "api.x.ai",
    "openrouter.ai",
    "api.deepseek.com",
    "api.cohere.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "cloudcode-pa.googleapis.com",
    "chatgpt.com",
)


class Witness:
    """Counts connections to provider hosts.

    Attributes:
        seen: By host, the number of connections.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._addresses = {f"127.9.0.{number}": host for number, host in enumerate(HOSTS, 1)}
        for address, host in self._addresses.items():
            listener = socket.create_server((address, _TLS_PORT), backlog=64)
            threading.Thread(target=self._count, args=(listener, host), daemon=True).start()

    def _count(self, listener: socket.socket, host: str) -> None:
        while True:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                self.seen[host] += 1
                connection.close()

    @property
    def hosts_file(self) -> str:
        """The file in which hosts are looked up."""
        return "127.0.0.1 localhost\n" + "".join(f"{address} {host}\n" for address, host in self._addresses.items())


def enter() -> Witness:
    """Move this process, which must have one thread, into the namespaces.

    Raises:
        OSError: if the kernel denies them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _checked(libc.unshare(_NEWUSER | _NEWNET | _NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 1))
    witness = Witness()
    with tempfile.NamedTemporaryFile("w", suffix="-hosts", delete=False) as file:
        file.write(witness.hosts_file)
    Path(file.name).chmod(0o644)
    _checked(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None))
    _checked(libc.mount(file.name.encode(), b"/etc/hosts", None, _BIND, None))
    return witness


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel denies user, network or mount namespaces: {os.strerror(number)}")
