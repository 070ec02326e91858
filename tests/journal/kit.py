"""What the journal's tests share: records, a look into the directory, and an operating system that fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cycles._core.pool.chunk_record import ChunkHeader, chunk_record, log_name
from cycles._core.pool.sums import SECTOR, Totals, encode as encode_totals
from cycles._core.settlement.record import Record, encode
from cycles._core.subjects import Action, Subject
from cycles._journal.files.spend import SMALL
from cycles._journal.journal import Journal, JournalIssue

BASE = "http://localhost"
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")


def a_record(reservation_id: str = "rsv_1", key: str = "key-1", **changes: Any) -> Record:
    body = {"idempotency_key": key, "actual": {"unit": "TOKENS", "amount": 5}}
    fields = {"base_url": BASE, "commit_body": body, "event_fallback_body": body, "recorded_at_ms": 1_000, **changes}
    return Record(reservation_id=reservation_id, **fields)


class Told(list[JournalIssue]):
    """The problems that were reported to the operator."""

    @property
    def kinds(self) -> list[str]:
        return [problem.kind for problem in self]


def files(journal: Journal) -> set[str]:
    """The names of the files but for those that are kept for reuse."""
    return {path.name for path in Path(journal.directory).iterdir() if path.suffix != ".spare"}


def all_files(journal: Journal) -> set[str]:
    """The names of all files."""
    return {path.name for path in Path(journal.directory).iterdir()}


def open_files(folder: Path | str) -> list[str]:
    """The paths of the files below a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one of the list
            found.append(str(descriptor.readlink()))
    return sorted(path for path in found if path.startswith(str(folder)))


def put(journal: Journal, name: str, content: bytes) -> Path:
    folder = Path(journal.directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def spend_file(folder: Path, name: str, *records: Record) -> Path:
    """Write what a dead process has left of the spend that it wrote ahead."""
    content = bytearray(SMALL.file_bytes)
    for index, record in enumerate(records):
        raw, start = encode(record), SMALL.start(index, 1)
        content[index] = 1
        content[start : start + 2 + len(raw)] = len(raw).to_bytes(2, "big") + raw
    (folder / name).write_bytes(content)
    return folder / name


CHUNK = ChunkHeader(
    reservation_id="rsv_1",
    base_url=BASE,
    unit="TOKENS",
    amount=400,
    key="key-1",
    subject=Subject(tenant="acme"),
    action=Action("llm.completion", "m"),
    metadata={"pool_chunk": 1},
)


def write_log(folder: Path, totals: Totals, name: str = log_name("rsv_1")) -> Path:
    """Write what a dead process has left of a chunk."""
    cell = encode_totals(totals._replace(changes=1)).ljust(SECTOR, b"\0")
    (folder / name).write_bytes(CHUNK.encode() + cell)
    return folder / name


def a_sum(amount: int, calls: int, mode: str = "commit", **changes: Any) -> Record:
    """Return the record of a chunk whose guards have spent an amount."""
    record = chunk_record(CHUNK, amount, {}, {"pool_calls": calls}, 1_000)
    return evolve(record if mode == "commit" else record.to_event_mode(2_000), **changes)


def settle_all(journal: Journal) -> list[Record]:
    found = [record for entry in journal.pending() if (record := journal.load(entry)) is not None]
    for record in found:
        journal.delete(record)
    return found


@contextlib.contextmanager
def failing(name: str, number: int, *, only_call: int | None = None) -> Iterator[list[int]]:
    """The operating system's call fails: each time, or the given time only. Counts the calls."""
    real, calls = getattr(os, name), [0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if only_call in (None, calls[0]):
            if name == "close":
                real(*args)  # it is closed, also if it reports a problem
            raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **kwargs)

    patch = pytest.MonkeyPatch()
    with patch.context() as during:
        during.setattr(os, name, fail)
        yield calls
