"""Small private files, written whole or not at all. Plain functions on paths; every failure is an `OSError`."""

# Strings, not Paths: making a Path for every call would cost as much as the calls.
# ruff: noqa: PTH104, PTH105, PTH108, PTH120, PTH123

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
# Opened with its final mode: a chmod afterwards would leave a moment in which others could read it, and costs a call.
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_whole(path: str, temporary: str, content: bytes, *, sync: bool) -> None:
    """Puts a private file with this content at the path, by way of the temporary name, which must be nobody else's.

    Raises:
        FileNotFoundError: The folder, or the temporary file, was taken away meanwhile.
        OSError: It could not be done; what was at the path before is still there.
    """
    handle = os.open(temporary, _NEW_FILE, _PRIVATE_FILE)
    try:
        try:
            while content:
                content = content[os.write(handle, content) :]
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:  # an interrupt must not leave half a file either
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        sync_folder(os.path.dirname(path))


def read_whole(path: str) -> bytes:
    """The content of the file."""
    with open(path, "rb") as file:
        return file.read()


def move_to_free_name(source: str, target: str) -> None:
    """Renames, unless there is something at the target already.

    Raises:
        FileExistsError: There is; nothing was changed.
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
    """Makes the folder and what is missing above it, private to this user. What is there already stays as it is."""
    missing = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        if sync:
            sync_folder(str(path.parent))


def sync_folder(folder: str) -> None:
    """Makes the names in the folder survive a power loss."""
    if os.name == "nt":  # Windows has no handle for this, and needs none: NTFS journals names
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
