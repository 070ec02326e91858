"""Read the files of all journals below a directory, of all servers and principals, without changing any of them.

Nothing here moves, locks, settles, creates or touches a file. A client that opens a journal does: it settles what it
finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, field, frozen

from cycles._core.amounts import Amount
from cycles._core.settlement.record import Record, RecordError, decode, file_name, is_sent
from cycles._journal.files.bounded import BoundedCalls
from cycles._journal.files.file_calls import NOTHING_THERE, read_whole
from cycles._journal.files.record_files import REJECTED, SETTLED_AT
from cycles._journal.files.spend import PREFIX, SUFFIX, read_entries
from cycles._journal.stores.store import decoded

State: TypeAlias = Literal["pending", "sent", "deferred", "quarantined", "rejected", "unfinished"]

DISCARDED: Final = ".discarded"
_SHOWN: Final = (
    "id",
    "state",
    "reservation_id",
    "base_url",
    "mode",
    "amount",
    "recorded_at_ms",
    "not_before_ms",
    "path",
)
_KEY: Final = re.compile(r"v2-([0-9a-f]{64})\.json(\.|$)")
_OF_A_RECORD: Final = {"reservation_id": str, "base_url": str, "mode": str, "recorded_at_ms": int, "not_before_ms": int}
_SHORTEST_PREFIX: Final = 6


@frozen(kw_only=True)
class InspectedRecord:
    """One file of a journal. Members that a broken record does not have are None.

    Attributes:
        id: The key of the record: 64 hex digits, or the file's name if it has none.
        state: ``pending``; ``sent`` (a request to a provider whose process ended before its cost was known; the amount
            is its upper bound); ``deferred`` (by a 429, until `not_before_ms`); ``quarantined`` (cannot be read);
            ``rejected`` (by the server); ``unfinished`` (a temporary file).
        reservation_id: The reservation, or ``event:<idempotency key>``.
        base_url: The server it belongs to.
        mode: Which request is sent next: ``commit`` or ``event``.
        amount: The amount that it settles.
        recorded_at_ms: When it was first saved, milliseconds since the epoch.
        not_before_ms: No attempt before this time, milliseconds since the epoch.
        path: The file; one of spend that was written ahead has several records.
        reason: Why the server rejected it, or why it cannot be read.
        settled_at_ms: When a rejected amount was settled by hand, milliseconds since the epoch.
        record: The JSON object of the record, unchanged; None if it is none.
    """

    id: str
    state: State
    reservation_id: str | None = None
    base_url: str | None = None
    mode: str | None = None
    amount: Amount | None = None
    recorded_at_ms: int | None = None
    not_before_ms: int | None = None
    path: str
    reason: str | None = None
    settled_at_ms: int | None = None
    record: dict[str, Any] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `cycles pending --json` prints; a rejected record has its reason too."""
        shown = (*_SHOWN, "reason") if self.state == "rejected" else _SHOWN
        amount = None if self.amount is None else self.amount.to_dict()
        return {**{name: getattr(self, name) for name in shown}, "amount": amount}

    def decoded(self) -> Record | None:
        """Return the record as a value, or None if this release cannot read it."""
        return decoded(json.dumps(self.record).encode("ascii"))


def inspect(root: Path) -> list[InspectedRecord]:
    """Return what is in the journals below a directory, oldest first.

    Raises:
        OSError: the directory cannot be read. One that does not exist is empty.
    """
    now_ms = time.time_ns() // 1_000_000
    calls = BoundedCalls()
    found = [entry for path, rejected in _paths(root) if (entry := _read(calls, path, rejected, now_ms)) is not None]
    found += _sent(calls, root, {entry.path for entry in found}, now_ms)
    return sorted(found, key=lambda entry: (entry.recorded_at_ms or 0, entry.path))


def select(records: list[InspectedRecord], wanted: str) -> list[InspectedRecord]:
    """Return the records that a user's id means: an id, its first digits, a reservation, a file's name or path."""
    exact = [
        entry for entry in records if wanted in (entry.id, entry.reservation_id, entry.path, Path(entry.path).name)
    ]
    if exact or len(wanted) < _SHORTEST_PREFIX:
        return exact
    return [entry for entry in records if entry.id.startswith(wanted.removeprefix("v2-"))]


def _sent(calls: BoundedCalls, root: Path, known: set[str], now_ms: int) -> Iterator[InspectedRecord]:
    """Yield the requests of dead processes that no client has found yet; those of live ones are in flight."""
    live = _locked_files()
    for path, _ in _paths(root):
        folder, _, name = path.rpartition("/")
        if not (name.startswith(PREFIX) and name.endswith(SUFFIX)):
            continue
        with contextlib.suppress(OSError):  # a client has removed it since the directory was read
            if calls.call(path, os.stat).st_ino in live:
                continue
            for content in filter(is_sent, read_entries(calls.call(path, read_whole))):
                entry = entry_of("", "pending", path, content, now_ms)
                own_name = file_name(entry.reservation_id or "")
                if entry.state == "sent" and f"{folder}/{own_name}" not in known:
                    known.add(f"{folder}/{own_name}")
                    yield evolve(entry, id=own_name[3:-5])


def _locked_files() -> set[int]:
    """Return the inodes of the files that processes have locked, as far as the system shows them (Linux)."""
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return set()
    return {int(inode) for line in lines if (inode := line.split()[-3].rpartition(":")[2]).isdecimal()}


def _paths(root: Path) -> Iterator[tuple[str, bool]]:
    """Yield the files that may be records, and whether they are in a folder of rejected ones."""

    def failed(error: OSError) -> None:
        if not isinstance(error, NOTHING_THERE):
            raise error

    top = str(root.expanduser())
    for folder, folders, names in os.walk(top, onerror=failed):
        is_rejected = folder != top and folder.endswith(f"{os.sep}{REJECTED}")
        yield from ((f"{folder}/{name}", is_rejected) for name in names)
        # The directory of all journals has one for each server and principal, and each of them one of rejected records.
        folders[:] = [] if is_rejected else [each for each in folders if folder == top or each == REJECTED]


def _read(calls: BoundedCalls, path: str, rejected: bool, now_ms: int) -> InspectedRecord | None:
    name = path.rpartition("/")[2]
    state = _state(name, rejected)
    if state is None:
        return None
    key = _KEY.match(name)
    identity = key[1] if key is not None else name
    try:
        content = calls.call(path, read_whole)
    except FileNotFoundError:
        return None  # it was settled since the directory was read
    except OSError as error:
        return InspectedRecord(id=identity, state=state, path=path, reason=error.strerror)
    return entry_of(identity, state, path, content, now_ms)


def _state(name: str, rejected: bool) -> State | None:
    """Return the state that the name of a file shows; None if it is no record."""
    if rejected:
        return "rejected" if name.endswith(".json") else None
    if name.endswith(".json"):
        return "pending"
    if name.endswith(".quarantined"):
        return "quarantined"
    return "unfinished" if name.endswith(".tmp") and ".json." in name else None


def entry_of(identity: str, state: State, path: str, content: bytes, now_ms: int) -> InspectedRecord:
    """Return what the content of a file says; that of a rejected one is an object with `record` and `reason`."""
    members = _object(content)
    kept: dict[str, Any] = {}
    if state == "rejected":
        kept, members = members or {}, (members or {}).get("record")
        members = members if isinstance(members, dict) else None
    reason = given if isinstance(given := kept.get("reason"), str) else None
    settled_at_ms = moment if type(moment := kept.get(SETTLED_AT)) is int else None
    shown: dict[str, Any] = {"id": identity, "path": path, "reason": reason, "record": members}
    try:
        record = decode(json.dumps(members).encode("ascii") if state == "rejected" else content)
    except RecordError as error:
        shown |= {"state": "quarantined" if state == "pending" else state, "reason": reason or str(error)}
        return InspectedRecord(**shown, **_known(members))
    deferred = state == "pending" and record.wait_ms(now_ms) > 0
    return InspectedRecord(
        **shown,
        **{name: getattr(record, name) for name in _OF_A_RECORD},
        state="deferred" if deferred else "sent" if record.sent and state == "pending" else state,
        amount=record.actual,
        settled_at_ms=settled_at_ms,
    )


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


def _known(members: dict[str, Any] | None) -> dict[str, Any]:
    """Return the members of a broken record that have the right type."""
    return {name: value for name, kind in _OF_A_RECORD.items() if type(value := (members or {}).get(name)) is kind}
