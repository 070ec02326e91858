"""Settle the chunks of pools whose processes died: a record with the sum of the slots replaces each log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from cycles._core.pool.chunk_record import recovered_record
from cycles._core.settlement.record import Record, RecordError, file_name
from cycles._journal.files.chunk_cells import PREFIX, SUFFIX
from cycles._journal.files.file_calls import NOTHING_THERE
from cycles._journal.files.locked_file import LockedFile, left
from cycles._journal.files.record_files import RecordFiles


def recover_chunks(
    files: RecordFiles, save: Callable[[Record], bool], report_unreadable: Callable[[str, OSError], None]
) -> None:
    """Save the record of each chunk that no living process owns, unless the journal has it; then remove the log."""
    try:
        for log in left(files.locate(), PREFIX):
            with closing(log):
                if log.path.endswith(SUFFIX):
                    _recover(files, log, save)
    except NOTHING_THERE:
        return
    except OSError as error:
        report_unreadable(files.known_folder, error)


def _recover(files: RecordFiles, log: LockedFile, save: Callable[[Record], bool]) -> None:
    try:
        header, record = recovered_record(log.map()[:], time.time_ns() // 1_000_000)
    except RecordError:
        return  # written by a later version in another form
    is_saved = record is None or files.has(file_name(header.reservation_id))
    if is_saved or (record is not None and save(record)):
        log.remove()
