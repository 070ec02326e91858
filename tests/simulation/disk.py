"""The simulated disk of the journals: real files in one directory, with failing calls, torn writes and power loss."""

# This module stands in for os, so it calls os.
# ruff: noqa: PTH105, PTH108

from __future__ import annotations

import errno
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import define

from cycles._core import records
from tests.simulation.hub import Hub


@define
class DiskFaults:
    """What is wrong with the disk."""

    full: float = 0.0  # chance that a write fails with ENOSPC
    torn: float = 0.0  # chance that a write is cut short and fails
    read_only: bool = False


class SimOs:
    """The module `os` as the journal sees it. Calls that it does not replace go to the real module.

    A file that was not fsynced is lost, or torn, by `lose_power`.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.faults = DiskFaults()
        self._unsynced: dict[int, str] = {}
        self._dirty: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self._step()
        if self.faults.read_only and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "read-only file system", str(path))
        handle = os.open(path, flags, mode)
        if flags & os.O_CREAT:
            self._unsynced[handle] = str(path)
            self._dirty.add(str(path))
        return handle

    def write(self, handle: int, content: bytes) -> int:
        self._step()
        if self._hub.random.random() < self.faults.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        if self._hub.random.random() < self.faults.torn:
            os.write(handle, content[: len(content) // 2])
            raise OSError(errno.EIO, "input/output error")
        return os.write(handle, content)

    def fsync(self, handle: int) -> None:
        self._step()
        path = self._unsynced.get(handle)
        if path is not None:
            self._dirty.discard(path)

    def close(self, handle: int) -> None:
        self._unsynced.pop(handle, None)
        os.close(handle)

    def replace(self, source: Any, target: Any) -> None:
        self._step()
        self._change(target)
        os.replace(source, target)
        if str(source) in self._dirty:
            self._dirty.discard(str(source))
            self._dirty.add(str(target))

    def unlink(self, path: Any) -> None:
        self._step()
        self._change(path)
        os.unlink(path)
        self._dirty.discard(str(path))

    def lose_power(self) -> None:
        """Lose what was not fsynced: each such file is gone, empty, or cut short."""
        for path in sorted(self._dirty):
            file = Path(path)
            if not file.exists():
                continue
            fate = self._hub.random.choice(("gone", "empty", "torn", "whole"))
            if fate == "gone":
                file.unlink()
            elif fate == "empty":
                file.write_bytes(b"")
            elif fate == "torn":
                content = file.read_bytes()
                file.write_bytes(content[: len(content) // 2])
        self._dirty.clear()

    def _change(self, path: Any) -> None:
        if self.faults.read_only:
            raise OSError(errno.EROFS, "read-only file system", str(path))

    def _step(self) -> None:
        hub = self._hub
        if hub.current is not None:
            hub.check_alive()
            hub.preempt(0.1)
            hub.check_alive()


@lru_cache
def _known_partition(base_url: str, principal: str, is_tenant: bool) -> str:
    """Return the name of a partition; the real digest is slow on purpose, so it is calculated once."""
    return records.partition(base_url, principal if is_tenant else None, principal)


def _partition(base_url: str, tenant: str | None, api_key: str) -> str:
    return _known_partition(base_url, tenant or api_key, tenant is not None)


def patches(disk: SimOs) -> list[tuple[Any, str, Any]]:
    """Return what replaces the file calls of the journal: module, name, value."""
    from cycles._journal import file_store, journal

    return [(file_store, "os", disk), (journal, "os", disk), (journal, "partition", _partition)]
