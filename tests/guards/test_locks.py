"""A signal handler that makes a call, and a forked child, wait for no lock of interrupted code or of a thread."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.pool.chunk_record import ChunkHeader
from cycles._core.pool.sums import Totals
from cycles._core.settlement.record import decode
from cycles._drivers.io.threads import BlockingIo
from cycles._flows.io import run
from cycles._flows.signal import Signal
from cycles._http.first_use import first_use
from cycles._journal.files import locked_file
from cycles._journal.files.chunk_cells import ChunkLog
from cycles._journal.files.record_files import RecordFiles
from cycles._journal.files.spend import SpendLog, left_entries
from cycles._journal.journal import Journal
from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.store import Put
from tests.journal.kit import BASE, a_record
from tests.support.inside import runtime_of, state_of
from tests.support.points import run_at
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


def ends(work: Callable[[], object]) -> None:
    """Run some work in a thread; fail if it hangs."""
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(5 * PATIENCE_S)  # some work is done at hundreds of points, which takes minutes on a busy machine
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def at_each_point(folder: str, make: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> int:
    """Run a call once for each of its points, with a signal handler there; return how many points it has."""
    number, more = 0, True
    while more:
        act, call = make()
        more = run_at(folder, number, act, call)
        number += 1
    return number


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:.*was dropped without commit:ResourceWarning")
def test_of_two_threads_that_change_a_guard_none_overwrites_the_other() -> None:
    """A lease that is lost while another thread ends the guard does not make it active again."""
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server,
        server.client(tenant="acme", journal=False) as client,
    ):

        def make() -> tuple[Callable[[], object], Callable[[], object]]:
            guards.append(client.reserve(cycles.tokens(1), action=("a", "b")).acquire())
            state = state_of(guards[-1])
            threads.append(threading.Thread(target=partial(state.apply, "release_started")))

            def begin() -> None:
                threads[-1].start()
                threads[-1].join(0.002)  # it comes as far as the lock of this one lets it

            return begin, partial(state.apply, "lease_lost", if_accepted=True)

        guards, threads = list[cycles.Guard](), list[threading.Thread]()
        assert at_each_point("/cycles/_flows/", make) > 3
        for thread in threads[:-1]:  # the call has fewer points than it has runs
            thread.join(PATIENCE_S)
        assert {guard.state for guard in guards[:-1]} == {"released"}


def test_an_interrupted_set_wakes_every_caller_that_waits() -> None:
    number, more = 1, True  # point 0 is before the first statement, where nothing is set
    while more:
        signal, woken = Signal(), set[int]()
        for each in range(3):
            signal.on_set(partial(woken.add, each))
        with contextlib.suppress(KeyboardInterrupt):
            more = run_at("/cycles/_flows/signal", number, interrupt, signal.set)
        assert (signal.is_set, woken) == (True, {0, 1, 2}), number
        number += 1
    assert number > 10


def test_a_signal_handler_may_set_a_signal_in_the_middle_of_each_method() -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        signal, woken = Signal(), list[str]()

        def use() -> None:
            signal.on_set(lambda: woken.append("first"))
            signal.drop(print)
            signal.set()
            signal.on_set(lambda: woken.append("late"))
            assert woken == ["first", "late"]

        return signal.set, use

    ends(lambda: at_each_point("/cycles/_flows/signal", make))


def test_two_threads_that_set_a_signal_call_each_callback_once() -> None:
    for number in range(20):
        signal, called = Signal(), list[int]()
        threads = [threading.Thread(target=signal.set) for _ in range(4)]
        for each in range(50):
            signal.on_set(partial(called.append, each))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(called) == list(range(50)), number


def test_a_signal_handler_may_wake_the_wait_that_it_interrupts(client: cycles.Cycles) -> None:
    io: BlockingIo = runtime_of(client).blocking

    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        signal = Signal()
        return signal.set, lambda: run(io.wait(signal, 0.0))

    # Every point, also in the standard library, whose `threading.Event` has a lock.
    ends(lambda: at_each_point("", make))


@pytest.mark.parametrize("part", ["shared", "health"])
def test_a_signal_handler_may_record_while_its_thread_uses_a_shared_store(tmp_path: Path, part: str) -> None:
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1_000)}) as server,
        server.client(journal=True, journal_dir=tmp_path, journal_store=MemoryStore()) as client,
    ):
        handled: list[str] = []

        def use() -> None:
            client.record(cycles.usd("0.01"), action=("a", "b"))
            client.flush(0.0)

        def act() -> None:
            handled.append(client.record(cycles.usd("0.01"), action=("a", "b")).status)

        ends(lambda: at_each_point(f"/cycles/_journal/stores/{part}", lambda: (act, use)))
        assert len(handled) > 2
        assert set(handled) == {"APPLIED"}
        assert len(server.requests.of("event")) == 2 * len(handled) + 1  # each amount is sent once


def test_a_price_book_reports_each_model_once_and_a_signal_handler_may_use_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        caplog.clear()
        book = cycles.PriceBook({"m": cycles.Price("0", "10")}, default_model="m")

        def price() -> None:
            usage = cycles.Usage()
            usage.see_response("r", {"tokens_output": 1}, model="m")
            usage.see_response("s", {"web_searches": 1}, model="m")
            book.priced(usage)

        def price_once() -> None:
            price()
            assert len(caplog.records) == 1

        return price, price_once

    ends(lambda: at_each_point("/cycles/prices", make))


def test_a_signal_handler_may_add_to_the_usage_that_its_thread_changes() -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        usage, handled = cycles.Usage(), list[bool]()

        def use() -> None:
            handled.append(True)
            usage.add(tokens_output=100)
            usage.see_response("r", {"tokens_output": 7, "tokens_input": 3})
            usage.see_response("s", {"tokens_output": 1_000})
            assert usage.responses()

        def change() -> None:
            usage.add(tokens_output=10)
            usage.see_response("r", {"tokens_output": 5})
            usage.see_response("r", {"tokens_output": 6})
            if handled:  # whichever came first, each amount counts once
                assert dict(usage.counts) == {"tokens_output": 1_117, "tokens_input": 3}
                assert sum(each.counts["tokens_output"] for each in usage.responses()) == 1_117

        return use, change

    ends(lambda: at_each_point("/cycles/_core/values/usage", make))


def test_a_response_that_is_read_again_after_an_interrupt_counts_once() -> None:
    """Its counts were stored, but not in the totals: a call with a budget in tokens was charged 0."""
    counts = {"tokens_output": 7, "tokens_input": 3, "web_searches": 0}

    def interrupt() -> None:
        raise KeyboardInterrupt

    found: list[dict[str, int]] = []
    was_reached = True
    while was_reached:
        usage = cycles.Usage()
        usage.see_response("r", {"tokens_output": 5})
        with contextlib.suppress(KeyboardInterrupt):
            see = partial(usage.see_response, "r", counts)
            was_reached = run_at("/cycles/_core/values/usage", len(found), interrupt, see)
        usage.see_response("r", counts)
        found.append(dict(usage.counts))
    assert len(found) > 10
    assert found == [{"tokens_output": 7, "tokens_input": 3}] * len(found)


def test_a_signal_handler_may_reserve_while_a_reservation_of_its_thread_is_approved() -> None:
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(100)}) as server,
        server.client(approve=lambda request: True, approve_above=0.5) as client,
    ):
        client.reserve(cycles.usd(60), action=("a", "b")).acquire().commit(cycles.usd(60))

        def reserve() -> None:
            client.reserve(cycles.usd(1), action=("a", "b")).acquire().release()

        ends(lambda: at_each_point("/cycles/_flows/approval", lambda: (reserve, reserve)))
        client.reserve(cycles.usd(1), action=("a", "b")).acquire().release()  # no turn is left


def entries_in(log_folder: Path, copies: Path) -> list[bytes]:
    """Return what the next process would find in a log of spend."""
    copies.mkdir(exist_ok=True)
    for path in log_folder.rglob("spend-*.log"):
        shutil.copy(path, copies)  # the original is locked
    with left_entries(f"{copies}/") as found:
        return found


def test_a_signal_handler_may_end_the_entry_that_its_thread_writes(tmp_path: Path) -> None:
    numbers = count()

    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        folder = tmp_path / str(next(numbers))
        log, handled, written = SpendLog(lambda: f"{folder}/", sync=False), list[bool](), list[bool]()
        slot = log.open_slot()
        assert slot is not None

        def end() -> None:
            if written:  # a point of the look at the log
                return
            handled.append(True)
            assert slot.write(b"later")
            slot.end()
            other = log.open_slot()  # the same slot
            assert other is not None
            assert other.write(b"other")

        def write() -> None:
            slot.write(b"earlier")
            written.append(True)
            assert entries_in(folder, tmp_path / "copies") == ([b"other"] if handled else [b"earlier"])

        return end, write

    ends(lambda: at_each_point("/cycles/_journal/files/spend", make))


def test_a_signal_handler_may_look_for_the_folder_that_its_thread_looks_for(tmp_path: Path) -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        files = RecordFiles(tmp_path, lambda: "partition", sync=False)
        return files.locate, files.locate

    ends(lambda: at_each_point("/cycles/_journal/files/record_files", make))


def test_a_signal_handler_that_raises_in_a_first_use_blocks_no_other_thread(client: cycles.Cycles) -> None:
    def take() -> None:
        with first_use:
            pass

    number, more = 0, True
    while more:
        with contextlib.suppress(KeyboardInterrupt):
            options: Any = {"max_held": cycles.usd(1), "action": ("a", "b")}
            more = run_at("/cycles/_http/first_use", number, interrupt, partial(client.pool, **options))
        ends(take)
        number += 1
    assert number > 2


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_a_signal_handler_may_use_a_store_in_the_middle_of_each_operation(tmp_path: Path, kind: str) -> None:
    numbers = count()

    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        number = next(numbers)
        stores: Any = {"files": FileStore(tmp_path, lambda: f"p{number}", sync=False), "memory": MemoryStore()}
        store, taken = stores[kind], list[str]()
        others = [hashlib.sha256(b"%d" % each).hexdigest() for each in range(2)]
        before = FileStore(tmp_path, lambda: f"p{number}", sync=False) if kind == "files" else store
        before.put([Put(key, b"{}", None, 0) for key in others])

        def handle() -> None:
            assert store.put([Put("f" * 64, b"{}", None, 60_000)]) != [None]
            taken.extend(each.key for each in store.take(1, 60_000))

        def use() -> None:
            assert store.put([Put("e" * 64, b"{}", None, 60_000)]) != [None]
            taken.extend(each.key for each in store.take(2, 60_000))
            assert len(set(taken)) == len(taken)  # no record is taken twice
            before.close()
            store.close()

        return handle, use

    ends(lambda: at_each_point("/cycles/_journal/stores/", make))


@pytest.mark.skipif(not locked_file.is_supported(), reason="the logs of chunks need file locks")
def test_a_signal_handler_may_commit_while_the_log_of_its_chunk_is_synced(tmp_path: Path) -> None:
    header = ChunkHeader("r", BASE, "TOKENS", 100, "key", cycles.Subject(tenant="acme"), cycles.Action("a", "b"))

    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        log = ChunkLog(f"{tmp_path}/", header, sync=True)

        def commit() -> None:
            log.write(Totals(spent=2, calls=2))
            log.sync()

        def use() -> None:
            log.write(Totals(spent=1, calls=1))
            log.sync()
            log.remove()

        return commit, use

    ends(lambda: at_each_point("/cycles/_journal/files/chunk_cells", make))


def test_an_interrupted_put_blocks_no_later_one() -> None:
    number, more = 0, True
    while more:
        store = MemoryStore()
        puts, item = Combiner(store, 0.01), Put("e" * 64, b"{}", None, 60_000)
        with contextlib.suppress(KeyboardInterrupt):
            more = run_at("/cycles/_journal/stores/batch", number, interrupt, partial(puts.put, [item]))
        assert len(puts.put([Put("f" * 64, b"{}", None, 60_000)])) == 1, number
        number += 1
    assert number > 20


@pytest.mark.skipif(not locked_file.is_supported(), reason="without file locks no file is used again")
def test_a_record_whose_deletion_is_interrupted_does_not_come_back(tmp_path: Path) -> None:
    """The settlement is finished in the background, which deletes the record again."""
    number, more = 0, True
    while more:
        root = tmp_path / str(number)
        journals = [
            Journal(root, base_url=BASE, tenant="acme", api_key="key", report=lambda issue: None) for _ in range(2)
        ]
        for each in ("first", "second"):
            assert journals[0].save(a_record(each))
        journals[0].delete(a_record("first"))  # the folder has just responded: the next call is made in this thread
        with contextlib.suppress(KeyboardInterrupt):
            more = run_at("/cycles/_journal/", number, interrupt, partial(journals[0].delete, a_record("second")))
        journals[0].delete(a_record("second"))
        assert journals[1].pending() == [], number
        journals[0].close()
        number += 1
    assert number > 10


@pytest.mark.skipif(not locked_file.is_supported(), reason="without file locks no file is used again")
@pytest.mark.parametrize("operation", ["write", "remove"])
def test_a_signal_handler_that_raises_leaves_no_file_of_a_record_open(tmp_path: Path, operation: str) -> None:
    number, more = 0, True
    while more:
        files = RecordFiles(tmp_path / str(number), lambda: "partition", sync=False)
        for name in ("first", "second"):  # the folder has just responded: the next call is made in this thread
            files.write(name, b"{}")
        files.remove("first")
        call = partial(files.write, "third", b"{}") if operation == "write" else partial(files.remove, "second")
        with contextlib.suppress(KeyboardInterrupt):
            more = run_at("/cycles/_journal/files/record_files", number, interrupt, call)
        del call
        files.close()
        for path in Path(files.locate()).iterdir():  # raises if a descriptor is left, which keeps the lock
            locked_file.lock(str(path)).close()
        number += 1
    assert number > 10


@pytest.mark.parametrize("dimensions", [0, 16])
def test_what_a_signal_handler_spends_is_written_ahead_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimensions: int
) -> None:
    monkeypatch.setattr("cycles._drivers.write_ahead.INTERVAL_S", 0.0)  # later spend is written at once, too
    subject = {"dimensions": {f"d{n}": "x" * 250 for n in range(dimensions)}}
    numbers = count()
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1_000)}) as server,
        server.client(journal=True, journal_dir=tmp_path) as client,
    ):

        def make() -> tuple[Callable[[], object], Callable[[], object]]:
            guard = client.reserve(cycles.usd(1), action=("a", "b"), subject=subject).acquire()

            def spend() -> None:
                guard.spend(cycles.usd(1))
                [amount] = [decode(each).actual for each in entries_in(tmp_path, Path(f"{tmp_path}-{next(numbers)}"))]
                assert amount == guard.spent
                guard.commit()

            def handler() -> None:
                with contextlib.suppress(cycles.GuardFinalizedError):  # the commit above has begun
                    guard.spend(cycles.usd(2))

            return handler, spend

        ends(lambda: at_each_point("/cycles/_drivers/write_ahead", make))


def test_a_signal_handler_may_use_the_seen_events_that_its_thread_changes() -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        seen, handled = cycles.SeenEvents(max_entries=1), list[bool]()

        def use() -> None:
            handled.append(True)
            seen.add("evt_2")
            assert "evt_2" in seen

        def change() -> None:
            assert "evt_1" not in seen
            seen.add("evt_1")
            assert len(seen) == 1
            is_seen = "evt_1" in seen  # first: the handler may run between the two lines
            if not handled:
                assert is_seen

        return use, change

    ends(lambda: at_each_point("/cycles/webhooks", make))


def test_a_key_function_that_is_interrupted_may_be_called_again() -> None:
    server, handled = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(1)}), list[bool]()

    def key() -> str:
        if not handled:
            handled.append(True)
            client.decide(cycles.usd(1), action=("a", "b"))  # as a signal handler does
        return server.api_key_for("acme")

    with server.listen() as url, cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal=False) as client:
        ends(lambda: client.decide(cycles.usd(1), action=("a", "b")))
    assert len(server.requests.of("decide")) == 2


def test_a_signal_handler_may_cross_a_threshold_in_the_middle_of_another(client: cycles.Cycles) -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        seen: list[Any] = []
        stop = client.on_threshold(1e-9, seen.append)

        def release_one() -> None:
            client.reserve(cycles.usd(1), action=("a", "b")).acquire().release()

        def reserve() -> None:
            release_one()
            stop()
            assert seen
            assert len(seen) == len({event.scope for event in seen})  # each once

        return release_one, reserve

    ends(lambda: at_each_point("/cycles/_drivers/soft_limits", make))


FORK = """
import os, signal, sys, threading
import cycles
from cycles._flows.run_limit import RunLimit
from tests.support.points import run_at

def hold(limit):
    key = object()
    limit.add(key, cycles.usd(1))
    limit.opened(key, None)

number, more = 0, True
while more:
    limit, at_point, forked, results = RunLimit(cycles.usd(9)), threading.Event(), threading.Event(), []

    def pause():
        at_point.set()
        forked.wait(60)

    def use():
        results.append(run_at("/cycles/_flows/run_limit", number, pause, lambda: hold(limit)))
        at_point.set()

    thread = threading.Thread(target=use)
    thread.start()
    assert at_point.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs is killed
        hold(limit)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, f"the child that was forked at point {number} hung"
    forked.set()
    thread.join()
    number, more = number + 1, results[0]
assert number > 20
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_while_a_thread_changes_a_limit_does_not_hang() -> None:
    # From Python 3.12, `os.fork` warns in a process with threads; that is what this test is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr[-2000:]
