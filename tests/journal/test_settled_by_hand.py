"""A rejected record that was settled by hand is deleted 30 days later, when a client opens the journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cycles._journal.files.record_files import SETTLED_AT
from cycles._journal.journal import Journal
from cycles._journal.operators.inspect import inspect
from cycles._journal.records import Records
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal
from tests.journal.kit import a_record

DAY_MS = 86_400_000
SETTLED_MS = 1_700_000_000_000


def rejected(journal: Journal) -> list[str | None]:
    return [entry.reservation_id for entry in inspect(Path(journal.directory))]


@pytest.mark.parametrize("is_shared", [False, True], ids=["files", "files beside a store"])
def test_only_records_that_were_settled_more_than_30_days_ago_are_deleted(journal: Journal, is_shared: bool) -> None:
    for name in ("rsv_by_hand", "rsv_open"):
        journal.reject(a_record(name), "BUDGET_EXCEEDED")
    by_name = {entry.reservation_id: entry for entry in inspect(Path(journal.directory))}
    path = Path(by_name["rsv_by_hand"].path)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), SETTLED_AT: SETTLED_MS}), "ascii")
    shared = StoreJournal(MemoryStore(), journal, claim_ms=1, timeout_s=1.0, outage="disk", report=lambda issue: None)
    records = Records(shared if is_shared else journal)
    records.left_by_others(SETTLED_MS + 30 * DAY_MS)
    assert sorted(map(str, rejected(journal))) == ["rsv_by_hand", "rsv_open"]
    records.left_by_others(SETTLED_MS + 30 * DAY_MS + 1)
    assert rejected(journal) == ["rsv_open"]
    records.left_by_others(SETTLED_MS + 10_000 * DAY_MS)
    assert rejected(journal) == ["rsv_open"]


def test_a_journal_without_rejected_records_makes_no_folder(journal: Journal) -> None:
    Records(journal).left_by_others(SETTLED_MS)
    assert not Path(journal.directory).exists()


def test_an_amount_of_zero_is_shown(journal: Journal) -> None:
    body = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 0}}
    journal.save(a_record(commit_body=body, event_fallback_body=body))
    (entry,) = inspect(Path(journal.directory))
    assert entry.to_dict()["amount"] == {"unit": "TOKENS", "amount": 0}
