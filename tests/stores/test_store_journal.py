"""What one client does with the records of a shared store: saves, claims, loads, rejects, deletes and leaves them."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._core.settlement.rules import MAY_BE_CHARGED
from cycles._errors import StoreError
from cycles._journal.journal import Entry, Journal, JournalIssue
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import BATCH, StoreJournal, key_of
from cycles._journal.stores.store import Put, Stored
from tests.journal.kit import BASE, a_record, a_sum, all_files, failing, posix_only
from tests.stores.kit import StoreClock
from tests.support.inside import store_of

KEY = key_of("rsv_1")
NAME = Entry(file_name("rsv_1"))
MODES = ["disk", "memory", "refuse"]


class Noted(MemoryStore):
    """A store that notes its operations."""

    def __init__(self, clock: StoreClock) -> None:
        super().__init__(clock)
        self.told: list[Any] = []
        self.is_closed = False

    def put(self, items: Sequence[Put]) -> list[str | None]:
        self.told.append(("put", len(items)))
        return super().put(items)

    def take(self, limit: int, claim_ms: int) -> list[Stored]:
        self.told.append(("take", limit, claim_ms))
        return super().take(limit, claim_ms)

    def delete(self, items: Sequence[tuple[str, str]]) -> None:
        self.told.append(("delete", len(items)))
        super().delete(items)

    def close(self) -> None:
        self.is_closed = True

    def kept(self, kept: Any = None) -> list[Record]:
        """Return its records, read without a note."""
        return [decode(each.record) for each in MemoryStore.list(self, kept=kept)]


class Client:
    """The journal of one process, with its own disk."""

    def __init__(self, store: MemoryStore, clock: StoreClock, folder: Path, **settings: Any) -> None:
        self.issues: list[JournalIssue] = []
        self.seconds = 0.0
        self.calls: list[tuple[float, Callable[[], object]]] = []
        report = self.issues.append
        self.local = Journal(folder, base_url=BASE, tenant="acme", api_key="k", report=report)
        options = {"claim_ms": 30_000, "timeout_s": 60.0, "outage": "disk", "wall_ms": clock, **settings}
        if options["wall_ms"] is None:
            del options["wall_ms"]
        self.journal = StoreJournal(
            store,
            self.local,
            report=report,
            clock=lambda: self.seconds,
            later=lambda delay_s, call: self.calls.append((delay_s, call)),
            **options,
        )

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in Path(self.local.directory).glob("v2-*.json"))


@pytest.fixture
def store(clock: StoreClock) -> Noted:
    return Noted(clock)


def lose_responses(monkeypatch: pytest.MonkeyPatch, store: Noted) -> None:
    """Let each put arrive, and its response be lost."""

    def put(items: Sequence[Put]) -> list[str | None]:
        MemoryStore.put(store, items)
        raise StoreError("no response")

    monkeypatch.setattr(store, "put", put)


@pytest.fixture
def client(store: Noted, clock: StoreClock, tmp_path: Path) -> Callable[..., Client]:
    made: list[Client] = []

    def make(**settings: Any) -> Client:
        made.append(Client(store, clock, tmp_path / f"disk-{len(made)}", **settings))
        return made[-1]

    return make


@pytest.mark.parametrize(
    ("not_before_ms", "due_ms"),
    [(None, 30_000), (1, 30_000), *((1_700_000_000_000 + ms, max(30_000, ms)) for ms in (1_000, 30_000, 30_001))],
)
def test_a_saved_record_is_due_after_a_claim_or_at_its_time(
    client: Callable[..., Client], store: Noted, clock: StoreClock, not_before_ms: int | None, due_ms: int
) -> None:
    assert client().journal.put(a_record(not_before_ms=not_before_ms)) is PutResult.SAVED
    (stored,) = store.list()
    assert stored.due_ms - clock.now == due_ms


def test_a_deferred_record_is_due_at_its_time_on_the_clock_of_this_machine(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    client(wall_ms=None).journal.put(a_record(not_before_ms=time.time_ns() // 1_000_000 + 300_000))
    (stored,) = store.list()
    assert 200_000 < stored.due_ms - clock.now <= 300_000


@pytest.mark.parametrize("outage", MODES)
@pytest.mark.parametrize("is_down", [False, True])
def test_a_close_leaves_records_to_others_or_saves_them_on_its_disk(
    client: Callable[..., Client], store: Noted, outage: str, is_down: bool
) -> None:
    one, other = client(outage=outage), client()
    one.journal.put(a_record())
    store.fails = "it is down" if is_down else None
    one.journal.close()
    store.fails = None
    assert one.files == [NAME] * (is_down and outage != "memory")
    assert other.journal.claim(9) == [NAME] * (not is_down)
    assert not store.is_closed


def test_what_did_not_fit_on_the_disk_is_saved_there_at_the_close(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    store.fails = "it is down"
    with failing("open", errno.ENOSPC):
        assert one.journal.put(a_record()) is PutResult.FAILED
    one.journal.close()
    assert one.files == [NAME]


def test_an_earlier_form_on_the_disk_is_deleted_once_the_store_has_the_later_one(
    client: Callable[..., Client], store: Noted
) -> None:
    one = client()
    store.fails = "it is down"
    one.journal.put(a_record())
    with failing("write", errno.ENOSPC):
        one.journal.put(a_record().to_event_mode())
    assert one.files == [NAME]
    store.fails = None
    one.journal.tick(0)
    assert [record.mode for record in store.kept()] == ["event"]
    assert one.files == []


@posix_only
def test_a_close_removes_the_local_files_that_are_kept_for_reuse(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    store.fails = "it is down"
    one.journal.put(a_record())
    one.journal.delete(a_record())
    assert len(all_files(one.local)) == 1
    one.journal.close()
    assert all_files(one.local) == set()


def test_a_close_closes_its_own_store(client: Callable[..., Client], store: Noted) -> None:
    client(owns_store=True).journal.close()
    assert store.is_closed


def test_rejected_records_of_the_store_and_of_the_disk_are_listed(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    one.journal.reject(a_record(), "no budget")
    assert ([record.rejected for record in store.kept("rejected")], store.kept()) == (["no budget"], [])
    store.put([Put("a" * 64, encode(a_record("rsv_2")), kept="rejected"), Put("b" * 64, b"{}", kept="rejected")])
    store.fails = "it is down"
    one.journal.reject(a_record("rsv_3"), "closed")
    assert [reason for _, reason in one.journal.rejected()] == ["closed"]
    store.fails = None
    found = sorted((record.reservation_id, reason) for record, reason in one.journal.rejected())
    assert found == [("rsv_1", "no budget"), ("rsv_2", "rejected"), ("rsv_3", "closed")]


def test_a_rejected_amount_under_whose_key_another_client_has_another_is_kept_on_the_disk(
    client: Callable[..., Client], store: Noted
) -> None:
    body = {"idempotency_key": "key-1", "actual": {"unit": "TOKENS", "amount": 6}}
    store.put([Put(KEY, encode(theirs := a_record(commit_body=body, event_fallback_body=body)))])
    one = client()
    one.journal.reject(a_record(), "no budget")
    assert (store.kept(), store.kept("rejected")) == ([theirs], [])
    assert one.local.rejected() == [(a_record(), "no budget")]


def test_a_store_may_have_the_commit_of_an_event_that_an_earlier_process_left_on_the_disk(
    client: Callable[..., Client], store: Noted
) -> None:
    one, event = client(), a_record().to_event_mode(5_000)
    one.local.save(event)
    store.fails = "it is down"
    assert one.journal.load(NAME) == event
    assert one.journal.put(event) is PutResult.HELD_BACK


def test_a_rejected_amount_that_an_operator_puts_back_is_claimed(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    one.journal.put(a_record())
    one.journal.reject(a_record(), "no budget")
    (stored,) = store.list(kept="rejected")
    store.put([Put(KEY, encode(a_record().to_event_mode(5_000)), stored.fence)])
    assert one.journal.claim(9) == [NAME]


def test_an_amount_that_is_rejected_after_another_client_has_it_is_left_to_that_one(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    one.journal.put(a_record())
    clock.now += 30_000
    assert other.journal.claim(9) == [NAME]
    one.journal.tick(0)
    one.journal.reject(a_record(), "no budget")
    assert (store.kept(), store.kept("rejected")) == ([a_record()], [])
    assert [reason for _, reason in one.local.rejected()] == ["no budget"]


@pytest.mark.parametrize("has_response", [True, False])
def test_a_record_that_is_rejected_in_an_outage_is_deleted_from_the_store_later(
    client: Callable[..., Client], store: Noted, monkeypatch: pytest.MonkeyPatch, has_response: bool
) -> None:
    one = client()
    with monkeypatch.context() as during:
        if not has_response:
            lose_responses(during, store)
        one.journal.put(a_record())
    store.fails = "it is down"
    one.journal.reject(a_record(), "no budget")
    store.fails = None
    one.seconds = 1.0
    one.journal.tick(0)
    assert (store.kept(), [reason for _, reason in one.local.rejected()]) == ([], ["no budget"])


def test_a_record_that_cannot_be_read_is_quarantined_in_the_store_and_reported(
    client: Callable[..., Client], store: Noted
) -> None:
    one, other = client(), client()
    store.put([Put(KEY, b"{}")])
    assert one.journal.claim(9) == [NAME]
    assert one.journal.load(NAME) is None
    (issue,) = one.issues
    assert issue.kind == "quarantined"
    assert issue.message.startswith(
        f"record {KEY[:12]} is quarantined in the journal's store and will not be settled: "
    )
    assert issue.message.endswith("; see `cycles journal list`, or record its amount by hand with client.record()")
    assert [each.key for each in store.list(kept="quarantined")] == [KEY]
    assert (one.journal.quarantined, other.journal.claim(9)) == (1, [])


def test_a_record_that_a_newer_worker_has_taken_since_is_not_quarantined(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    store.put([Put(KEY, b"{}")])
    one.journal.claim(9)
    clock.now += 30_000
    assert other.journal.claim(9) == [NAME]
    assert one.journal.load(NAME) is None
    assert store.list(kept="quarantined") == []


def test_requests_whose_cost_is_unknown_are_found_in_the_store_and_on_the_disk(
    client: Callable[..., Client], store: Noted
) -> None:
    records = [a_record(f"rsv_{n}", sent=n % 2 == 0) for n in range(4)]
    names = [Entry(file_name(record.reservation_id)) for record in records]
    one, other = client(), client()
    store.put([Put(key_of(record.reservation_id), encode(record)) for record in records[:2]])
    one.journal.claim(9)
    for record in records[2:]:
        one.local.save(record)
    assert one.journal.sent(names) == {names[0], names[2]}
    assert other.journal.sent(names[:2]) == set()


def test_a_record_that_another_client_has_claimed_is_taken_until_it_is_left(
    client: Callable[..., Client], clock: StoreClock
) -> None:
    one, other = client(), client()
    record = a_record()
    one.journal.put(record)
    assert not one.journal.is_taken(record)
    assert one.journal.taken_by_another("rsv_1") is None
    clock.now += 29_999
    assert other.journal.claim(9) == []
    clock.now += 1
    assert other.journal.claim(9) == [NAME]
    assert one.journal.put(a_record(not_before_ms=9)) is PutResult.TAKEN
    assert one.journal.is_taken(record)
    assert one.journal.taken_by_another("rsv_1") == record
    assert not one.journal.checkpoint(record)
    one.journal.leave(record)
    assert not one.journal.is_taken(record)
    assert one.journal.put(record) is PutResult.SAVED, "the store has the same amount"


@pytest.mark.parametrize("amount", [5, 6])
def test_a_file_of_an_amount_that_another_client_has_is_removed_or_kept_as_rejected(
    client: Callable[..., Client], store: Noted, amount: int
) -> None:
    one, other = client(), client()
    body = {"idempotency_key": "key-1", "actual": {"unit": "TOKENS", "amount": amount}}
    one.local.save(a_record(commit_body=body, event_fallback_body=body))
    store.put([Put(KEY, encode(a_record()), due_ms=1_000)])
    assert other.journal.pending() == []
    one.journal.pending()
    assert (one.files, store.kept()) == ([], [a_record()])
    assert [reason for _, reason in one.local.rejected()] == [MAY_BE_CHARGED] * (amount == 6)


def test_a_file_of_an_amount_is_kept_as_rejected_if_a_newer_worker_has_its_record(
    client: Callable[..., Client], store: Noted
) -> None:
    """Whether the record in the store has the same amount cannot be read."""
    one = client()
    one.local.save(a_record())
    store.put([Put(KEY, b'{"v": 99}', due_ms=60_000)])
    one.journal.pending()
    assert one.local.rejected() == [(a_record(), MAY_BE_CHARGED)]
    assert (one.files, [each.record for each in MemoryStore.list(store)]) == ([], [b'{"v": 99}'])


@pytest.mark.parametrize(
    ("amount", "excess", "is_same"), [(2, 3, True), (5, None, True), (2, None, False), (5, 3, False)]
)
def test_an_amount_and_its_excess_are_one_amount(
    client: Callable[..., Client], store: Noted, amount: int, excess: int | None, is_same: bool
) -> None:
    """Another worker has split the amount of the same settlement, or not yet."""
    store.put([Put(KEY, encode(a_record()), due_ms=60_000)])
    body = {"idempotency_key": "key-1", "actual": {"unit": "TOKENS", "amount": amount}}
    split = None if excess is None else {"amount": excess, "code": "BUDGET_EXCEEDED"}
    one = client()
    assert one.journal.put(a_record(commit_body=body, event_fallback_body=body, excess=split)) is (
        PutResult.SAVED if is_same else PutResult.FAILED
    )
    assert [record.actual.amount for record in store.kept()] == [amount if is_same else 5]


@pytest.mark.parametrize(("outage", "is_down"), [("refuse", False), ("refuse", True), ("disk", True), ("memory", True)])
def test_nothing_is_reserved_in_an_outage_with_refuse_only(
    client: Callable[..., Client], store: Noted, outage: str, is_down: bool
) -> None:
    one = client(outage=outage)
    assert one.journal.refuses == (outage == "refuse")
    store.fails = "it is down" if is_down else None
    if outage != "refuse" or not is_down:
        assert one.journal.ensure_available() is None  # type: ignore[func-returns-value]
        return
    for _ in range(2):  # the second call does not try the store
        with pytest.raises(cycles.JournalUnavailableError) as caught:
            one.journal.ensure_available()
        assert str(caught.value) == (
            'the journal\'s store does not respond, and journal_outage is "refuse": nothing was reserved; check'
            " journal_store (CYCLES_JOURNAL_URL)"
        )
        store.fails = None
    one.seconds = 1.0
    one.journal.ensure_available()


@pytest.mark.parametrize(
    ("due", "wanted", "takes", "has_more"),
    [
        (40, 20, [16, 4], True),
        (40, 40, [16, 16, 8], True),
        (15, 40, [16], False),
        (16, 40, [16, 16], False),
        (1, 1, [1], True),
        (0, 64, [16], False),
        (5, 0, [], False),
    ],
)
def test_due_records_are_claimed_in_takes_of_sixteen(
    client: Callable[..., Client], store: Noted, due: int, wanted: int, takes: list[int], has_more: bool
) -> None:
    store.put([Put(key_of(f"rsv_{n}"), encode(a_record(f"rsv_{n}"))) for n in range(due)])
    one = client()
    assert len(set(one.journal.claim(wanted))) == min(due, wanted)
    assert [told for told in store.told if told[0] == "take"] == [("take", limit, 30_000) for limit in takes]
    assert one.journal.has_more is has_more


def test_what_was_claimed_before_a_failure_is_settled(
    client: Callable[..., Client], store: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([Put(key_of(f"rsv_{n}"), encode(a_record(f"rsv_{n}"))) for n in range(20)])
    one, take = client(), store.take

    def take_once(limit: int, claim_ms: int) -> list[Stored]:
        store.fails = "it is down" if store.told[-1][0] == "take" else None
        return take(limit, claim_ms)

    monkeypatch.setattr(store_of(one.journal), "take", take_once)
    assert len(one.journal.claim(64)) == 16
    assert one.journal.has_more
    store.fails = None
    assert (one.journal.claim(64), one.journal.has_more) == ([], False), "nothing is claimed soon after an outage"


@pytest.mark.parametrize("later", [a_record(not_before_ms=7), a_record().to_event_mode(5_000)])
def test_a_record_whose_last_put_had_no_response_is_deleted(
    client: Callable[..., Client], store: Noted, monkeypatch: pytest.MonkeyPatch, later: Record
) -> None:
    one = client(outage="memory")
    one.journal.put(a_record())
    with monkeypatch.context() as during:
        lose_responses(during, store)
        one.journal.put(later)
    one.seconds = 1.0
    one.journal.delete(a_record())
    one.journal.settle_finished()
    assert store.kept() == []


def test_more_records_than_one_renewal_has_are_all_renewed(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    records = [a_record(f"rsv_{n}") for n in range(BATCH + 1)]
    assert set(one.journal.put_many(records)) == {PutResult.SAVED}
    clock.now += 20_000
    one.journal.tick(0)
    clock.now += 20_000
    assert other.journal.claim(1) == []


def test_finished_records_are_deleted_together_a_moment_later(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    records = [a_record(f"rsv_{n}") for n in range(3)]
    for record in records:
        one.journal.put(record)
    for record in records:
        one.journal.delete(record)
    ((delay_s, call),) = one.calls
    assert (delay_s, len(store.kept())) == (0.05, 3)
    call()
    assert (store.kept(), store.told[-1]) == ([], ("delete", 3))
    one.journal.put(records[0])
    one.journal.delete(records[0])
    assert len(one.calls) == 2
    one.journal.delete(records[0])
    assert len(one.calls) == 2, "nothing of it is in the store"


@pytest.mark.parametrize("count", [3, 501])
def test_records_that_are_finished_while_a_deletion_fails_are_deleted_too(
    client: Callable[..., Client], store: Noted, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def fail(items: Sequence[tuple[str, str]]) -> None:
        one.journal.delete(a_record("late"))
        raise StoreError("it is down")

    one = client()
    for reservation_id in [*(f"rsv_{n}" for n in range(count)), "late"]:
        one.journal.put(a_record(reservation_id))
    for n in range(count):
        one.journal.delete(a_record(f"rsv_{n}"))
    with monkeypatch.context() as patch:
        patch.setattr(store_of(one.journal), "delete", fail)
        one.journal.settle_finished()
    assert len(store.kept()) == count + 1
    one.seconds = 1.0
    one.journal.tick(0)
    assert store.kept() == []


def test_new_records_are_put_together_and_known_or_deferred_ones_alone(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one = client()
    known, deferred = a_record("known"), a_record("deferred", not_before_ms=clock.now + 90_000)
    one.journal.put(known)
    new = [a_record(f"new-{n}") for n in range(3)]
    assert one.journal.put_many([new[0], known, new[1], deferred, new[2]]) == [PutResult.SAVED] * 5
    assert store.told == [("put", 1), ("put", 3), ("put", 1), ("put", 1)]
    due = {decode(each.record).reservation_id: each.due_ms - clock.now for each in store.list()}
    assert due == {"known": 30_000, "deferred": 90_000, "new-0": 30_000, "new-1": 30_000, "new-2": 30_000}
    store.told.clear()
    store.fails = "it is down"
    assert one.journal.put_many([a_record("a"), a_record("b")]) == [PutResult.SAVED] * 2
    assert (store.told, len(one.files)) == ([("put", 2)], 2), "one attempt in an outage"


def test_a_record_in_a_local_file_is_loaded_and_put_when_the_store_responds(
    client: Callable[..., Client], store: Noted
) -> None:
    one = client()
    store.fails = "it is down"
    record = a_record()
    one.journal.put(record)
    assert (one.files, one.journal.load(NAME)) == ([NAME], record)
    store.fails = None
    one.seconds = 1.0
    one.journal.tick(0)
    assert (one.files, store.kept()) == ([], [record])


def test_a_settled_record_that_only_the_disk_has_is_deleted_there(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    one.local.save(a_record())
    one.journal.delete(a_record())
    assert (one.files, one.calls, store.told) == ([], [], [])


def test_each_outage_is_reported_once(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    for number in range(1, 3):
        store.fails = "it is down"
        one.journal.put(a_record(f"rsv_{number}"))
        one.journal.put(a_record("rsv_3"))
        assert [issue.kind for issue in one.issues] == ["store"] * number
        store.fails = None
        one.seconds += 1.0
        one.journal.put_many([a_record(f"new-{number}"), a_record(f"more-{number}")])


def test_an_idle_client_looks_whether_an_outage_continues(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    store.fails = "it is down"
    assert one.journal.rejected() == []
    one.seconds = 1.0
    assert one.journal.tick(9) == []
    one.seconds = 2.5
    one.journal.put(a_record())
    assert store.told == [], "the second pause is two seconds long"
    store.fails = None
    one.seconds = 3.0
    one.journal.tick(9)
    assert (store.kept(), one.files) == ([a_record()], [])


@pytest.mark.parametrize("is_down", [False, True])
def test_a_checkpoint_says_whether_the_store_has_it(client: Callable[..., Client], store: Noted, is_down: bool) -> None:
    one = client()
    store.fails = "it is down" if is_down else None
    assert one.journal.checkpoint(a_record()) is not is_down
    store.fails = None
    assert one.journal.checkpoint(a_record()) is not is_down, "no attempt in the pause after a failure"
    assert (len(store.told), one.files) == (2 - is_down, [])


# --- chunks of pools: the rules at the head of `shared.py`

SEVEN_DAYS_MS = 7 * 86_400_000


def event_of(amount: int, calls: int) -> Record:
    return a_sum(amount, calls, "event")


@pytest.mark.parametrize(
    ("theirs", "own", "result", "stored"),
    [
        (a_sum(7, 2), a_sum(12, 3), PutResult.SAVED, a_sum(12, 3)),
        (a_sum(12, 3), a_sum(7, 2), PutResult.TAKEN, a_sum(12, 3)),
        (a_sum(7, 2), a_sum(7, 2), PutResult.SAVED, a_sum(7, 2)),
        (event_of(7, 2), a_sum(12, 3), PutResult.TAKEN, event_of(7, 2)),
        (event_of(7, 2), a_sum(7, 2), PutResult.TAKEN, event_of(7, 2)),
        (event_of(7, 2), event_of(7, 2), PutResult.SAVED, event_of(7, 2)),
        (a_sum(7, 2, settled=7), a_sum(12, 3), PutResult.TAKEN, a_sum(7, 2, settled=7)),
        (a_sum(7, 2, settled=7), a_sum(7, 2), PutResult.TAKEN, a_sum(7, 2, settled=7)),
        (a_sum(7, 2, rejected="no"), a_sum(12, 3), PutResult.TAKEN, a_sum(7, 2, rejected="no")),
        (a_sum(7, 2), event_of(12, 3), PutResult.SAVED, event_of(12, 3)),
    ],
)
def test_a_larger_sum_replaces_the_commit_of_an_earlier_one_only(
    client: Callable[..., Client], store: Noted, theirs: Record, own: Record, result: PutResult, stored: Record
) -> None:
    store.put([Put(KEY, encode(theirs), due_ms=60_000)])
    one = client()
    assert one.journal.put(own) is result
    assert store.kept() == [stored]
    assert one.journal.is_taken(own) is (result is PutResult.TAKEN)
    assert one.journal.taken_by_another("rsv_1") == (theirs if result is PutResult.TAKEN else None)


@pytest.mark.parametrize("kept", ["rejected", "quarantined"])
@pytest.mark.parametrize("amount", [7, 12])
def test_a_sum_that_is_kept_aside_is_not_put_again(
    client: Callable[..., Client], store: Noted, kept: Any, amount: int
) -> None:
    rejected = "no budget" if kept == "rejected" else None
    store.put([Put(KEY, encode(a_sum(7, 2, rejected=rejected)), kept=kept)])
    one = client()
    result = PutResult.SAVED if (kept, amount) == ("quarantined", 12) else PutResult.TAKEN
    assert one.journal.put(a_sum(amount, 2)) is result
    assert len(store.kept(kept)) == (result is PutResult.TAKEN)


@pytest.mark.parametrize(("amount", "result"), [(11, PutResult.TAKEN), (12, PutResult.TAKEN), (13, PutResult.SAVED)])
def test_a_sum_that_another_client_has_taken_is_replaced_by_a_larger_one(
    client: Callable[..., Client], store: Noted, clock: StoreClock, amount: int, result: PutResult
) -> None:
    one, other = client(), client()
    one.journal.put(a_sum(12, 3))
    clock.now += 30_000
    assert other.journal.claim(9) == [NAME]
    assert one.journal.put(a_sum(amount, 3)) is result
    assert store.kept() == [a_sum(max(amount, 12), 3)]


def test_a_sum_that_is_taken_back_and_rejected_is_kept_in_the_store(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    lose(one, other, clock)
    assert one.journal.put(a_sum(12, 3)) is PutResult.SAVED
    assert one.journal.taken_by_another("rsv_1") is None
    one.journal.reject(a_sum(12, 3), "no budget")
    assert [record.rejected for record in store.kept("rejected")] == ["no budget"]


def test_what_is_settled_of_a_chunk_that_two_clients_know_stays_for_seven_days(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    one.journal.put(a_sum(7, 2))
    clock.now += 30_000
    other.journal.claim(9)
    other.journal.delete(a_sum(7, 2))
    other.journal.settle_finished()
    (stored,) = store.list()
    assert (decode(stored.record).settled, stored.due_ms - clock.now) == (7, SEVEN_DAYS_MS)
    assert one.journal.put(a_sum(12, 3)) is PutResult.TAKEN
    assert (one.journal.claim(9), len(store.kept())) == ([], 1)
    clock.now += SEVEN_DAYS_MS
    assert (one.journal.claim(9), store.kept()) == ([], [])
    assert (one.journal.tick(9), store.kept()) == ([], []), "it is not put again"


def test_a_sum_that_has_replaced_that_of_another_client_stays_once_it_is_settled(
    client: Callable[..., Client], store: Noted
) -> None:
    one, other = client(), client()
    other.journal.put(a_sum(7, 2))
    one.journal.put(a_sum(12, 3))
    one.journal.delete(a_sum(12, 3))
    one.journal.settle_finished()
    assert [record.settled for record in store.kept()] == [12]
    assert other.journal.put(a_sum(7, 2)) is PutResult.TAKEN


def test_what_is_settled_of_a_chunk_is_put_again_if_the_store_has_lost_it(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    """A client that was stopped may have an earlier sum, and must find that it is settled."""
    one, other = client(), client()
    one.journal.put(a_sum(7, 2))
    clock.now += 30_000
    other.journal.claim(9)
    empty(store)
    other.journal.delete(a_sum(7, 2))
    other.journal.settle_finished()
    assert [record.settled for record in store.kept()] == [7]
    assert one.journal.put(a_sum(6, 1)) is PutResult.TAKEN


def test_what_is_settled_of_a_chunk_that_one_client_knows_is_deleted(
    client: Callable[..., Client], store: Noted
) -> None:
    one = client()
    one.journal.put(a_sum(7, 2))
    one.journal.delete(a_sum(7, 2))
    one.journal.settle_finished()
    assert store.kept() == []


def test_a_chunk_that_was_first_kept_elsewhere_is_deleted_too(client: Callable[..., Client], store: Noted) -> None:
    one = client(outage="memory")
    store.fails = "it is down"
    one.journal.put(a_record("rsv_2"))
    store.fails = None
    assert one.journal.put(a_sum(7, 2)) is PutResult.FAILED, "no attempt in the pause after a failure"
    one.journal.delete(a_record("rsv_2"))
    one.seconds = 1.0
    one.journal.tick(0)
    assert store.kept() == [a_sum(7, 2)]
    one.journal.delete(a_sum(7, 2))
    one.journal.settle_finished()
    assert store.kept() == []


def test_a_commit_that_its_owner_replaced_is_not_settled_with_an_earlier_sum(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    """A task has loaded 7, then this client claimed 12: the task ends, and 12 is due for another one."""
    one = client()
    store.put([Put(KEY, encode(a_sum(12, 3)))])
    one.journal.claim(9)
    assert one.journal.put(a_sum(7, 2)) is PutResult.TAKEN
    assert one.journal.is_taken(a_sum(7, 2))
    one.journal.settle_finished()
    assert one.journal.claim(9) == [NAME]
    assert one.journal.load(NAME) == a_sum(12, 3)
    one.journal.delete(a_sum(7, 2))
    one.journal.settle_finished()
    assert (store.kept(), one.journal.claim(9)) == ([a_sum(12, 3)], [NAME])


def lose(one: Client, other: Client, clock: StoreClock, *, is_open: bool = False) -> None:
    """Let another client take the chunk of this one, which finds it out."""
    if is_open:
        assert one.journal.checkpoint(a_sum(7, 2))
    else:
        assert one.journal.put(a_sum(7, 2)) is PutResult.SAVED
    clock.now += 30_000
    assert other.journal.claim(9) == [NAME]
    one.journal.tick(0)
    assert one.journal.is_taken(a_sum(7, 2))


def empty(store: Noted) -> None:
    for kept in (None, "rejected", "quarantined"):
        store.delete([(each.key, each.fence) for each in MemoryStore.list(store, kept=kept)])


@pytest.mark.parametrize("together", [True, False])
def test_a_taken_chunk_that_the_store_loses_stays_taken(
    client: Callable[..., Client], store: Noted, clock: StoreClock, together: bool
) -> None:
    one, other = client(), client()
    lose(one, other, clock)
    empty(store)
    records = [a_sum(7, 2), a_record("rsv_2")]
    assert one.journal.put_many(records[: 1 + together])[0] is PutResult.TAKEN


def test_a_taken_chunk_that_the_store_loses_is_put_again_unchanged(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    lose(one, other, clock)
    one.journal.tick(0)
    assert one.journal.is_taken(a_sum(7, 2))
    empty(store)
    one.journal.tick(0)
    assert store.kept() == [a_sum(7, 2)]
    assert [each.key for each in store.take(9, 30_000)] == [KEY], "it is due now"


def test_all_taken_chunks_that_the_store_loses_are_put_again(
    client: Callable[..., Client], store: Noted, clock: StoreClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._journal.stores.shared.BATCH", 1)
    one, other, second = client(), client(), evolve(a_sum(7, 2), reservation_id="rsv_2")
    assert one.journal.put(second) is PutResult.SAVED
    assert one.journal.put(a_sum(7, 2)) is PutResult.SAVED
    clock.now += 30_000
    assert len(other.journal.claim(9)) == 2
    one.journal.tick(0)
    empty(store)
    one.journal.tick(0)
    assert sorted(record.reservation_id for record in store.kept()) == ["rsv_1", "rsv_2"]


def test_a_taken_chunk_whose_task_has_ended_is_put_again_too(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one, other = client(), client()
    lose(one, other, clock)
    one.journal.leave(a_sum(7, 2))
    assert one.journal.is_taken(a_sum(7, 2))
    empty(store)
    one.journal.tick(0)
    assert store.kept() == [a_sum(7, 2)]


@pytest.mark.parametrize("end", ["settled", "rejected", "quarantined"])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_taken_chunk_is_watched_until_its_other_client_has_ended_it(
    client: Callable[..., Client], store: Noted, clock: StoreClock, end: str, is_open: bool
) -> None:
    one, other = client(), client()
    lose(one, other, clock, is_open=is_open)
    if end == "settled":
        other.journal.delete(a_sum(7, 2))
        other.journal.settle_finished()
    elif end == "rejected":
        other.journal.reject(a_sum(7, 2), "no budget")
    else:
        (stored,) = store.list()
        store.put([Put(KEY, stored.record, stored.fence, kept="quarantined")])
    one.journal.tick(0)
    assert one.journal.is_taken(a_sum(7, 2)) is is_open
    empty(store)
    one.journal.tick(0)
    assert store.kept() == []


def test_a_client_that_takes_the_record_of_its_open_chunk_continues_it(
    client: Callable[..., Client], store: Noted, clock: StoreClock
) -> None:
    one = client()
    assert one.journal.checkpoint(a_sum(7, 2))
    clock.now += 30_000
    assert one.journal.claim(9) == []
    assert one.journal.checkpoint(a_sum(9, 3))
    assert store.kept() == [a_sum(9, 3)]


@pytest.mark.parametrize("together", [True, False])
def test_a_closed_chunk_that_comes_back_from_another_client_is_settled(
    client: Callable[..., Client], store: Noted, clock: StoreClock, together: bool
) -> None:
    """The store was down at its checkpoint, and responds again when the chunk is closed, maybe with another record."""
    one, other = client(outage="memory"), client()
    store.fails = "it is down"
    assert one.journal.put(a_record("before")) is PutResult.FAILED
    assert not one.journal.checkpoint(a_sum(7, 2))
    store.fails = None
    one.seconds = 1.0
    one.journal.put_many([a_sum(7, 2), a_record("rsv_2")] if together else [a_sum(7, 2)])
    clock.now += 30_000
    assert NAME in other.journal.claim(9)
    one.journal.tick(0)
    one.journal.leave(a_sum(7, 2))
    clock.now += 30_000
    one.seconds = 100.0
    assert NAME in one.journal.claim(9)


def test_an_open_chunk_whose_checkpoint_had_no_response_continues_when_it_comes_back(
    client: Callable[..., Client], store: Noted, clock: StoreClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = client(), client()
    with monkeypatch.context() as during:
        lose_responses(during, store)
        assert not one.journal.checkpoint(a_sum(7, 2))
    clock.now += 30_000
    assert other.journal.claim(9) == [NAME]
    other.journal.put(a_sum(9, 2))
    one.seconds = 1.0
    one.journal.tick(0)
    assert one.journal.is_taken(a_sum(8, 3))
    clock.now += 30_000
    one.seconds = 100.0
    assert one.journal.claim(9) == []


@pytest.mark.parametrize("mode", ["commit", "event"])
def test_an_open_chunk_that_comes_back_from_another_client_continues_unless_it_is_an_event(
    client: Callable[..., Client], store: Noted, clock: StoreClock, mode: str
) -> None:
    one, other = client(), client()
    lose(one, other, clock, is_open=True)
    other.journal.put(a_sum(7, 2, mode))
    clock.now += 30_000
    assert one.journal.claim(9) == ([] if mode == "commit" else [NAME])
    assert one.journal.checkpoint(a_sum(9, 3)) is (mode == "commit")
    assert store.kept() == [a_sum(9, 3) if mode == "commit" else event_of(7, 2)]
    if mode == "event":
        assert one.journal.taken_by_another("rsv_1") == event_of(7, 2)
        assert one.journal.is_taken(a_sum(9, 3))
        assert not one.journal.is_taken(event_of(7, 2))
        one.journal.leave(a_sum(9, 3))
        assert one.journal.taken_by_another("rsv_1") is None


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (event_of(7, 2), [("event", 5, "key-1:late:7"), ("event", 7, "key-1")]),
        (event_of(12, 3), [("event", 12, "key-1")]),
        (event_of(13, 4), [("event", 13, "key-1")]),
        (a_sum(7, 2), [("commit", 12, "key-1")]),
        (a_sum(13, 4), [("commit", 13, "key-1")]),
        (None, [("commit", 12, "key-1")]),
    ],
)
def test_what_a_file_has_beyond_the_stored_sum_becomes_its_own_event(
    client: Callable[..., Client], store: Noted, theirs: Record | None, expected: list[tuple[str, int, str]]
) -> None:
    one = client()
    one.local.save(a_sum(12, 3))
    if theirs is not None:
        store.put([Put(KEY, encode(theirs), due_ms=60_000)])
    one.journal.pending()
    found = sorted((each.mode, each.actual.amount, each.body["idempotency_key"]) for each in store.kept())
    assert (found, one.files) == (expected, [])


def test_a_file_stays_if_what_it_has_beyond_the_stored_sum_cannot_be_saved(
    client: Callable[..., Client], store: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, put = client(), store.put
    one.local.save(a_sum(12, 3))
    store.put([Put(KEY, encode(event_of(7, 2)), due_ms=60_000)])

    def fail(items: Sequence[Put]) -> list[str | None]:
        if items[0].key != KEY:
            raise StoreError("it is down")
        return put(items)

    monkeypatch.setattr(store_of(one.journal), "put", fail)
    with failing("write", errno.ENOSPC):
        assert one.journal.pending() == [NAME]
    assert one.files == [NAME]


def test_a_record_that_is_left_is_due_for_another_task(client: Callable[..., Client], store: Noted) -> None:
    one = client()
    store.put([Put(KEY, encode(a_record()))])
    assert one.journal.claim(9) == [NAME]
    one.journal.leave(a_record())
    assert one.journal.claim(9) == []
    one.journal.settle_finished()
    assert one.journal.claim(9) == [NAME]
