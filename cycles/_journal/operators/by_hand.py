"""What an operator does with a record by hand: discard its file, send a rejected one as its event."""

from __future__ import annotations

import errno
import os
import secrets
from functools import partial
from pathlib import Path

from attrs import evolve

from cycles._core.settlement.record import Record, file_name
from cycles._journal.files.file_calls import move_to_free_name, write_whole
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
    keep = partial(write_whole, target, f"{target}.{secrets.token_hex(4)}.tmp", sync=True)
    if not written_ahead:
        move_to_free_name(entry.path, target)
    elif not remove_entries(entry.path, entry.reservation_id or "", keep):
        raise FileNotFoundError(errno.ENOENT, "a client has settled it in the meantime", entry.path)
    return target


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
