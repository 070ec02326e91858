"""What an operator does with a file of a journal: send it again, discard it."""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH108

from __future__ import annotations

import errno
import json
import os
import secrets
from pathlib import Path

from attrs import evolve

from cycles._core.settlement.record import Record, encode, file_name
from cycles._journal.files.file_calls import move_to_free_name, read_whole, write_whole
from cycles._journal.files.record_files import SETTLED_AT
from cycles._journal.files.spend import SUFFIX, remove_entries
from cycles._journal.operators.inspect import DISCARDED, InspectedRecord


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
