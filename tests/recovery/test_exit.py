"""Guards that are in use when the interpreter exits or the client is closed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from attrs import evolve

import cycles
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._drivers.live_guards import GuardEnds
from cycles._drivers.write_ahead import Entry
from cycles._flows.commit import ahead_record
from cycles._journal.files.spend import LARGE, SMALL, Slot, SpendLog, latest_records, left_entries
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, TENANT, Setup, end_of, journal_files
from tests.support.deadlines import Unanswered, no_thread
from tests.support.inside import runtime_of, state_of
from tests.support.points import run_at
from tests.support.waiting import hold_responses, until

ROOT = Path(__file__).parents[2]


def reserved(world: Setup) -> int:
    balance = world.server.ledger.balance(f"tenant:{TENANT}", unit="TOKENS").reserved
    return 0 if balance is None else balance.amount


def test_a_guard_in_use_at_exit_commits_its_known_spend(world: Setup) -> None:
    assert end_of(world.start(("hold", 7), leave=True)).code == 0
    assert (world.server.charged, reserved(world), world.leftovers) == (7, 0, [])


def test_a_guard_in_use_at_exit_is_released_if_nothing_was_spent(world: Setup) -> None:
    assert end_of(world.start(("hold",), leave=True)).code == 0
    assert (world.server.charged, reserved(world)) == (0, 0)
    reasons = [seen.body["reason"] for seen in world.server.seen if seen.operation == "release"]
    assert reasons == ["guard_dropped"]


def test_a_guard_that_was_dropped_just_before_the_exit_is_committed(world: Setup) -> None:
    assert end_of(world.start(("hold_local", 7), leave=True)).code == 0
    assert (world.server.charged, reserved(world)) == (7, 0)


def test_a_close_settles_a_dropped_guard_at_any_point_of_its_end(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that ends the guard stops at one point after the other, until the close has looked for it."""
    for number in range(100):
        client, ends = world.client(), Ends()
        monkeypatch.setattr("cycles._drivers.live_guards._thread", SimpleNamespace(start_new_thread=ends.hold))
        monkeypatch.setattr(GuardEnds, "running", property(ends.is_running))
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.spend(cycles.tokens(7))
        before = world.server.charged
        with pytest.warns(ResourceWarning, match="dropped"):
            del guard

        def close(client: cycles.Cycles = client, ends: Ends = ends) -> None:
            client.close()
            ends.charged = world.server.charged
            ends.was_seen.set()

        more = ends.stop_at(number, close)
        assert ends.charged - before == 7, f"point {number}: the close has returned"
        if not more:
            break
    assert 5 < number < 99


class Ends:
    """The thread that ends a dropped guard, under the control of a test."""

    def __init__(self) -> None:
        self.was_seen = threading.Event()  # the close has seen that a guard is being ended, or has returned
        self.charged = 0
        self._run: Any = None

    def hold(self, run: Any, _: tuple[()]) -> None:
        self._run = run

    def is_running(self, ends: GuardEnds) -> bool:
        running = bool(ends._running)
        if running:
            self.was_seen.set()
        return running

    def stop_at(self, number: int, close: Any) -> bool:
        """Run the end, and close the client when it has reached this point. False if it has fewer points."""
        closing = threading.Thread(target=close)

        def act() -> None:
            closing.start()
            assert self.was_seen.wait(60)

        more = run_at("/cycles/_drivers/live_guards.py", number, act, self._run)
        if not more:
            closing.start()
        closing.join()
        return more


def test_no_thread_is_needed(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.client()
    spent = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    spent.spend(cycles.tokens(7))
    dropped = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    runtime = runtime_of(client)
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    monkeypatch.setattr("threading.Thread.start", no_thread)
    with pytest.warns(ResourceWarning, match="dropped"):
        del dropped
    runtime.close_at_exit()
    assert (world.server.charged, reserved(world)) == (7, 0)
    assert spent.state == "committed"


def test_what_cannot_be_ended_is_named(world: Setup, caplog: pytest.LogCaptureFixture) -> None:
    world.server.faults.refuse("commit", times=None)
    client = world.client(flush_timeout=0.2)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(7))
    runtime_of(client).close_at_exit()
    (warning,) = [text for text in caplog.messages if "the interpreter exits before" in text]
    assert str(guard.reservation_id) in warning
    assert "7 tokens" in warning


def test_a_closed_client_reports_the_leases_of_its_guards_as_lost(world: Setup) -> None:
    seen: list[Any] = []
    client = world.client()
    client.on_event(seen.append)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    client.close()
    assert guard.state == "lost"
    (lost,) = [event for event in seen if type(event).__name__ == "LeaseLost"]
    assert lost.reservation_id == guard.reservation_id
    assert "client was closed" in lost.detail


@pytest.mark.parametrize("journal", [True, False])
def test_a_guard_in_use_at_the_close_is_ended_at_exit(world: Setup, journal: bool) -> None:
    client = world.client(journal=journal)
    spent = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    unspent = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    runtime = runtime_of(client)
    spent.spend(cycles.tokens(7))
    client.close()
    assert (world.server.charged, reserved(world)) == (0, 200)
    runtime.close_at_exit()
    assert (spent.state, unspent.state) == ("committed", "released")
    assert (world.server.charged, reserved(world)) == (7, 0)


@pytest.mark.parametrize("journal", [True, False])
def test_a_guard_that_is_dropped_after_the_close_is_ended(
    world: Setup, journal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.client(journal=journal)
    guards = [client.reserve(cycles.tokens(100), action=ACTION).acquire() for _ in range(2)]
    runtime = runtime_of(client)
    guards[0].spend(cycles.tokens(7))
    client.close()
    del guards[0]
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    del guards[0]
    runtime.close_at_exit()
    assert (world.server.charged, reserved(world)) == (7, 0)


def test_the_exit_limits_the_requests_of_guards_that_outlive_the_client(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.client(flush_timeout=0.1)
    guards = [client.reserve(cycles.tokens(100), action=ACTION).acquire() for _ in range(2)]
    runtime = runtime_of(client)
    client.close()
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    guards[0].spend(cycles.tokens(7))
    del guards[0]
    unanswered = Unanswered(runtime, monkeypatch)
    runtime.close_at_exit()
    assert len(unanswered.left_s) == 2
    assert max(unanswered.left_s) <= 0.1


def test_what_cannot_be_ended_after_the_close_is_named(world: Setup, caplog: pytest.LogCaptureFixture) -> None:
    client = world.client(journal=False, flush_timeout=0.2)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(7))
    runtime = runtime_of(client)
    client.close()
    world.server.faults.refuse("commit", times=None)
    runtime.close_at_exit()
    (warning,) = [text for text in caplog.messages if "the interpreter exits before" in text]
    assert str(guard.reservation_id) in warning
    assert "7 tokens" in warning


def test_the_exit_waits_for_a_guard_that_is_ended_in_another_thread(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, client = hold_responses(monkeypatch), world.client(journal=False)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(7))
    runtime = runtime_of(client)
    client.close()
    world.server.faults.delay("commit", PATIENCE_S)
    del guard
    world.server.wait_for("commit")

    def sleep(_: float) -> None:
        go_on.set()
        until(lambda: world.server.charged == 7)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr("cycles._drivers.live_guards.time", clock)
    runtime.close_at_exit()
    assert go_on.is_set()
    assert world.server.charged == 7


def test_a_guard_of_a_pool_that_is_in_use_at_exit_is_ended(world: Setup) -> None:
    seen: list[Any] = []
    client = world.client()
    client.on_event(seen.append)
    guard = client.pool(cycles.tokens(100), action=ACTION).reserve(cycles.tokens(10)).acquire()
    guard.spend(cycles.tokens(7))
    runtime_of(client).close_at_exit()
    (event,) = [event for event in seen if isinstance(event, cycles.events.GuardNotCommitted)]
    assert "the interpreter exits" in event.detail
    assert "its known spend is committed" in event.detail
    assert (world.server.charged, reserved(world), guard.state) == (7, 0, "committed")


def test_guards_for_which_no_time_is_left_after_the_close_are_named(
    world: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.client(flush_timeout=0.0)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(7))
    runtime = runtime_of(client)
    client.close()
    runtime.close_at_exit()
    (warning,) = [text for text in caplog.messages if "the interpreter exits before" in text]
    assert f"{guard.reservation_id} (7 tokens)" in warning
    guard.commit()


@pytest.mark.parametrize("end", ["client.close()", "del client"])
def test_a_guard_that_outlives_its_client_is_settled_when_the_interpreter_ends(end: str) -> None:
    program = f"""
import atexit, gc
import cycles
server = cycles.EmbeddedServer({{"tenant:acme": cycles.tokens(100)}})
atexit.register(lambda: print(server.spent("tenant:acme").amount))  # it runs after the hooks of the clients
reserving = dict(estimate=cycles.tokens(5), action=("a", "b"))
server.client(tenant="acme", journal=False).decide(**reserving)  # of this client, nothing is left at the exit
client = server.client(tenant="acme", journal=False)
guard = client.reserve(**reserving).acquire()
guard.spend(cycles.tokens(3))
{end}
gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "3\n"
    assert "Traceback" not in done.stderr


def test_a_client_that_is_closed_without_guards_is_done_at_exit(world: Setup) -> None:
    client = world.client()
    client.reserve(cycles.tokens(1), action=ACTION).acquire().release()
    runtime = runtime_of(client)
    client.close()
    seen = len(world.server.seen)
    runtime.close_at_exit()
    assert len(world.server.seen) == seen


# Spend that is written ahead


def test_a_killed_process_loses_no_spend(world: Setup) -> None:
    assert end_of(world.start(("hold", 7), ("die",))).killed
    assert [path.name[:6] for path in journal_files(world.root)] == ["spend-"]
    assert world.recover()["settled"] == 1
    assert (world.server.charged, reserved(world), world.leftovers) == (7, 0, [])


def test_a_record_in_the_journal_counts_and_not_its_entry(world: Setup) -> None:
    world.killed_at("commit", ("hold", 7), ("commit_held", 9), answered=True)
    assert world.recover()["settled"] == 1
    assert (world.server.charged, world.leftovers) == (9, [])


@pytest.mark.parametrize("step", ["release_held", "detach_held"])
def test_a_guard_that_was_ended_is_not_settled_again(world: Setup, step: str) -> None:
    assert end_of(world.start(("hold", 7), (step,), ("die",))).killed
    assert world.recover()["settled"] == 0
    assert (world.server.charged, world.leftovers, world.rejected) == (0, [], [])


def test_an_entry_gives_way_to_the_record_of_its_reservation(world: Setup) -> None:
    """The process died between saving the record and clearing the slot."""
    ended = end_of(world.start(("hold", 7), ("die",)))
    assert ended.killed
    (log,) = journal_files(world.root)
    with left_entries(f"{log.parent}/") as entries:
        record = decode(entries[0])
        copy = log.read_bytes()
    log.write_bytes(copy)
    amount = {"unit": "TOKENS", "amount": 9}
    later = record.with_body({**record.body, "actual": amount})
    (log.parent / file_name(record.reservation_id)).write_bytes(encode(later))
    assert world.recover()["settled"] == 1
    assert (world.server.charged, world.leftovers) == (9, [])


def test_a_kill_while_a_log_of_spend_is_made_leaves_no_file(world: Setup) -> None:
    """The start removes what the process had made, also a file of an earlier version of this SDK."""
    assert end_of(world.start(("hold", 7), ("die",))).killed
    (log,) = journal_files(world.root)
    (log.parent / "spend-0a1b2c3d4e5f6071.log.new").write_bytes(bytes(SMALL.file_bytes))
    (log.parent / "spend-1a1b2c3d4e5f6071.log.new").write_bytes(b"")
    assert world.recover()["settled"] == 1
    assert (world.server.charged, world.leftovers) == (7, [])


def test_the_entries_of_a_live_process_are_left_alone(world: Setup) -> None:
    with world.client() as living:
        guard = living.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.spend(cycles.tokens(7))
        assert world.recover()["settled"] == 0
        guard.commit()
    assert (world.server.charged, world.leftovers) == (7, [])


def entries(world: Setup) -> int:
    """Return how many guards of all processes have spend written ahead."""
    logs = [path for path in journal_files(world.root) if path.name.startswith("spend-")]
    slots = {layout.file_bytes: layout.slots for layout in (SMALL, LARGE)}
    return sum(count - log.read_bytes()[:count].count(0) for log in logs if (count := slots[log.stat().st_size]))


def test_the_spend_of_a_token_is_written_ahead_when_it_is_attached(world: Setup) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.spend(cycles.tokens(7))
        token = guard.detach()
        assert entries(world) == 0
        continued = client.attach(token).acquire()
        assert entries(world) == 1
        continued.commit()
        assert entries(world) == 0


def test_the_usage_of_a_token_is_written_ahead_when_it_is_attached(world: Setup) -> None:
    def cost(usage: cycles.Usage) -> cycles.Amount:
        return cycles.tokens(usage.tokens_output)

    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION, actual=cost).acquire()
        guard.usage.add(tokens_output=7)
        token = guard.detach()
        assert entries(world) == 0
        continued = client.attach(token, actual=cost).acquire()
        assert entries(world) == 1
        continued.release()
        assert entries(world) == 0
        unused = client.attach(
            client.reserve(cycles.tokens(1), action=ACTION).acquire().detach(), actual=cost
        ).acquire()
        assert entries(world) == 0
        unused.release()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_entry_of_a_dropped_guard_ends_when_its_record_is_saved(world: Setup) -> None:
    """Another process may settle the record long before this one ends; its entry must not be settled again then."""
    world.server.faults.refuse("commit", times=None)
    with world.client(flush_timeout=0.0) as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.spend(cycles.tokens(7))
        assert entries(world) == 1
        del guard
        client.flush(0.2)
        assert [path.suffix for path in journal_files(world.root)].count(".json") == 1
        assert entries(world) == 0


def test_a_guard_that_ends_while_its_first_spend_is_written_leaves_no_entry(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, open_slot = list[int](), SpendLog.open_slot

    def open_and_end(log: SpendLog, length: int) -> Slot | None:
        slot = open_slot(log, length)
        opened.append(length)
        guard.commit(cycles.tokens(7))  # by a signal handler, for example
        return slot

    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        monkeypatch.setattr(SpendLog, "open_slot", open_and_end)
        guard.spend(cycles.tokens(5))
        assert len(opened) == 1
        assert entries(world) == 0
    assert world.server.charged == 7


def test_a_spend_during_the_write_of_another_one_leaves_one_entry(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, open_slot = list[int](), SpendLog.open_slot

    def open_and_spend(log: SpendLog, length: int) -> Slot | None:
        slot = open_slot(log, length)
        opened.append(length)
        if len(opened) == 1:
            guard.spend(cycles.tokens(2))  # by a signal handler, for example
        return slot

    monkeypatch.setattr("cycles._drivers.write_ahead.INTERVAL_S", 0.0)
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        monkeypatch.setattr(SpendLog, "open_slot", open_and_spend)
        guard.spend(cycles.tokens(5))
        assert (len(opened), entries(world)) == (2, 1)
        guard.commit()
        assert entries(world) == 0
    assert world.server.charged == 7


def test_a_request_that_is_sent_after_its_guard_has_ended_leaves_no_entry(world: Setup) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.commit(cycles.tokens(7))
        runtime_of(client).ahead.sent(state_of(guard), 5)
        assert entries(world) == 0
    assert world.server.charged == 7


def test_the_log_is_removed_when_its_last_guard_ends_after_the_close(world: Setup) -> None:
    client = world.client()
    guards = [client.reserve(cycles.tokens(100), action=ACTION).acquire() for _ in range(2)]
    for guard in guards:
        guard.spend(cycles.tokens(7))
    client.close()
    assert entries(world) == 2
    guards[0].commit()
    assert entries(world) == 1
    guards[1].commit()
    assert (world.server.charged, journal_files(world.root)) == (14, [])


def test_what_a_guard_spends_after_the_close_is_written_ahead(world: Setup) -> None:
    client = world.client()
    first, second = (client.reserve(cycles.tokens(100), action=ACTION).acquire() for _ in range(2))
    first.spend(cycles.tokens(7))
    first.commit()
    client.close()  # it removes the log, in which no slot is in use
    second.spend(cycles.tokens(8))
    assert entries(world) == 1
    second.commit()
    assert (world.server.charged, journal_files(world.root)) == (15, [])


def test_shadow_guards_write_nothing_ahead(world: Setup) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION, shadow=True).acquire()
        guard.spend(cycles.tokens(7))
        assert journal_files(world.root) == []
        guard.release()


def test_a_loop_of_spends_writes_once_and_the_rest_after_a_second(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("cycles._drivers.write_ahead.time", SimpleNamespace(monotonic=lambda: now[0]))
    written: list[bytes] = []
    write = Slot.write

    def note(slot: Slot, record: bytes) -> bool:
        written.append(record)
        return write(slot, record)

    monkeypatch.setattr(Slot, "write", note)
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        for _ in range(50):
            guard.spend(cycles.tokens(1))
        assert [json.loads(each)["commit_body"]["actual"]["amount"] for each in written] == [1]
        now[0] += 1.0
        runtime_of(client).ahead._write_waiting()
        assert [json.loads(each)["commit_body"]["actual"]["amount"] for each in written] == [1, 50]
        key = json.loads(written[0])["commit_body"]["idempotency_key"]
        guard.commit()
    assert [seen.key for seen in world.server.settling()] == [key]


def test_spend_that_was_not_written_ahead_is_written_by_one_timer(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    clock = SimpleNamespace(monotonic=lambda: 1_000.0)
    monkeypatch.setattr("cycles._drivers.write_ahead.time", clock)
    with world.client() as client:
        guards = [client.reserve(cycles.tokens(100), action=ACTION).acquire() for _ in range(2)]
        scheduler = runtime_of(client).scheduler
        for guard in guards:
            guard.spend(cycles.tokens(1))
        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "at", lambda when_s, job, _: jobs.append((when_s, job)))
            for guard in guards * 2:
                guard.spend(cycles.tokens(1))
            ((when_s, write),) = jobs
            assert when_s == 1_001.0
            write()
            guards[0].spend(cycles.tokens(1))
            assert len(jobs) == 2
        for guard in guards:
            guard.release()


def amounts_in(root: Path, copy: Path) -> list[int]:
    """Return the amounts that the next process would find in the log of spend if this one was killed now."""
    (log,) = journal_files(root)
    copy.mkdir(exist_ok=True)
    shutil.copy(log, copy)
    with left_entries(f"{copy}/") as entries:
        return [record.actual.amount for record in latest_records(entries)]


def test_a_kill_at_any_point_of_spend_leaves_the_sum_before_or_after(
    world: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Mapped memory survives `kill -9`, so what the file has at a point is what the next process finds."""
    monkeypatch.setattr("cycles._drivers.write_ahead.INTERVAL_S", 0.0)
    copy = tmp_path / "copy"
    with world.client() as client:
        guard = client.reserve(cycles.tokens(1_000), action=ACTION).acquire()
        guard.spend(cycles.tokens(1))
        for number in range(400):
            found: list[list[int]] = []
            more = run_at(
                "/cycles/_journal/",
                number,
                lambda: found.append(amounts_in(world.root, copy)),  # noqa: B023
                lambda: guard.spend(cycles.tokens(1)),
            )
            assert amounts_in(world.root, copy) == [number + 2], "spend has returned"
            assert all(amounts in ([number + 1], [number + 2]) for amounts in found), f"point {number}: {found}"
            if not more:
                break
        assert 5 < number < 399
        guard.commit()


def test_more_guards_than_one_file_has_slots(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.client() as client:
        log = runtime_of(client).records.spend_log()
        assert log is not None
        slots = [slot for _ in range(SMALL.slots + 1) if (slot := log.open_slot()) is not None]
        assert all(slot.write(b"x") for slot in slots)
        assert len(journal_files(world.root)) == 2
        for slot in slots:
            slot.end()
        assert not slots[0].write(b"y")
        assert log.open_slot(LARGE.half_bytes) is None
        log.close()
        assert journal_files(world.root) == []


def test_large_records_and_those_that_grow_are_written_ahead(world: Setup, tmp_path: Path) -> None:
    dimensions = {f"d{n}": "x" * 250 for n in range(16)}
    with world.client() as client:
        large = client.reserve(cycles.tokens(100), action=ACTION, subject={"dimensions": dimensions}).acquire()
        grows = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        large.spend(cycles.tokens(7))
        grows.spend(cycles.tokens(5))
        runtime, entry = runtime_of(client), state_of(grows).ahead
        assert isinstance(entry, Entry)
        state_of(grows).request = evolve(state_of(grows).request, settlement_metadata={"note": "x" * 2_000})
        assert entry.write(encode(ahead_record(runtime.blocking, state_of(grows), cycles.tokens(6))), 0.0)
        for path in journal_files(world.root):
            shutil.copy(path, tmp_path)  # the originals are locked
        with left_entries(f"{tmp_path}/") as left:
            amounts = [decode(each).actual.amount for each in left]
        assert sorted(amounts) == [6, 7]
        large.commit()
        grows.commit()
        assert entries(world) == 0
    assert journal_files(world.root) == []


def problem_of_two_guards(world: Setup) -> Any:
    """Return the only problem that is reported when two guards spend and end."""
    seen: list[Any] = []
    with world.client() as client:
        client.on_event(seen.append)
        for _ in range(2):
            guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
            guard.spend(cycles.tokens(7))
            guard.commit()
    (problem,) = [event for event in seen if type(event).__name__ == "JournalProblem"]
    return problem


def test_a_record_that_is_too_large_is_reported_once(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles._journal.files.spend._LAYOUTS", (SMALL._replace(half_bytes=64),))
    problem = problem_of_two_guards(world)
    assert "is not written ahead" in problem.detail
    assert "bytes" in problem.detail


def test_a_log_of_spend_that_cannot_be_written_is_reported_once(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError("the disk is full")

    monkeypatch.setattr(Entry, "write", fail)
    problem = problem_of_two_guards(world)
    assert "spend is not written ahead (the disk is full)" in problem.detail
    assert world.server.charged == 14


def test_a_system_without_file_locks_is_reported_once(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles._journal.files.locked_file.fcntl", None)
    problem = problem_of_two_guards(world)
    assert "this system has no file locks" in problem.detail
    assert world.server.charged == 14


def test_of_two_entries_of_a_reservation_the_larger_amount_counts() -> None:
    bodies = [{"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": amount}} for amount in (3, 8, 5)]
    left = [encode(Record(reservation_id="r1", base_url="", commit_body=body)) for body in bodies]
    assert [record.actual for record in latest_records([*left, b"no record"])] == [cycles.tokens(8)]


def test_a_guard_that_was_just_dropped_is_named_too(
    world: Setup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.faults.refuse("release", times=None)
    client = world.client(flush_timeout=0.2)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    name = str(guard.reservation_id)
    with pytest.warns(ResourceWarning, match="dropped"):
        del guard
    runtime_of(client).close_at_exit()
    (warning,) = [text for text in caplog.messages if "the interpreter exits before" in text]
    assert name in warning
    assert "100 tokens" in warning


def test_the_end_of_a_guard_after_the_close_is_an_event_if_the_lease_is_over(manual_world: Setup) -> None:
    client = manual_world.client()
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(7))
    client.close()
    manual_world.server.clock.advance(3_600_000)
    assert guard.commit().status == "recorded_as_event"
    assert (manual_world.server.charged, reserved(manual_world), entries(manual_world)) == (7, 0, 0)


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(world: Setup) -> None:
    assert end_of(world.start(("hold", 7), ("fork_and_die",))).killed
    assert world.recover()["settled"] == 1
    assert world.server.charged == 7


def test_a_killed_process_loses_no_counted_usage(world: Setup) -> None:
    assert end_of(world.start(("hold_usage", 9), ("die",))).killed
    assert world.recover()["settled"] == 1
    assert (world.server.charged, reserved(world)) == (9, 0)


def test_an_actual_is_not_called_once_the_caller_has_reported_an_amount(world: Setup) -> None:
    calls: list[cycles.Amount] = []

    def count(usage: Any) -> cycles.Amount:
        calls.append(cycles.tokens(usage.tokens_output))
        return calls[-1]

    with world.client() as client, client.reserve(cycles.tokens(100), action=ACTION, actual=count) as guard:
        guard.usage.add(tokens_output=9)
        guard.spend(cycles.tokens(7))
        guard.usage.add(tokens_output=1)
    assert calls == [cycles.tokens(9)]
    assert world.server.charged == 7


def test_an_actual_that_raises_writes_nothing_ahead(world: Setup) -> None:
    def fail(usage: Any) -> cycles.Amount:
        raise ZeroDivisionError

    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION, actual=fail).acquire()
        guard.usage.add(tokens_output=9)
        assert journal_files(world.root) == []
        guard.release()
