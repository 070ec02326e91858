"""Run a command where user namespaces are denied, or Landlock too: ``python -m tests.operators.confined HOW``.

HOW is ``no-namespaces`` or ``nothing``. The command follows.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

_NEWUSER: Final = 0x10000000
_BOUNDING_DROP: Final = 24
_CAPABILITIES: Final = 64


def main(how: str, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are denied here, so they cannot be denied to the test")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    for capability in range(_CAPABILITIES):
        libc.prctl(_BOUNDING_DROP, capability, 0, 0, 0)
    if how == "nothing":
        # landlock_create_ruleset (444 on all architectures) is unknown
        lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines), 8 * len(lines))
        libc.prctl(38, 1, 0, 0, 0)
        assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(lines), ctypes.addressof(program)), 0, 0) == 0
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
