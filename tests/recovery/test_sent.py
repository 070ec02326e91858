"""Requests to providers whose process was killed: the next process charges their bound before it reserves anything."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.settlement.record import decode, encode, file_name
from cycles._drivers.work.queue import WorkQueue
from cycles._drivers.write_ahead import Entry as WrittenAhead
from cycles._journal.operators import by_hand
from cycles._journal.operators.inspect import inspect
from cycles._journal.stores.memory import MemoryStore
from cycles.testing import FakeProvider
from tests.journal.kit import failing
from tests.support.deadlines import refuse_threads_of_schedulers
from tests.support.inside import runtime_of, state_of
from tests.support.waiting import PATIENCE_S

BOUND, COST = cycles.usd("0.60"), cycles.usd("0.02")
ACTION = ("llm.completion", "m")


def states(root: Path) -> list[str]:
    """Return the states of all records below a directory."""
    return [entry.state for entry in inspect(root)]


class Desk:
    """A server, and a client with a request in flight; `kill` leaves its journal as a killed process would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kills = 0
        self.clock = cycles.ManualClock()
        self.server = cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, clock=self.clock)
        self.root = self.first_root = folder / "0"
        self.client = self.connect()
        self._guards: list[Any] = []  # a guard that is dropped would be released

    def connect(self, **options: Any) -> cycles.Cycles:
        """Return a client on the journal: the next process."""
        return self.server.client(tenant="acme", journal=True, journal_dir=self.root, **options)

    def send(self, bound: cycles.Amount = BOUND, **options: Any) -> Any:
        """Reserve a request, and note that it is sent."""
        guard = self.client.reserve(bound, action=ACTION, subject={"agent": "planner"}, **options).acquire()
        self._guards.append(guard)
        runtime_of(self.client).ahead.sent(state_of(guard), bound.amount)
        return guard

    def close(self) -> None:
        self.server.faults.clear()
        for guard in self._guards:
            if guard.state in ("active", "lost", "unreserved"):
                with contextlib.suppress(cycles.CyclesError):
                    guard.release()
        self.client.close()
        self.server.close()

    def kill(self) -> None:
        """Go on with a copy of the journal, in which no process has a lock."""
        self._kills += 1
        copy = self._folder / str(self._kills)
        shutil.copytree(self.root, copy)
        self.root = copy

    def sent(self, operation: str) -> list[dict[str, Any]]:
        return [request.json for request in self.server.requests.of(operation)]

    @property
    def spent(self) -> int:
        return self.server.spent("tenant:acme").amount


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def test_the_bound_is_committed_before_the_first_reservation(desk: Desk) -> None:
    desk.send()
    desk.kill()
    with desk.connect() as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire()
    assert desk.spent == BOUND.amount
    (commit,) = desk.sent("commit")
    assert commit["metadata"] == {"actual_source": "estimate"}
    assert states(desk.root) == []


def test_a_reservation_after_the_bound_is_committed_waits_for_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send()
    desk.kill()
    waits: list[object] = []
    with desk.connect() as client:
        client.flush()
        monkeypatch.setattr(WorkQueue, "settle_sent", lambda queue: waits.append(queue))
        client.reserve(cycles.usd("0.10"), action=ACTION).acquire().release()
    assert waits == []


def test_a_reservation_waits_for_no_bound_while_the_server_fails(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads_of_schedulers(monkeypatch)
    for _ in range(2):
        desk.send(cycles.usd("0.30"))
    desk.kill()
    desk.server.faults.status("commit", 503, times=None)
    client, guards = (
        desk.connect(flush_timeout=3_600.0, retry_initial_delay=600.0, retry_max_delay=600.0),
        list[cycles.Guard](),
    )
    reserving = threading.Thread(
        target=lambda: guards.append(client.reserve(cycles.usd("0.10"), action=ACTION).acquire()), daemon=True
    )
    reserving.start()
    reserving.join(PATIENCE_S)
    reserved = len(guards)
    desk.server.faults.clear()
    for guard in guards:
        guard.release()
    client.close()
    assert reserved == 1
    assert desk.spent == cycles.usd("0.60").amount


def test_a_reservation_waits_no_longer_than_until_the_bound_is_committed(desk: Desk) -> None:
    desk.send()
    desk.kill()
    client, guards = desk.connect(flush_timeout=3_600.0), list[cycles.Guard]()
    reserving = threading.Thread(
        target=lambda: guards.append(client.reserve(cycles.usd("0.10"), action=ACTION).acquire()), daemon=True
    )
    reserving.start()
    reserving.join(PATIENCE_S)
    for guard in guards:
        guard.release()
    client.close()
    assert not reserving.is_alive()
    assert desk.spent == BOUND.amount


def test_a_bound_that_another_process_could_not_commit_is_committed_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send()
    desk.kill()
    desk.server.faults.status("commit", 401, times=None)
    with desk.connect(flush_timeout=0.0) as client:
        assert client.flush(PATIENCE_S).pending == 1  # early: another attempt would not help
    desk.server.faults.clear()
    desk.kill()
    desk.clock.advance(200_000)  # the server holds nothing for it any more
    refuse_threads_of_schedulers(monkeypatch)
    with desk.connect() as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire()
    assert desk.spent == BOUND.amount


def test_a_task_reserves_only_after_the_bound_is_committed(desk: Desk) -> None:
    desk.send()
    desk.kill()
    desk.clock.advance(200_000)  # the server holds nothing for it any more

    async def go() -> None:
        async with desk.connect() as client:
            with pytest.raises(cycles.BudgetExceededError):
                await client.reserve(cycles.usd("0.50"), action=ACTION)

    asyncio.run(go())
    assert desk.spent == BOUND.amount


def test_after_the_lease_the_bound_is_an_event(desk: Desk) -> None:
    guard = desk.send()
    desk.kill()
    desk.clock.advance(200_000)
    with desk.connect() as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire()
    (event,) = desk.sent("event")
    assert event["actual"]["amount"] == desk.spent == BOUND.amount
    assert event["metadata"] == {
        "actual_source": "estimate",
        "recovered_reservation_id": guard.reservation_id,
        "recovery_reason": "process_ended",
    }
    assert event["subject"]["agent"] == "planner"


def test_nothing_is_charged_if_the_server_has_the_commit(desk: Desk) -> None:
    guard = desk.send()
    desk.kill()
    guard.commit(cycles.usd("0.01"))  # the record could not be saved, and the process died before it cleared the slot
    with desk.connect() as client:
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire().release()
    assert desk.spent == cycles.usd("0.01").amount
    assert states(desk.root) == []


def test_nothing_is_charged_if_the_server_has_the_event(desk: Desk) -> None:
    guard = desk.send()
    desk.kill()
    desk.clock.advance(200_000)
    guard.commit(cycles.usd("0.01"))
    with desk.connect() as client:
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire().release()
    assert desk.spent == cycles.usd("0.01").amount
    assert states(desk.root) == []


def test_two_kills_charge_once(desk: Desk) -> None:
    desk.send()
    desk.kill()
    desk.server.faults.drop_response("commit", times=None)
    with desk.connect(flush_timeout=0.0) as client:
        client.pending()
    desk.server.faults.clear()
    assert states(desk.root) == ["sent"]
    desk.kill()
    with desk.connect() as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire()
    assert desk.spent == BOUND.amount


def test_a_settled_a_released_and_an_interrupted_request_leave_nothing(desk: Desk) -> None:
    desk.send().commit(cycles.usd("0.01"))
    desk.send().release()
    desk.kill()
    assert states(desk.root) == []
    with desk.connect() as client:
        client.reserve(cycles.usd("0.50"), action=ACTION).acquire().release()
    assert desk.spent == cycles.usd("0.01").amount


def test_a_live_process_keeps_its_requests(desk: Desk) -> None:
    guard = desk.send()
    assert states(desk.root) == []
    with desk.connect() as other:
        other.reserve(cycles.usd("0.10"), action=ACTION).acquire().release()
    assert desk.spent == 0
    guard.commit(cycles.usd("0.02"))
    assert desk.spent == cycles.usd("0.02").amount


def test_a_request_without_a_reservation_is_an_event(desk: Desk) -> None:
    desk.server.faults.refuse("reserve", times=None)
    desk.send(on_unavailable="allow")
    desk.server.faults.clear()
    desk.kill()
    with desk.connect() as client:
        client.flush(60)
    (event,) = desk.sent("event")
    assert event["metadata"] == {"actual_source": "estimate", "recovery_reason": "process_ended"}
    assert desk.spent == BOUND.amount


def test_an_enclosing_guard_is_charged_its_spend_and_what_was_sent(desk: Desk) -> None:
    pytest.importorskip("openai")
    from openai import OpenAI

    book = cycles.PriceBook({"m": cycles.Price("0", "10")})
    with FakeProvider() as provider:
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100}).reply(drop_after=0)
        original = OpenAI(api_key="k", base_url=provider.openai_url, max_retries=0)
        llm = cycles.providers.guard(original, client=desk.client, prices=book, within="enclosing")
        with desk.client.reserve(BOUND, action=ACTION) as guard:
            llm.chat.completions.create(model="m", messages=[], max_tokens=1_000)
            runtime = runtime_of(desk.client)
            before, noted = runtime.ahead.sent, []

            def note(state: Any, bound: int) -> None:
                before(state, bound)
                if bound:
                    desk.kill()  # between what is written ahead and the request
                    noted.append(state)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(runtime.ahead, "sent", note)
                with pytest.raises(Exception, match="Connection error"):
                    llm.chat.completions.create(model="m", messages=[], max_tokens=2_000)
            assert noted[0].sent == 0
            assert guard.spent == cycles.usd_microcents(100_000 + 2_000_000)
            guard.release()
        original.close()
    (left,) = inspect(desk.root)
    assert (left.state, left.amount) == ("sent", cycles.usd_microcents(100_000 + 2_000_000))


def test_a_commit_that_the_disk_does_not_take_is_charged_what_it_cost(desk: Desk) -> None:
    desk.server.faults.refuse("commit", times=None)
    guard = desk.send()
    with failing("write", errno.ENOSPC):
        assert guard.commit(COST).status == "pending"
    check_cost(desk)


@pytest.mark.parametrize("length", [1, 2_000])
def test_a_commit_that_the_store_does_not_take_is_charged_what_it_cost(desk: Desk, length: int) -> None:
    """A record of 2,000 bytes needs another slot than the bound."""
    desk.client.close()
    store = MemoryStore()
    desk.client = desk.connect(journal_store=store, journal_outage="memory")
    guard = desk.send()
    store.fails = "it is down"
    desk.server.faults.refuse("commit", times=None)
    assert guard.commit(COST, metadata={"note": "x" * length}).status == "pending"
    check_cost(desk)


def check_cost(desk: Desk) -> None:
    """Check that the next process charges what the commit that is pending cost, and not its bound."""
    desk.kill()
    desk.server.faults.clear()
    with desk.connect() as client:
        assert client.flush(60).pending == 0
    assert desk.spent == COST.amount
    desk.client.flush(60)


def test_an_older_state_of_the_spend_does_not_replace_a_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that notes a request is held back while another one commits, and then writes its state."""
    desk.server.faults.refuse("commit", times=None)
    guard = desk.send()
    write, commits = WrittenAhead.write, [1]

    def commit_first(entry: WrittenAhead, record: bytes, now_s: float) -> bool:
        while commits:
            commits.pop()
            with failing("write", errno.ENOSPC):
                guard.commit(COST)
        return write(entry, record, now_s)

    monkeypatch.setattr(WrittenAhead, "write", commit_first)
    runtime_of(desk.client).ahead.sent(state_of(guard), 0)
    check_cost(desk)


def test_a_discarded_record_is_never_charged(desk: Desk) -> None:
    first, second = desk.send(), desk.send(cycles.usd("0.10"))
    desk.kill()
    entry = next(each for each in inspect(desk.root) if each.reservation_id == first.reservation_id)
    assert entry.id == file_name(first.reservation_id)[3:-5]
    kept = Path(by_hand.discard(entry))
    assert decode(kept.read_bytes()).actual == BOUND
    assert [each.reservation_id for each in inspect(desk.root)] == [second.reservation_id]
    with pytest.raises(FileNotFoundError):
        by_hand.discard(entry)
    with desk.connect() as client:
        client.flush(60)
    assert desk.spent == cycles.usd("0.10").amount


def test_a_record_of_a_live_process_cannot_be_discarded(desk: Desk) -> None:
    desk.send()
    desk.kill()
    (entry,) = inspect(desk.root)
    original = next(desk.first_root.glob("*/spend-*.log"))
    with pytest.raises(BlockingIOError):
        by_hand.discard(evolve(entry, path=str(original)))


def test_the_member_survives_encoding(desk: Desk) -> None:
    desk.send()
    desk.kill()
    (entry,) = inspect(desk.root)
    record = entry.decoded()
    assert record is not None
    assert (record.sent, decode(encode(record))) == (True, record)
    assert entry.to_dict()["state"] == "sent"
