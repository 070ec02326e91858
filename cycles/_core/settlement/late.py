"""Split the record of a chunk: what another client has committed of its sum, and the rest, charged as an event.

Several clients of a fleet may have the record of one chunk, each with another sum. See `docs/fleets.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from cycles._core.settlement.record import Record, event_record_id

_LATE: Final = ":late:"  # in the key of an event for what a commit of the chunk did not charge


def guards_of(record: Record) -> int | None:
    """Return how many guards have the sum of a record; None if it does not settle a chunk."""
    for body in (record.commit_body, record.event_fallback_body):  # one of them may be without its metadata
        metadata = (body or {}).get("metadata")
        calls = metadata.get("pool_calls") if isinstance(metadata, Mapping) and "pool_chunk" in metadata else None
        if type(calls) is int:
            return calls
    return None


def sum_of(record: Record) -> int:
    """Return the sum of the chunk up to which a record settles it: a late event counts from an earlier sum."""
    if record.settled is not None:
        return record.settled
    body = record.body
    amount, (_, mark, begin) = body["actual"]["amount"], body["idempotency_key"].rpartition(_LATE)
    return int(amount) + (int(begin) if mark and begin.isdecimal() else 0)


def late_key(key: str, committed: int) -> str:
    """Return the key of the event for what a chunk spent beyond a sum. `key`: of its commit, or of such an event."""
    first, mark, begin = key.rpartition(_LATE)
    return f"{first if mark and begin.isdecimal() else key}{_LATE}{committed}"


def late(record: Record, committed: int, now_ms: int) -> Record | None:
    """Return the record of a chunk as the event for what is charged beyond an earlier sum; None if nothing is left.

    The key names the sum from which the event counts: two clients that know different earlier sums must not send
    different amounts under one key.

    Args:
        record: The record of a chunk, also one that is late already.
        committed: The sum that is committed, or that another client commits.
        now_ms: Milliseconds since the epoch.
    """
    rest = sum_of(record) - committed
    # The other client has at least this sum: its record is a later state of the same chunk.
    if rest <= 0:
        return None
    own = {
        "idempotency_key": late_key(record.body["idempotency_key"], committed),
        "actual": {**record.body["actual"], "amount": rest},
    }
    event = {name: value for name, value in (record.event_fallback_body or {}).items() if name != "metrics"}
    changed = evolve(record, commit_body={**(record.commit_body or {}), **own}, event_fallback_body={**event, **own})
    return changed.to_event_mode(now_ms)


def late_record(record: Record, committed: int, now_ms: int) -> Record | None:
    """Return the event for the rest of a chunk whose record another client has, as a separate record; None as above."""
    event = late(record, committed, now_ms)
    if event is None:
        return None
    # Its own id, because the other client's record has the id of the reservation. Without a commit, which is over.
    return evolve(event, reservation_id=event_record_id(event.body["idempotency_key"]), commit_body=None)


def unsaved(record: Record, found: Record) -> Record | None:
    """Return what is to be saved of the record of a chunk beyond the one that its file has; None if nothing is."""
    rest = late_record(record, sum_of(found), record.recorded_at_ms)
    if rest is not None and found.mode == "commit":  # which may have been sent; an event has the amount that it had
        rest = evolve(record, attempt_unknown=found.attempt_unknown)
    # With the same guards it is the last sum: what the log has ahead of it is settled by records of those guards.
    return None if guards_of(found) in (None, guards_of(record)) else rest
