"""What an operator does with a record by hand: discard its file, send a rejected one as its event."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from attrs import evolve

from cycles._core.settlement.record import Record, file_name
from cycles._journal.files.file_calls import move_to_free_name
from cycles._journal.files.spend import SUFFIX
from cycles._journal.operators.inspect import DISCARDED, InspectedRecord
from cycles._journal.operators.inspect_store import files_of, save_logs


def discard(entry: InspectedRecord) -> str:
    """Rename a record so that no client settles it, and return its new path. The file is kept.

    What a process has written ahead before it died is saved as records first, as the start of a client does.

    Raises:
        BlockingIOError: the process that has written it ahead lives.
        OSError: it cannot be renamed.
        StoreError: what was written ahead cannot be saved.
    """
    path = Path(entry.path)
    if path.suffix == SUFFIX:
        with contextlib.closing(files_of(path.parent.parent, path.parent.name)) as files:
            save_logs(files)
        if path.exists():
            raise BlockingIOError(errno.EAGAIN, "the process that has written it ahead lives", entry.path)
        path = path.with_name(file_name(entry.reservation_id or ""))
    target = f"{path}{DISCARDED}"
    if os.path.lexists(target):  # the reservation had another record, which was discarded before
        target = f"{path}.{secrets.token_hex(4)}{DISCARDED}"
    move_to_free_name(str(path), target)
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
