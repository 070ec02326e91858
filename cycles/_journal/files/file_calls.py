"""Calls about the files of a journal: write one whole, read one, rename one, make a private folder.

None of them has a deadline: `BoundedCalls` in `bounded.py` gives them one.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH104, PTH105, PTH108, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
# Opened with its final mode: a chmod afterwards would leave a moment in which others could read it, and costs a call.
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
# A named pipe without a writer would block an ordinary open for ever.
_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
NOTHING_THERE: Final = (FileNotFoundError, NotADirectoryError)


def write_whole(path: str, temporary: str, content: bytes, *, sync: bool) -> None:
    """Write a private file by way of a temporary name, which no other writer may use.

    Raises:
        FileNotFoundError: The folder, or the temporary file, was removed in the meantime.
        OSError: It could not be done; what was at the path before is unchanged.
    """
    handle = os.open(temporary, _NEW_FILE, _PRIVATE_FILE)
    try:
        try:
            fill(handle, content, sync=sync)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:  # an interrupt must not leave half a file either
        discard(temporary)
        raise
    if sync:
        sync_folder(os.path.dirname(path))


def fill(handle: int, content: bytes, *, sync: bool) -> None:
    """Write all of the content, and make it survive a power loss if `sync`."""
    while content:
        content = content[os.write(handle, content) :]
    if sync:
        os.fsync(handle)


def discard(temporary: str) -> None:
    """Remove a file that is not complete; if that is not possible, empty it."""
    try:
        os.unlink(temporary)
    except OSError:  # it has its final name, or stays: a start must not take what is in it for a record that was saved
        with contextlib.suppress(OSError):
            os.truncate(temporary, 0)


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, in no order; none if it does not exist."""
    with contextlib.suppress(*NOTHING_THERE), os.scandir(folder) as found:
        return [item.name for item in found]
    return []


def read_whole(path: str) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: It cannot be read, or it is a pipe, a device or a folder, which might block for ever.
    """
    handle = os.open(path, _READ)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return file.read()


def move_to_free_name(source: str, target: str) -> None:
    """Rename a file, unless the target exists.

    Raises:
        FileExistsError: It exists; nothing was changed.
    """
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists") from None
        os.rename(source, target)
    else:
        os.unlink(source)


def make_private_folder(folder: str, *, sync: bool) -> None:
    """Make the folder and its missing parents, private to this user. Folders that exist stay unchanged."""
    missing = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        if sync:
            sync_folder(str(path.parent))


def sync_file(path: str) -> None:
    """Make the content of a file survive a power loss."""
    _sync(path, os.O_RDWR)


def sync_folder(folder: str) -> None:
    """Make the names in the folder survive a power loss."""
    if os.name != "nt":  # Windows has no handle for this, and needs none: NTFS journals names
        _sync(folder, os.O_RDONLY)


def _sync(path: str, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
