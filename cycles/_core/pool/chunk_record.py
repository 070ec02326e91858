"""The log of a chunk: its first line as bytes, and the records that settle a chunk. Nothing in this file opens a file.

A log is one line of JSON, padded to whole sectors, and then the cell (`_core/pool/sums.py`). Cells of version 2 lack
what live guards have spent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import asdict, field, fields, frozen

from cycles._core.amounts import amount_of
from cycles._core.messages.requests import is_id
from cycles._core.pool.sums import SECTOR, decode, summed_metrics
from cycles._core.settlement.lifecycle import RECOVERED_ID
from cycles._core.settlement.record import Record, RecordError
from cycles._core.settlement.settlement import event_body
from cycles._core.subjects import Action, Subject

PREFIX: Final = "pool-"
SUFFIX: Final = ".log"
VERSION: Final = 3
_WITHOUT_AHEAD: Final = 2


@frozen
class ChunkHeader:
    """What the record of a chunk needs, beside what its guards spent.

    Attributes:
        key: The idempotency key of its commit.
        metadata: Of the commit: what the chunk is, for the audit of the server.
    """

    reservation_id: str
    base_url: str
    unit: str
    amount: int
    key: str
    subject: Subject
    action: Action
    overage_policy: str | None = None
    metadata: Mapping[str, Any] = field(factory=dict)

    def encode(self) -> bytes:
        """Return the first line of the log, padded with blanks to whole sectors."""
        values = {"subject": self.subject.to_dict(), "action": self.action.to_dict(), "metadata": dict(self.metadata)}
        members = {"version": VERSION, **asdict(self, recurse=False), **values}
        header_line = json.dumps(members, separators=(",", ":")).encode("ascii")
        return header_line + b" " * (-(len(header_line) + 1) % SECTOR) + b"\n"


def decode_header(header_line: bytes) -> ChunkHeader:
    """Return the header of a log.

    Raises:
        RecordError: it is none of a known version.
    """
    try:
        members = json.loads(header_line)
        if members["version"] not in (VERSION, _WITHOUT_AHEAD) or not is_id(members["reservation_id"]):
            raise RecordError("not the log of a chunk of a known version")
        amount_of(members)  # checks both
        values = {"subject": Subject(**members["subject"]), "action": Action(**members["action"])}
        return ChunkHeader(**{each.name: (members | values)[each.name] for each in fields(ChunkHeader)})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"not the log of a chunk: {error}") from error


def log_name(reservation_id: str) -> str:
    """Return the only file name of the log of this chunk."""
    return f"{PREFIX}{hashlib.sha256(reservation_id.encode('utf-8', 'surrogatepass')).hexdigest()}{SUFFIX}"


def chunk_of(record: Record) -> str | None:
    """Return the reservation that an event names: the chunk without which the spend of its guard is charged."""
    return (record.body.get("metadata") or {}).get(RECOVERED_ID) if record.mode == "event" else None


def chunk_record(
    header: ChunkHeader, spent: int, metrics: Mapping[str, Any], metadata: Mapping[str, Any], now_ms: int
) -> Record:
    """Return the record that commits a chunk, and its event."""
    commit = {
        "idempotency_key": header.key,
        "actual": {"unit": header.unit, "amount": spent},
        "metrics": dict(metrics),
        "metadata": {**header.metadata, **metadata},
    }
    return Record(
        reservation_id=header.reservation_id,
        base_url=header.base_url,
        commit_body=commit,
        event_fallback_body=event_body(
            commit,
            {"subject": header.subject.to_dict(), "action": header.action.to_dict()},
            header.reservation_id,
            header.overage_policy,
        ),
        recorded_at_ms=now_ms,
    )


def recovered_record(
    content: bytes, now_ms: int, moved_from: Callable[[str], int] = lambda chunk_id: 0
) -> tuple[ChunkHeader, Record | None]:
    """Return what the log of a dead process settles; None if no guard of it has spent.

    What its live guards had spent, as far as `spend` was called, is charged with the rest.

    Args:
        content: The log.
        now_ms: Milliseconds since the epoch.
        moved_from: Returns what events have of the spend of live guards of a chunk.

    Raises:
        RecordError: it is no log of a known version.
    """
    header_line, _, rest = content.partition(b"\n")
    header = decode_header(header_line)
    totals = decode(rest, has_ahead=json.loads(header_line)["version"] == VERSION)
    if totals.ahead:
        totals = totals._replace(ahead=max(0, totals.ahead - moved_from(header.reservation_id)))
    # Nothing was spent: the reservation ends by its lease, without a request of this process.
    if not totals.calls and not totals.ahead:
        return header, None
    metadata = {"pool_calls": totals.calls, "pool_recovered": True}
    if totals.ahead:
        metadata["pool_unfinished"] = totals.ahead
    # A damaged log must not charge more than was reserved.
    spent = min(totals.spent + totals.ahead, header.amount)
    return header, chunk_record(header, spent, summed_metrics(totals, released=0, model=None), metadata, now_ms)
