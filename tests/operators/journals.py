"""A journal with one record in each state, and a look at its files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import attrs

from cycles._core.settlement.record import Record, encode, file_name, partition
from cycles._journal.journal import Journal

OTHER_SERVER = "https://other.example.com"


def a_record(base_url: str, reservation_id: str, *, cents: int = 3, **changes: Any) -> Record:
    """Return the record of a commit that may become an event."""
    body = {
        "idempotency_key": f"key-{reservation_id}",
        "actual": {"unit": "USD_MICROCENTS", "amount": cents * 1_000_000},
    }
    event = {**body, "subject": {"tenant": "acme"}, "action": {"kind": "llm.completion", "name": "gpt-4o"}}
    recorded_at_ms = time.time_ns() // 1_000_000 - 5_000
    record = Record(
        reservation_id=reservation_id,
        base_url=base_url,
        commit_body=body,
        event_fallback_body=event,
        recorded_at_ms=recorded_at_ms,
    )
    return attrs.evolve(record, **changes)


def journal(root: Path, base_url: str) -> Journal:
    """Return the journal of the tenant acme."""
    return Journal(root, base_url=base_url, tenant="acme", api_key="", report=lambda issue: None)


def folder(root: Path, base_url: str) -> Path:
    """Return the directory of its records."""
    return root / partition(base_url, "acme", "")


def fill(root: Path, base_url: str) -> None:
    """Save a record in each state."""
    own = journal(root, base_url)
    now_ms = time.time_ns() // 1_000_000
    own.save(a_record(base_url, "rsv-pending"))
    own.save(a_record(base_url, "rsv-deferred", not_before_ms=now_ms + 600_000))
    own.reject(a_record(base_url, "rsv-rejected"), "BUDGET_EXCEEDED")
    own.reject(a_record(base_url, "rsv-perhaps"), "may_be_charged")
    journal(root, OTHER_SERVER).save(a_record(OTHER_SERVER, "rsv-other"))
    place = folder(root, base_url)
    (place / f"{file_name('rsv-broken')}.x.quarantined").write_bytes(b'{"version": 9, "reservation_id": "rsv-broken"}')
    (place / f"{file_name('rsv-unfinished')}.00ff-1-0.tmp").write_bytes(encode(a_record(base_url, "rsv-unfinished")))


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and the time of change of each file, and the times of the directories."""
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in sorted([root, *root.rglob("*")])
    }


def lines(text: str) -> list[Any]:
    """Return JSON lines as values."""
    return [json.loads(line) for line in text.splitlines()]
