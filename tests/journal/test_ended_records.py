"""What the end of a settlement makes of its record, and which records are in progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.messages.outcome import RejectedResponse
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._core.settlement.settlement import Rejected, Settled, Settlement, SettlementOutcome, Taken, Unresolved
from cycles._journal.files.locked_file import is_supported
from cycles._journal.journal import Entry, Journal
from cycles._journal.records import NoJournal, Records
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal, key_of
from cycles._journal.stores.store import Put
from tests.journal.kit import Told, a_record, a_sum, all_files, spend_file

NO: Any = RejectedResponse(status=409, code="BUDGET_EXCEEDED", message="no", request_id=None, trace_id=None)
T = cycles.tokens


def settled(charged: int | None = 5) -> Settled:
    amount = None if charged is None else T(charged)
    return Settled(Settlement(status="committed", actual=T(5), charged=amount))


def kept_part() -> Record:
    body = {"idempotency_key": "key-1:excess", "actual": {"unit": "TOKENS", "amount": 2}}
    return a_record("rsv_1:excess", mode="event", commit_body=None, event_fallback_body=body)


def left(journal: Journal) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the records that are pending and those that are rejected, with their reasons."""
    pending = [record for entry in journal.pending() if (record := journal.load(entry)) is not None]
    rejected = sorted((record.reservation_id, reason) for record, reason in journal.rejected())
    return [record.reservation_id for record in pending], rejected


SPLIT = a_record(excess={"amount": 3, "code": "BUDGET_FROZEN", "message": "m", "status": 409})


@pytest.mark.parametrize(
    ("record", "result", "pending", "rejected", "in_progress"),
    [
        (a_record(), settled(), [], [], set()),
        (a_record(), settled(None), [], [], set()),
        (a_record(), None, [], [], set()),
        (a_record(), Taken(), ["rsv_1"], [], set()),
        (a_record(), Unresolved(NO), ["rsv_1"], [], {file_name("rsv_1")}),
        (a_record(), Rejected(NO, "BUDGET_EXCEEDED"), [], [("rsv_1", "BUDGET_EXCEEDED")], set()),
        (a_record(), Rejected(NO, "X", kept_part()), [], [("rsv_1:excess", "X")], set()),
        (SPLIT, Rejected(NO, "X", kept_part()), [], [("rsv_1:excess", "X")], set()),
        (SPLIT, Rejected(NO, "X"), [], [("rsv_1", "X"), ("rsv_1:excess", "BUDGET_FROZEN")], set()),
        (SPLIT, settled(), [], [], set()),
    ],
)
def test_a_record_ends_as_its_settlement_did(
    journal: Journal,
    record: Record,
    result: SettlementOutcome | None,
    pending: list[str],
    rejected: list[tuple[str, str]],
    in_progress: set[str],
) -> None:
    records = Records(journal)
    assert records.put(record) is PutResult.SAVED
    assert records.in_progress() == {file_name("rsv_1")}
    records.finish(record, result)
    assert left(journal) == (pending, rejected)
    assert records.in_progress() == in_progress


@pytest.fixture
def shared(journal: Journal, told: Told) -> StoreJournal:
    return StoreJournal(
        MemoryStore(), journal, claim_ms=30_000, timeout_s=60.0, outage="disk", report=told.append, name="a store"
    )


@pytest.mark.parametrize(("charged", "total"), [(4, 12), (5, 12), (13, 13)])
def test_a_later_sum_that_another_client_has_committed_is_what_is_settled(
    journal: Journal, told: Told, charged: int, total: int
) -> None:
    """A late event counts from an earlier sum: its own amount is no sum."""
    late = a_sum(12, 3, "event")
    body = {**late.body, "idempotency_key": "key-1:late:7", "actual": {"unit": "TOKENS", "amount": 5}}
    late = evolve(late, event_fallback_body=body, commit_body=None)
    store = MemoryStore()
    shared = StoreJournal(store, journal, claim_ms=30_000, timeout_s=60.0, outage="disk", report=told.append)
    store.put([Put(key_of("rsv_1"), encode(late))])
    assert shared.claim(9) == [file_name("rsv_1")]
    Records(shared).finish(late, settled(charged))
    shared.settle_finished()
    assert [decode(each.record).settled for each in store.list()] == [total]


def test_records_in_memory_are_those_of_this_process_that_no_client_has_taken(
    journal: Journal, shared: StoreJournal
) -> None:
    for records in (Records(journal), Records(shared)):
        one, two = a_record("rsv_1"), a_record("rsv_2", "key-2")
        records.put(one)
        records.put(two)
        assert records.in_memory() == [one, two]
        later = evolve(one, attempt_unknown=True)
        records.put(later)
        assert records.latest(one) == later
        assert records.latest(a_record("rsv_3")) == a_record("rsv_3")
        records.attempt_ended(later)
        assert (records.in_memory(), records.latest(one)) == ([two], one)
        assert records.in_progress() == {file_name("rsv_2")}
        assert not records.is_taken(one)
        assert records.taken_by_another("rsv_1") is None


def test_what_is_in_progress_here_was_left_by_no_other_process(
    journal: Journal, open_journal: Callable[..., Journal]
) -> None:
    open_journal().save(a_record("rsv_1"))
    records = Records(journal)
    records.put(a_record("rsv_2", "key-2"))
    assert records.left_by_others(0) == [Entry(file_name("rsv_1"))]


def test_what_a_guard_settles_while_the_journal_is_read_was_left_by_no_other_process(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, save, pending, delete = Records(journal), journal.put, journal.pending, journal.delete
    found: list[list[Entry]] = []

    def begin() -> list[Entry]:
        records.put(a_record())
        return pending()

    def look(call: Callable[[Record], Any]) -> Callable[[Record], Any]:
        def between(record: Record) -> Any:
            result = call(record)
            found.append(records.left_by_others(0))
            return result

        return between

    with monkeypatch.context() as during:
        during.setattr(journal, "pending", begin)
        assert records.left_by_others(0) == []
    monkeypatch.setattr(journal, "put", look(save))
    records.put(a_record("rsv_2", "key-2"))
    monkeypatch.setattr(journal, "delete", look(lambda _: None))
    records.finish(a_record(), None)
    assert found == [[], []]
    delete(a_record())


@pytest.mark.skipif(not is_supported(), reason="spend is written ahead under file locks")
def test_a_start_knows_which_recovered_spend_has_an_unknown_cost(journal: Journal) -> None:
    folder = Path(journal.directory)
    folder.mkdir(parents=True)
    spend_file(folder, "spend-1.log", a_record("rsv_1"), a_record("rsv_2", "key-2", sent=True))
    assert Records(journal).recover_spend() == {file_name("rsv_2")}
    assert len(journal.pending()) == 2


def test_where_records_are(journal: Journal, shared: StoreJournal) -> None:
    none, files, store = Records(NoJournal()), Records(journal), Records(shared)
    assert [each.journaled for each in (none, files, store)] == [False, True, True]
    assert [each.directory for each in (none, files, store)] == [None, journal.directory, "a store"]
    assert [each.shared for each in (none, files, store)] == [None, None, shared]
    assert [each.files for each in (none, files, store)] == [None, journal, journal]
    assert none.rejected_hint == "no journal keeps it; record it by hand with client.record()"
    assert files.rejected_hint == store.rejected_hint == "client.pending(rejected=True) lists it"
    assert [each.unread for each in (none, files, store)] == [False] * 3
    journal.unread = True
    assert [each.unread for each in (none, files, store)] == [False, True, True]
    assert none.spend_log() is None
    assert (files.spend_log() is not None, store.spend_log() is not None) == (is_supported(), is_supported())


def test_a_client_without_a_journal_keeps_nothing() -> None:
    records = Records(NoJournal())
    assert records.put(a_record()) is PutResult.FAILED
    records.finish(a_record(), Rejected(NO, "X"))
    assert (records.in_progress(), NoJournal().rejected()) == (set(), [])
    records.close()


@pytest.mark.skipif(not is_supported(), reason="without file locks no file is kept for reuse")
def test_only_the_journal_of_files_is_closed_with_its_records(journal: Journal, shared: StoreJournal) -> None:
    journal.save(a_record())
    journal.delete(a_record())
    for records, spares in ((Records(shared), 1), (Records(journal), 0)):
        records.close()
        assert len([name for name in all_files(journal) if name.endswith(".spare")]) == spares


@pytest.mark.parametrize("kept", [None, kept_part()])
def test_a_record_is_in_progress_until_it_is_kept_as_rejected(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, kept: Record | None
) -> None:
    """Else a start of another client in this process that reads the journal now would send it."""
    records, reject, seen = Records(journal), journal.reject, list[bool]()

    def noted(record: Record, reason: str) -> None:
        seen.append(file_name(record.reservation_id) in records.in_progress())
        reject(record, reason)

    monkeypatch.setattr(journal, "reject", noted)
    records.put(a_record())
    records.finish(a_record(), Rejected(NO, "X", kept))
    assert (seen, records.in_progress()) == ([True], set())


def test_a_record_that_another_client_had_is_left_to_the_next_claim(shared: StoreJournal) -> None:
    records = Records(shared)
    records.put(a_record())
    records.finish(a_record(), Taken())
    assert shared.tick(0) == []
    assert shared.claim(9) == [file_name("rsv_1")], "it is due for another task"
