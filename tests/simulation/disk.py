"""The simulated disk of the journals: real files in one directory, with failing calls, torn writes and power loss."""

# This module replaces os, so it calls os.
# ruff: noqa: PTH105, PTH108, PTH110, PTH200

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import define, field

from cycles._core.pool.sums import SECTOR
from cycles._core.settlement import record as records
from cycles._journal.files.locked_file import NEW
from tests.simulation.hub import Hub, Process
from tests.simulation.swarm import Swarm

CALLS: Final = {
    "fsync fails": errno.EIO,
    "rename fails": errno.EACCES,
    "unlink fails": errno.EACCES,
    "open fails": errno.EMFILE,
    "read fails": errno.EIO,
    "stat fails": errno.EIO,
}
"""The features with which a call of the disk fails, and its error."""
HANGS: Final = "disk hangs"
HANGS_S: Final = (0.5, 3.0, 20.0)
KILL: Final = "kill at a new log"
MOST_CALLS: Final = 6  # of logs that are made, before the one at which their process is killed
GIVEN_UP_S: Final = 1.9  # the journal gives a call up after 2 s, so what it writes may be missing


@define
class DiskFaults:
    """What is wrong with the disk."""

    full: float = 0.0  # chance that a write fails with ENOSPC
    torn: float = 0.0  # chance that a write is cut short and fails
    read_only: bool = False
    short: float = 0.0  # chance that a write takes a part, and returns how much
    hangs: float = 0.0  # chance that a call takes seconds
    calls: dict[str, float] = field(factory=dict)  # chances that one of `CALLS` fails


@define
class _Open:
    """An open file: which process opened it, and where."""

    process: Process | None
    path: str


class SimOs:
    """The module `os` as the journal sees it. Calls that it does not replace go to the real module.

    What was not fsynced may be lost by `lose_power`: the content of a file, and the change of a name in a folder.

    Args:
        hub: The machine.
        swarm: The features of the run.
        kill: Kills a process that makes a log.
    """

    def __init__(self, hub: Hub, swarm: Swarm, kill: Callable[[Process], None]) -> None:
        self._hub = hub
        self._kill = kill
        kills = Random(f"new logs {hub.seed}")
        self.until_kill = kills.randrange(1, MOST_CALLS) if KILL in swarm and kills.random() < 0.7 else 0
        self._swarm = swarm
        self.faults = DiskFaults()
        self.was_read_only = False  # or it did not take a file of which nothing is known
        self.has_lost_power = False
        self._random = Random(f"disk {hub.seed}")  # drawn apart, so that the runs of all other seeds stay as they are
        self._open: dict[int, _Open] = {}
        self._dirty: set[str] = set()  # files whose content was not fsynced
        self._changed: dict[str, dict[str, bytes | None]] = {}  # what each change of a name replaced, not fsynced
        self._failed: list[bytes] = []  # what writes that failed should have written
        self._without_spend: set[Process | None] = set()  # processes that could not make a log of spend
        self._synced: dict[str, bytes] = {}  # what the disk has of the mapped logs of pools

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self._step()
        if self.faults.read_only and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.was_read_only = True
            self._swarm.matters("disk fails")
            raise OSError(errno.EROFS, "read-only file system", str(path))
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if self._fails("open fails" if writes else "read fails", path):
            self.was_read_only |= writes or Path(path).is_dir()  # a folder is opened to fsync its names
            raise self._error("open fails" if writes else "read fails", path)
        handle = os.open(path, flags, mode)
        current = self._hub.current
        if not flags & os.O_NONBLOCK or flags & os.O_RDWR:  # a file that is only read has no lock
            self._open[handle] = _Open(None if current is None else current.process, str(path))
        if flags & os.O_CREAT:
            self._dirty.add(str(path))
        return handle

    def write(self, handle: int, content: bytes) -> int:
        self._step()
        self._at_new_log(self._open[handle].path)
        if self._hub.random.random() < self.faults.full:
            self._note_failed(handle, content)
            raise OSError(errno.ENOSPC, "no space left on device")
        self._dirty.add(self._open[handle].path)
        if self._hub.random.random() < self.faults.torn:
            self._note_failed(handle, content)
            os.write(handle, content[: len(content) // 2])
            raise OSError(errno.EIO, "input/output error")
        if len(content) > 1 and self._happens("short writes", self.faults.short):
            content = content[: self._random.randrange(1, len(content))]
        return os.write(handle, content)

    def fsync(self, handle: int) -> None:
        self._step()
        path = self._open[handle].path
        if self._fails("fsync fails", path):
            raise self._error("fsync fails", path)
        self._dirty.discard(path)
        if Path(path).name.startswith("pool-"):
            self._synced[path] = Path(path).read_bytes()
        folder = path.rstrip("/") + "/"
        for name in [name for name in self._changed if name.startswith(folder) and "/" not in name[len(folder) :]]:
            del self._changed[name]

    def fdatasync(self, handle: int) -> None:
        """Write the slots of a mapped log that are in memory."""
        self._step()
        if handle not in self._open:
            raise OSError(errno.EBADF, "the file was closed in the meantime")
        path = self._open[handle].path
        if self._fails("fsync fails", path):
            raise self._error("fsync fails", path)
        self._synced[path] = Path(path).read_bytes()

    def stat(self, path: Any) -> os.stat_result:
        if self._fails("stat fails", path):
            self.was_read_only = True  # a record that was just renamed counts as not saved
            raise self._error("stat fails", path)
        return Path(path).stat()

    def close(self, handle: int) -> None:
        self._open.pop(handle, None)
        os.close(handle)

    def replace(self, source: Any, target: Any) -> None:
        self._step()
        self._at_new_log(str(source))
        if self._fails("rename fails", source):
            raise self._error("rename fails", source)
        self._rename(str(source), str(target))
        if str(source) in self._synced:
            self._synced[str(target)] = self._synced.pop(str(source))

    def link(self, source: Any, target: Any) -> None:
        self._step()
        if not os.path.lexists(target):
            self._change(str(target))
        os.link(source, target)
        if str(source) in self._dirty:
            self._dirty.add(str(target))

    def unlink(self, path: Any) -> None:
        self._step()
        if self._fails("unlink fails", path):
            raise self._error("unlink fails", path)
        if os.path.lexists(path):
            self._change(str(path))
        os.unlink(path)
        self._dirty.discard(str(path))

    @contextlib.contextmanager
    def scandir(self, folder: Any) -> Iterator[list[os.DirEntry[str]]]:
        """List a folder in an order of the seed: that of the system depends on more than the run."""
        if self._fails("read fails", folder):
            raise self._error("read fails", folder)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        self._hub.random.shuffle(entries)
        yield entries

    def register_at_fork(self, **_: Any) -> None:
        """A simulated fork copies no memory, so nothing has to be closed in the child."""

    def is_durable(self, path: Path) -> bool:
        """Return whether the file, and its name, survive a power loss."""
        return path.exists() and str(path) not in self._dirty and str(path) not in self._changed

    def is_synced(self, path: Path) -> bool:
        """Return whether the disk has what a mapped log has; if it is removed, the journal has its record."""
        return not path.exists() or self._synced.get(str(path)) == path.read_bytes()

    def has_failed(self, text: str | None = None) -> bool:
        """Return whether a write of something that contains this text has failed; without a text, any write."""
        return self.was_read_only or any(text is None or f'"{text}"'.encode() in content for content in self._failed)

    def keeps_spend(self, process: Process) -> bool:
        """Return whether a process could make its logs of spend."""
        return not self.was_read_only and process not in self._without_spend

    def opened_by(self, process: Process) -> list[str]:
        """Return the paths of the files that a process has open."""
        return sorted(each.path for each in self._open.values() if each.process is process)

    def release_locks(self, process: Process) -> None:
        """Release the file locks of a process that has ended, as its system does."""
        for handle, each in self._open.items():
            if each.process is process:
                fcntl.flock(handle, fcntl.LOCK_UN)

    def lose_power(self, journal: Path) -> None:
        """Lose what was not fsynced. What was only in memory, like the mapped logs of spend, is lost too."""
        random = self._hub.random
        self.has_lost_power = True
        for change in [change for _, change in sorted(self._changed.items())]:
            if random.random() < 0.5:  # undone as a whole
                for name, before in change.items():
                    if not Path(name).parent.is_dir():
                        continue  # its machine is lost
                    if before is not None:
                        Path(name).write_bytes(before)
                    elif os.path.exists(name):
                        os.unlink(name)
        for name in sorted(self._dirty):
            file = Path(name)
            if file.exists():
                content = file.read_bytes()
                file.write_bytes(random.choice((b"", content[: len(content) // 2], content)))
        for file in sorted(journal.rglob("spend-*.log")):
            if file.stat().st_size > 1_000 and random.random() < 0.5:
                self._lose_pages(file, bytes(file.stat().st_size))
        for file in sorted(journal.rglob("pool-*.log")):
            if str(file) in self._synced and random.random() < 0.5:
                self._lose_pages(file, self._synced[str(file)])
        self._dirty.clear()
        self._changed.clear()

    def _lose_pages(self, file: Path, before: bytes) -> None:
        """Go back to what the disk had of a mapped file: all of it, or some sectors if the feature is on."""
        if "mapped steps" in self._swarm and len(before) == file.stat().st_size:
            now, pages = file.read_bytes(), Random(f"pages {self._hub.seed}")
            starts = range(0, len(before), SECTOR)
            before = b"".join(pages.choice((before, now))[start : start + SECTOR] for start in starts)
            self._swarm.matters("mapped steps")
        file.write_bytes(before)

    def _note_failed(self, handle: int, content: bytes) -> None:
        opened = self._open[handle]
        self._swarm.matters("disk fails")
        begun = (_content(opened.path) or b"")[: os.lseek(handle, 0, os.SEEK_CUR)]  # by a short write
        self._failed.append(begun + content)
        if Path(opened.path).name.startswith("spend-"):
            self._without_spend.add(opened.process)

    def _rename(self, source: str, target: str) -> None:
        if os.path.lexists(source):  # else the call fails and changes nothing
            self._change(target, source)
        os.replace(source, target)
        for each in self._open.values():
            if each.path == source:
                each.path = target
        if source in self._dirty:
            self._dirty.discard(source)
            self._dirty.add(target)
        else:
            self._dirty.discard(target)

    def _change(self, *paths: str) -> None:
        """Note the content behind the first name and behind the others that change with it."""
        if self.faults.read_only:
            self.was_read_only = True
            raise OSError(errno.EROFS, "read-only file system", paths[0])
        if paths[0] not in self._changed:
            self._changed[paths[0]] = {path: _content(path) for path in paths}

    def _happens(self, feature: str, chance: float) -> bool:
        happens = chance > 0 and self._hub.current is not None and self._random.random() < chance
        if happens:
            self._swarm.matters(feature)
        return happens

    def _fails(self, feature: str, path: Any) -> bool:
        """Return whether a call fails now. What its file has may be missing then."""
        if not self._happens(feature, self.faults.calls.get(feature, 0.0)):
            return False
        content = _content(str(path)) or b""
        self._failed.append(content)
        if Path(path).name.startswith(("spend-", "pool-")) or Path(path).is_dir():
            self.was_read_only |= feature not in ("read fails", "stat fails")
        return True

    def _at_new_log(self, path: str) -> None:
        """Kill the process that makes a log before one of the calls that complete it, if the seed chooses this one."""
        thread = self._hub.current
        if thread is None or not self.until_kill or not path.endswith(NEW):
            return
        self.until_kill -= 1
        if not self.until_kill:
            self._swarm.matters(KILL)
            self._hub.after(0, lambda: self._kill(thread.process))
            self._hub.preempt_now()

    @staticmethod
    def _error(feature: str, path: Any) -> OSError:
        return OSError(CALLS[feature], os.strerror(CALLS[feature]), str(path))

    def _step(self) -> None:
        hub = self._hub
        if hub.current is not None:
            hub.check_alive()
            hub.preempt(0.1)
            if self._happens(HANGS, self.faults.hangs):
                hub.suspended += 1  # the bounds of calls do not count what a disk takes
                length_s = self._random.choice(HANGS_S)
                self.was_read_only |= length_s > GIVEN_UP_S
                hub.sleep(length_s)
            hub.check_alive()


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


@lru_cache
def _known_partition(base_url: str, principal: str, is_tenant: bool) -> str:
    """Return the name of a partition; the real digest is slow on purpose, so it is calculated once."""
    return records.partition(base_url, principal if is_tenant else None, principal)


def partition(base_url: str, tenant: str | None, api_key: str) -> str:
    """Return the name of a partition."""
    return _known_partition(base_url, tenant or api_key, tenant is not None)


def patches(disk: SimOs) -> list[tuple[Any, str, Any]]:
    """Return what replaces the file calls of the journal: module, name, value."""
    from cycles._journal import journal
    from cycles._journal.files import file_calls, locked_file, record_files

    modules = (file_calls, record_files, locked_file)
    return [*((module, "os", disk) for module in modules), (journal, "partition", partition)]
