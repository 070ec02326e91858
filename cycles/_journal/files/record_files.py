"""The files of records: one private file for each, written whole or not at all, and used again for the next record.

No lock between processes is needed. A record is written under a temporary name and renamed into place, so a reader
gets all of it or nothing. Files belong to one machine: a claim lasts as long as the process that made it.

Making and unlinking a file is what a journal costs, so a file stays open for the next record: a spare, which is a
`LockedFile`. A record is written into it, then it is renamed into place. At the end it is renamed back, and only then
its first byte is overwritten: a reader of the record's name finds a whole record or no file. A start takes the spares
that it can lock, and puts a whole record in one of them into place.
"""

# Strings, not Paths: making a Path for every call would cost as much as the calls.
# ruff: noqa: PTH100, PTH105, PTH108, PTH111, PTH116, PTH118

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from cycles._core.settlement.record import RecordError, decode, file_name
from cycles._journal.files import locked_file
from cycles._journal.files.bounded import BoundedCalls
from cycles._journal.files.file_calls import (
    NOTHING_THERE,
    discard,
    fill,
    make_private_folder,
    move_to_free_name,
    names_in,
    read_whole,
    sync_file,
    sync_folder,
    write_whole,
)
from cycles._journal.files.locked_file import LockedFile, after_fork, lock

# A writer starts over if its folder or its temporary file was removed. Once is rare, three times is a problem.
_WRITE_ATTEMPTS: Final = 3
_TEMPORARY: Final = re.compile(r"(v2-[0-9a-f]{64}\.json)\.([0-9a-f]+-\d+)-\d+\.tmp")
_OWN_NAME: Final = re.compile(r"v2-([0-9a-f]{64})\.json")
_SPARE: Final = ".spare"
MOST_SPARES: Final = 64  # open files: of records in place, and of those that wait for one
REJECTED: Final = "rejected"
SETTLED_KEPT_MS: Final = 30 * 86_400_000  # how long a rejected record stays after an operator has settled it
SETTLED_AT: Final = "settled_at_ms"  # member of a rejected record that was settled by hand


class RecordFiles:
    """The files of one partition. Threads, processes and forked children may share the folder.

    Operations raise `OSError`.

    Args:
        root: Directory of all journals; `~` is expanded.
        partition: Returns the name of the subdirectory; called at the first use.
        sync: Whether a record survives a power loss too (file and folder are fsynced).
    """

    def __init__(self, root: Path, partition: Callable[[], str], *, sync: bool) -> None:
        self.root = root
        self._partition = partition
        self._sync = sync
        self._folder: str | None = None  # its path with a separator, once it is known
        self._made = False  # the folder was there when it was last used
        # By process: a lock that a thread holds while the process forks stays locked in the child for ever.
        # Re-entrant: a signal handler may need the folder that its thread looks for.
        self._locks: dict[int, AbstractContextManager[bool]] = {}
        # Process ids repeat (every container has a 1), so temporary names begin with a random token.
        self._token = secrets.token_hex(4)
        self._serial = itertools.count()
        self._calls = BoundedCalls()
        self._spares = SpareFiles(self._unique, sync=sync)

    def close(self) -> None:
        """Remove the files that are kept for reuse. A record can be saved afterwards, in a new file."""
        with contextlib.suppress(OSError):
            self._calls.call(self.known_folder, lambda _: self._spares.close())

    def locate(self) -> str:
        """Return the folder's path with a separator at its end. The first use takes about 10 ms of CPU."""
        if self._folder is not None:
            return self._folder
        # One thread calculates the name, which takes 10 ms of CPU; the others wait for it.
        with self._locks.setdefault(os.getpid(), threading.RLock()):
            if self._folder is None:
                self._folder = os.path.join(_absolute(self.root), self._partition(), "")
            return self._folder

    @property
    def known_folder(self) -> str:
        """The folder's path, or the root's as long as no operation has needed the folder."""
        return self._folder or str(self.root)

    @property
    def hangs(self) -> bool:
        """Whether a call that saves or deletes a record has not returned within its deadline, and may still end."""
        return self._folder is not None and self._calls.hangs(self._folder)

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return self.locate() + name

    def rejected(self) -> Iterator[bytes]:
        """Yield the content of each file in the folder `rejected`: an object with `reason` and `record`."""
        for name in self.rejected_names():
            with contextlib.suppress(*NOTHING_THERE):
                yield self.read(f"{REJECTED}/{name}")

    def listed(self) -> list[str]:
        """Return the names of all records, in no order. Opens nothing and makes no directory."""
        return [name for name in self._all_names() if name.endswith(".json")]

    def names(self) -> list[str]:
        """Return the names of all records, after putting complete temporary files of dead writers into place."""
        names = self._all_names()
        entries = {name for name in names if name.endswith(".json")}
        for name in names:
            match = _TEMPORARY.fullmatch(name)
            if match and match[2] != self._writer():  # our own threads are alive
                entries |= self._finish_writing(name, match[1])
            elif name.endswith(_SPARE) and not name.startswith(f"{self._writer()}-"):
                with contextlib.suppress(OSError):
                    spare = self._calls.call(self.path(name), lock, discard=LockedFile.close)
                    with contextlib.closing(spare):
                        entries |= self._finish_writing(name, None)
        # A writer that died may not have done so, and they are sent next.
        if self._sync and entries:
            self._calls.call(self.locate(), sync_folder)
        return list(entries)

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return self._calls.call(self.path(name), os.path.lexists)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self._calls.call(self.path(name), read_whole)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, in place of what was there."""
        folder = self._folder or self.locate()
        for _ in range(_WRITE_ATTEMPTS - 1):
            try:
                return self._calls.quick(folder, self._write_once, folder, name, content)
            except (FileNotFoundError, FileExistsError):
                self._made = False
        return self._calls.quick(folder, self._write_once, folder, name, content)

    def remove(self, name: str) -> None:
        """Remove a file, unless another process has done so."""
        try:  # without a context manager, as in `_save`
            folder = self._folder or self.locate()
            self._calls.quick(folder, self._remove_once, folder + name)
        except NOTHING_THERE:
            pass

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file; FileExistsError if the new name is taken."""
        source, target = self.path(name), self.path(new_name)
        self._calls.call(self.locate(), lambda _: move_to_free_name(source, target))

    def set_aside(self, name: str) -> str:
        """Rename a file so that it is no record any more, and return its new name."""
        kept = f"{name}.{self._unique()}.quarantined"
        source, target = self.path(name), self.path(kept)
        self._calls.call(self.locate(), lambda _: os.replace(source, target))
        return kept

    def _all_names(self) -> list[str]:
        return self._calls.call(self.locate(), names_in)

    def _remove_once(self, path: str) -> None:
        if not self._spares.remove(path):
            os.unlink(path)

    def _write_once(self, folder: str, name: str, content: bytes) -> None:
        if not self._made:
            make_private_folder(folder, sync=self._sync)
            self._made = True  # until a write fails: looking each time would cost a call for each record
        if self._spares.write(folder, folder + name, content):
            if self._sync:
                sync_folder(folder)
        else:
            write_whole(folder + name, f"{folder}{name}.{self._unique()}.tmp", content, sync=self._sync)

    def remove_settled(self, before_ms: int) -> None:
        """Delete the rejected records that were settled by hand before a time, in milliseconds since the epoch."""
        for name in self.rejected_names():
            settled_ms = None
            with contextlib.suppress(OSError, ValueError, AttributeError):  # a file that hangs, or of others
                settled_ms = json.loads(self.read(f"{REJECTED}/{name}")).get(SETTLED_AT)
            if type(settled_ms) is int and settled_ms < before_ms:
                self.remove(f"{REJECTED}/{name}")

    def set_aside_names(self) -> list[str]:
        """Return the names of quarantined records."""
        return [name for name in self._all_names() if name.endswith(".quarantined")]

    def rejected_names(self) -> list[str]:
        """Return the names of the files in the folder `rejected`."""
        found = self._calls.call(os.path.join(self.locate(), REJECTED), names_in)
        return sorted(name for name in found if _OWN_NAME.fullmatch(name))

    def keep_rejected(self, name: str, members: dict[str, object]) -> None:
        """Write a file of the folder `rejected`."""
        folder = os.path.join(self.locate(), REJECTED, "")
        temporary, content = f"{folder}{name}.{self._unique()}.tmp", json.dumps(members).encode("ascii")

        def write(_: str) -> None:
            make_private_folder(folder, sync=self._sync)
            write_whole(folder + name, temporary, content, sync=self._sync)

        self._calls.call(self.locate(), write)

    def _finish_writing(self, temporary: str, name: str | None) -> set[str]:
        """Finish what a writer began that died before its rename. Returns the names this adds. None: any name."""
        path = self.path(temporary)
        with contextlib.suppress(OSError):  # its writer is alive and was faster
            try:
                own_name = file_name(decode(self._calls.call(path, read_whole)).reservation_id)
                if name in (own_name, None):
                    if self._sync:
                        self._calls.call(path, sync_file)
                    self.rename(temporary, own_name)
                    return {own_name}
            except (RecordError, FileExistsError):
                pass
            self._calls.call(path, os.unlink)
        return set()

    def _unique(self) -> str:
        return f"{self._writer()}-{next(self._serial)}"

    def _writer(self) -> str:
        return f"{self._token}-{os.getpid()}"


def key_in(name: str) -> str | None:
    """Return the key of a record in the name of its file; None for other files."""
    match = _OWN_NAME.fullmatch(name)
    return None if match is None else match[1]


def _absolute(root: Path) -> str:
    expanded = os.path.expanduser(root)
    if expanded.startswith("~"):
        raise NotADirectoryError(errno.ENOTDIR, "this user has no home directory", expanded)
    return os.path.abspath(expanded)


class _Spare:
    """One open file. `path` is its name while no record is in it.

    It is closed when no container and no call has it any more: a signal handler may raise between any two steps.
    """

    __slots__ = ("file", "inode", "path", "size")

    def __init__(self, path: str, file: LockedFile, size: int) -> None:
        self.path = path
        self.file = file
        self.inode = os.fstat(file.descriptor).st_ino
        self.size = size

    def discard(self) -> None:
        """Remove it while no record is in it."""
        discard(self.path)

    def __del__(self) -> None:
        if hasattr(self, "file"):  # else a signal handler raised before
            self.file.close()


class SpareFiles:
    """The reused files of one store in one process. Any thread may call it.

    Args:
        unique: Returns what no other name has, also not in a forked child.
        sync: Whether records survive a power loss.
    """

    def __init__(self, unique: Callable[[], str], *, sync: bool) -> None:
        self._unique = unique
        self._sync = sync
        self._spares: deque[_Spare] = deque()
        self._placed: dict[str, _Spare] = {}  # by the path of the record
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may come in between and use the journal too
        after_fork(self._forked)

    def write(self, folder: str, path: str, content: bytes) -> bool:
        """Write a record and put it into place; return False if the caller has to do so.

        Raises:
            OSError: it could not be done; what was at the path before is unchanged.
        """
        if self._closed or locked_file.fcntl is None:
            return False
        try:
            spare = self._spares.pop()
        except IndexError:
            temporary = f"{folder}{self._unique()}{_SPARE}"
            file = locked_file.make(path, content, temporary=temporary, sync=self._sync)
            spare = _Spare(temporary, file, len(content))
        else:
            self._rewrite(spare, path, content)
        with self._lock:
            self._placed.pop(path, None)  # of an earlier form of the record, whose name the new one has now
            if len(self._placed) < MOST_SPARES and not self._closed:
                self._placed[path] = spare
        return True

    def _rewrite(self, spare: _Spare, path: str, content: bytes) -> None:
        descriptor = spare.file.descriptor
        try:
            if len(content) < spare.size:  # else the end of a longer record would stay behind this one
                os.ftruncate(descriptor, len(content))
            os.lseek(descriptor, 0, os.SEEK_SET)
            spare.size = len(content)
            rest = content[os.write(descriptor, content) :]
            if rest or self._sync:  # rarely: a call for each record saved
                fill(descriptor, rest, sync=self._sync)
            os.replace(spare.path, path)
        except BaseException:
            spare.discard()
            raise

    def remove(self, path: str) -> bool:
        """Take a record out of place; return False if the caller has to remove it."""
        spare = self._placed.pop(path, None)
        if spare is None:
            return False
        try:
            try:
                os.replace(path, spare.path)
            except FileNotFoundError:  # another process has settled it
                return True
            except OSError:
                return False
            # Whatever fails now, a start must not take the spare for a record that was saved.
            with contextlib.suppress(OSError):
                os.lseek(spare.file.descriptor, 0, os.SEEK_SET)
                os.write(spare.file.descriptor, b"\0")
        except BaseException:  # a signal handler has raised: the record may be in it
            spare.discard()
            raise
        # If another process has replaced the record, the name is of its file, which is not used again.
        with contextlib.suppress(OSError):
            if os.stat(spare.path).st_ino == spare.inode and self._keep(spare):
                return True
        spare.discard()
        return True

    def close(self) -> None:
        """Remove the spares, and close the files of records. Those stay in place for the next process."""
        with self._lock:
            self._closed = True
            spares, self._spares = self._spares, deque()
            self._placed = {}
        for spare in spares:
            spare.discard()

    def _keep(self, spare: _Spare) -> bool:
        with self._lock:
            # No call between the last look and the append: a signal handler closes before both or after them.
            if len(self._spares) >= MOST_SPARES or self._closed:
                return False
            self._spares.append(spare)
            return True

    def _forked(self) -> None:
        """Start again in a forked child, in which the files of the parent are closed."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._spares.clear()
        self._placed.clear()
