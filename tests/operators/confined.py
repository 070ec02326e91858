"""Run a command in a changed world: ``python -m tests.operators.confined HOW COMMAND...``.

HOW is ``no-namespaces`` (user namespaces are denied), ``nothing`` (Landlock too), ``no-user-namespaces`` (they are
denied, but the command has the privilege for a network namespace), or ``host=NAME`` (NAME is 127.0.0.1).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Final

_NEWUSER: Final = 0x10000000
_NEWNS: Final = 0x00020000
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_BOUNDING_DROP: Final = 24
_CAPABILITIES: Final = 64


def main(how: str, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEWUSER | (_NEWNS if how.startswith("host=") else 0)) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are denied here, so they cannot be denied to the test")
    # User 0 of a namespace keeps its capabilities when it starts a command.
    inside = (0, 0) if how == "no-user-namespaces" else (user, group)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside[0]} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{inside[1]} {group} 1")
    if how.startswith("host="):
        _name_this_machine(libc, how.removeprefix("host="))
    else:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    for capability in range(_CAPABILITIES if how in ("no-namespaces", "nothing") else 0):
        libc.prctl(_BOUNDING_DROP, capability, 0, 0, 0)
    if how == "nothing":
        # landlock_create_ruleset (444 on all architectures) is unknown
        lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines), 8 * len(lines))
        libc.prctl(38, 1, 0, 0, 0)
        assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(lines), ctypes.addressof(program)), 0, 0) == 0
    os.execvp(command[0], command)


def _name_this_machine(libc: ctypes.CDLL, name: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix="-hosts", delete=False) as file:
        file.write(f"127.0.0.1 localhost {name}\n")
    Path(file.name).chmod(0o644)
    assert libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None) == 0
    assert libc.mount(file.name.encode(), b"/etc/hosts", None, _BIND, None) == 0
    Path(file.name).unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
