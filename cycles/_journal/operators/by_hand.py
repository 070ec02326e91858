"""What an operator does with the files of journals: send one again, discard one, move all to another directory."""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH108, PTH118

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from pathlib import Path
from typing import Final

from attrs import evolve

from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._journal.files.file_calls import make_private_folder, move_to_free_name, read_whole, write_whole
from cycles._journal.files.record_files import REJECTED, SETTLED_AT
from cycles._journal.files.spend import PREFIX, SUFFIX, left_entries, remove_entries
from cycles._journal.operators.inspect import DISCARDED, InspectedRecord

_ENDINGS: Final = (".json", ".quarantined", DISCARDED, ".tmp")
_PARTITION: Final = re.compile(r"[0-9a-f]{16}")


def discard(entry: InspectedRecord) -> str:
    """Rename a record so that no client settles it, and return its new path. The file is kept.

    A record that was written ahead is moved to a file of its own.

    Raises:
        BlockingIOError: the process that has written it ahead lives.
        OSError: it cannot be renamed.
    """
    written_ahead = entry.path.endswith(SUFFIX)
    own_path = str(Path(entry.path).parent / file_name(entry.reservation_id or ""))
    target = (own_path if written_ahead else entry.path) + DISCARDED
    if os.path.lexists(target):  # the reservation had another record, which was discarded before
        target = f"{entry.path}.{secrets.token_hex(4)}{DISCARDED}"
    if not written_ahead:
        move_to_free_name(entry.path, target)
    elif not remove_entries(entry.path, entry.reservation_id or "", lambda content: _keep(target, content)):
        raise FileNotFoundError(errno.ENOENT, "a client has settled it in the meantime", entry.path)
    return target


def _keep(path: str, content: bytes) -> None:
    write_whole(path, f"{path}.{secrets.token_hex(4)}.tmp", content, sync=True)


def requeue(entry: InspectedRecord, record: Record) -> None:
    """Rename a quarantined record back, so that a client settles it.

    Raises:
        FileExistsError: another record of the reservation is pending.
        OSError: it cannot be renamed.
    """
    move_to_free_name(entry.path, str(Path(entry.path).parent / file_name(record.reservation_id)))


def as_event(record: Record, now_ms: int) -> Record | None:
    """Return a rejected record as one whose event is sent next, under its own key; None if it has no event."""
    if record.event_fallback_body is None:
        return None
    return evolve(
        record,
        mode="event",
        rejected=None,
        settled=None,
        not_before_ms=None,
        attempt_unknown=False,
        event_since_ms=now_ms,
    )


def put_rejected_back(entry: InspectedRecord, record: Record) -> str:
    """Save a changed record of `rejected/` as pending, and return its path. The rejected file stays as well.

    Raises:
        FileExistsError: another record of the reservation is pending.
        OSError: it cannot be written.
    """
    path = str(Path(entry.path).parent.parent / file_name(record.reservation_id))
    if not _write_new(path, encode(record)):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    return path


def mark_settled(entry: InspectedRecord, now_ms: int) -> None:
    """Note in a rejected record that it was settled by hand, unless it was rejected again.

    Raises:
        OSError: it cannot be written.
    """
    kept = json.loads(read_whole(entry.path))
    if kept.get("record") == entry.record and kept.get("reason") == entry.reason:
        content = json.dumps({**kept, SETTLED_AT: now_ms}).encode("ascii")
        write_whole(entry.path, f"{entry.path}.{secrets.token_hex(4)}.tmp", content, sync=True)


def move_all(source: Path, target: Path) -> tuple[int, int]:
    """Move all records from one directory of journals to another; return how many were moved, and how many stay.

    A record stays if the target has another one under its name.

    Raises:
        OSError: a directory cannot be read or written.
    """
    source, target = source.expanduser().absolute(), target.expanduser().absolute()
    moved = left = 0
    for folder, _, names in os.walk(source):
        relative = os.path.relpath(folder, source)
        if relative.count(os.sep) > 1 or not _holds_records(relative):
            continue
        there = os.path.normpath(os.path.join(target, relative))
        moved += _save_spend(folder, there, names)
        for name in sorted(names):
            if name.endswith(_ENDINGS):
                done = _move(folder, there, name)
                moved, left = moved + done, left + (not done)
    return moved, left


def _holds_records(relative: str) -> bool:
    first, _, second = relative.partition(os.sep)
    return relative in (".", REJECTED) or (_PARTITION.fullmatch(first) is not None and second in ("", REJECTED))


def _save_spend(folder: str, there: str, names: list[str]) -> int:
    """Save spend that dead processes wrote ahead as records at the target; return how many."""
    if not any(name.startswith(PREFIX) and name.endswith(SUFFIX) for name in names):
        return 0
    saved = 0
    with left_entries(folder + os.sep) as entries:
        for content in entries:
            name = file_name(decode(content).reservation_id)
            make_private_folder(there, sync=True)
            has_record = os.path.lexists(os.path.join(folder, name))
            saved += not has_record and _write_new(os.path.join(there, name), content)
    return saved


def _move(folder: str, there: str, name: str) -> bool:
    if name.endswith(".tmp"):
        return False  # another process is writing it
    path, target = os.path.join(folder, name), os.path.join(there, name)
    try:
        content = read_whole(path)
    except FileNotFoundError:
        return False  # it was settled in the meantime
    make_private_folder(there, sync=True)
    if not _write_new(target, content) and (read_whole(target) != content or Path(path).samefile(target)):
        return False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return True


def _write_new(path: str, content: bytes) -> bool:
    """Write a file whole, unless there is one under that name; return whether it was written."""
    # Not the name of a temporary file of the journal: a client would put such a file into place.
    own = f"{path}.{secrets.token_hex(4)}.new"
    write_whole(own, f"{own}er", content, sync=True)
    try:
        move_to_free_name(own, path)
    except FileExistsError:
        os.unlink(own)
        return False
    return True
