"""The journal's thread: batches, few wake-ups, and no lost record, in any order of shutdown."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from types import SimpleNamespace

import attrs
import pytest

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome
from cycles._drivers.journal import writer as module
from cycles._drivers.journal.loop_writer import LoopWriter
from cycles._drivers.journal.writer import Job, JournalWriter
from tests.support.points import run_at
from tests.support.waiting import until

SAVED, FAILED, HELD_BACK = PutResult.SAVED, PutResult.FAILED, PutResult.HELD_BACK


def record(number: int) -> Record:
    return Record(reservation_id=f"rsv-{number}", base_url="http://x")


def on_loop(writer: JournalWriter) -> LoopWriter:
    return LoopWriter(writer, asyncio.get_running_loop())


class Files:
    """What would be on disk, and from which thread; a gate can hold the first write up."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.log: list[str] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.changed = threading.Condition()

    def put(self, record: Record) -> PutResult:
        assert self.gate.wait(60)
        self._note("save", record)
        self.there.append(record.reservation_id)
        return SAVED

    def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        self.there.remove(record.reservation_id)
        self._note("forget", record)

    def _note(self, what: str, record: Record) -> None:
        with self.changed:
            self.threads.add(threading.current_thread().name)
            self.log.append(f"{what} {record.reservation_id}")
            self.changed.notify_all()

    def wait_for(self, *entries: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(entries) <= set(self.log), 60)


def test_file_work_is_done_on_another_thread_in_order() -> None:
    async def main() -> None:
        for number in range(3):
            assert await on_loop(journal_writer).put(record(number)) is SAVED
            await on_loop(journal_writer).finish(record(number), None)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()
    assert files.threads == {"cycles-journal"}
    assert files.there == []
    assert [entry for entry in files.log if entry.startswith("save")] == ["save rsv-0", "save rsv-1", "save rsv-2"]


def test_saves_that_gather_during_a_write_wake_the_loop_once() -> None:
    async def main() -> None:
        loop, words = asyncio.get_running_loop(), []
        tell = loop.call_soon_threadsafe

        def counted(*args: object) -> object:
            words.append(args)
            return tell(*args)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        files.gate.clear()
        saves = [asyncio.ensure_future(on_loop(journal_writer).put(record(number))) for number in range(50)]
        await asyncio.sleep(0)
        files.gate.set()
        assert await asyncio.gather(*saves) == [SAVED] * 50
        assert len(words) <= 2

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()


def test_jobs_of_several_tasks_in_one_iteration_wake_the_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    files, woken = Files(), []
    journal_writer = JournalWriter(files.put, files.finish)
    wake = JournalWriter.wake

    def counted(writer: JournalWriter) -> None:
        woken.append(len(writer._jobs))
        wake(writer)

    async def main() -> None:
        writer = on_loop(journal_writer)
        files.gate.clear()  # the next jobs gather, so the thread knows that several tasks are at work
        saves = [asyncio.ensure_future(writer.put(record(number))) for number in range(3)]
        await asyncio.sleep(0)
        files.gate.set()
        await asyncio.gather(*saves)
        monkeypatch.setattr(JournalWriter, "wake", counted)
        await asyncio.gather(*(writer.finish(record(number), None) for number in range(3)))

    asyncio.run(main())
    journal_writer.close()
    assert woken == [3]
    assert files.there == []


def test_a_record_is_deleted_before_the_waiter_continues() -> None:
    async def main() -> None:
        await on_loop(journal_writer).put(record(1))
        assert files.there == ["rsv-1"]
        await on_loop(journal_writer).finish(record(1), None)
        assert files.there == []

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()


def test_a_bug_is_raised_in_the_task_that_waits_and_the_thread_continues() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="not in list"):  # of these files: the record is not there
            await on_loop(journal_writer).finish(record(1), None)
        assert await on_loop(journal_writer).put(record(2)) is SAVED

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()


def test_a_record_that_is_saved_is_not_kept() -> None:
    """The thread lives as long as its client, which may settle millions of records."""

    async def main() -> None:
        first = record(1)
        kept = weakref.ref(first)
        await on_loop(journal_writer).put(first)
        del first
        await on_loop(journal_writer).put(record(2))
        gc.collect()
        assert kept() is None

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()


def test_one_thread_serves_slow_settlements(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)

    async def main() -> None:
        for number in range(5):
            await on_loop(journal_writer).put(record(number))
            await on_loop(journal_writer).finish(record(number), None)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()
    assert started.count("cycles-journal") == 1


def test_another_thread_comes_where_the_last_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.0)

    async def main() -> None:
        for number in range(200):
            assert await asyncio.wait_for(on_loop(journal_writer).put(record(number)), 60)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()
    assert len(files.there) == 200


def test_a_job_that_comes_at_any_point_of_the_threads_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    threads: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))

    async def main(number: int) -> bool:
        def add() -> None:
            journal_writer.add(Job(journal_writer.put, record(2), asyncio.get_running_loop().create_future()))
            journal_writer.wake()

        files = Files()
        journal_writer = JournalWriter(files.put, files.finish)
        first = asyncio.ensure_future(on_loop(journal_writer).put(record(1)))
        await asyncio.sleep(0)
        more = run_at("/cycles/_drivers/journal/writer", number, add, threads.pop().run)
        while threads:
            threads.pop().run()
        assert files.there == (["rsv-1", "rsv-2"] if more else ["rsv-1"]), number
        assert await first is SAVED
        return more

    ends = itertools.takewhile(lambda number: asyncio.run(main(number)), itertools.count())
    assert len(list(ends)) > 20


def test_jobs_around_records_that_are_saved_together_keep_their_order() -> None:
    def put_many(records: list[Record]) -> list[PutResult]:
        return [files.put(each) for each in records]

    async def main() -> None:
        mine = on_loop(journal_writer)
        assert await mine.put(record(0)) is SAVED
        files.gate.clear()
        jobs = [mine.put(record(1)), mine.put(record(2)), mine.finish(record(0), None), mine.put(record(3))]
        tasks = [asyncio.ensure_future(job) for job in jobs]
        await asyncio.sleep(0)
        files.gate.set()
        await asyncio.gather(*tasks)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish, put_many)
    asyncio.run(main())
    journal_writer.close()
    assert files.log == ["save rsv-0", "save rsv-1", "save rsv-2", "forget rsv-0", "save rsv-3"]


def test_a_cancelled_waiter_does_not_keep_its_record_from_disk() -> None:
    async def main() -> None:
        files.gate.clear()
        task = asyncio.ensure_future(on_loop(journal_writer).put(record(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        files.gate.set()

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(main())
    journal_writer.close()
    assert files.there == ["rsv-1"]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_a_cancelled_waiter_keeps_no_other_one_waiting(cancelled: int) -> None:
    async def main() -> list[PutResult]:
        files.gate.clear()
        tasks = [asyncio.ensure_future(on_loop(journal_writer).put(record(number))) for number in range(3)]
        await asyncio.sleep(0)
        tasks.pop(cancelled).cancel()
        files.gate.set()
        async with asyncio.timeout(60):
            return await asyncio.gather(*tasks)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    assert asyncio.run(main()) == [SAVED, SAVED]
    journal_writer.close()
    assert files.there == ["rsv-0", "rsv-1", "rsv-2"]


def test_a_loop_that_ends_first_disturbs_no_other() -> None:
    async def leave() -> None:
        files.gate.clear()
        task = asyncio.ensure_future(on_loop(journal_writer).put(record(1)))
        await asyncio.sleep(0)
        assert not task.done()

    async def stay() -> PutResult:
        files.gate.set()
        return await on_loop(journal_writer).put(record(2))

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    asyncio.run(leave())
    assert asyncio.run(stay())
    journal_writer.close()
    assert files.there == ["rsv-1", "rsv-2"]


def test_a_bug_in_saving_is_raised_only_in_the_waiting_caller() -> None:
    def put(record: Record) -> PutResult:
        if record.reservation_id == "rsv-1":
            raise ZeroDivisionError
        return SAVED

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await on_loop(journal_writer).put(record(1))
        assert await on_loop(journal_writer).put(record(2)) is SAVED

    journal_writer = JournalWriter(put, lambda record, result: None)
    asyncio.run(main())
    journal_writer.close()


def test_a_bug_in_saving_together_is_raised_in_each_waiting_caller() -> None:
    def put_many(records: list[Record]) -> list[PutResult]:
        assert files.gate.wait(60)
        raise ZeroDivisionError

    async def main() -> list[object]:
        files.gate.clear()
        tasks = [asyncio.ensure_future(on_loop(journal_writer).put(record(number))) for number in range(4)]
        await asyncio.sleep(0)
        files.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish, put_many)
    assert [type(each) for each in asyncio.run(main())] == [ZeroDivisionError] * 4
    journal_writer.close()


def test_where_no_thread_can_be_had_the_loop_writes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    async def main() -> None:
        assert await on_loop(journal_writer).put(record(1)) is SAVED
        await on_loop(journal_writer).finish(record(1), None)

    files = Files()
    journal_writer = JournalWriter(files.put, files.finish)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    asyncio.run(main())
    assert files.log == ["save rsv-1", "forget rsv-1"]
    journal_writer.close()


def virtual_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, in seconds, by which the writer measures how long a write has taken."""
    now_s = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    return now_s


@pytest.mark.parametrize("ends", [False, True], ids=["hangs", "ends in time"])
def test_a_close_does_what_is_left_unless_the_file_system_hangs(ends: bool) -> None:
    """The closing thread would hang at the next record, too."""
    files, begun, main, done_here = Files(), threading.Event(), threading.current_thread(), list[Record]()
    files.gate.clear()

    def put(record: Record) -> PutResult:
        begun.set()
        if threading.current_thread() is main:
            done_here.append(record)
            return FAILED
        return files.put(record)

    journal_writer, loop = JournalWriter(put, files.finish), asyncio.new_event_loop()
    for number in range(2):
        journal_writer.add(Job(put, record(number), loop.create_future()))
    journal_writer.wake()
    assert begun.wait(60)
    if ends:
        files.gate.set()
    journal_writer.close(60 if ends else 0.001)
    assert (done_here, files.log) == ([], ["save rsv-0", "save rsv-1"] if ends else [])
    files.gate.set()
    files.wait_for("save rsv-0", "save rsv-1")
    loop.close()


def test_tasks_continue_without_their_records_if_the_file_system_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.02)
    now_s = virtual_time(monkeypatch)
    files, gate = Files(), threading.Event()

    def put(record: Record) -> PutResult:
        if record.reservation_id == "rsv-0":
            now_s[0] += 1.0
            assert gate.wait(60)
        return files.put(record)

    async def main() -> list[PutResult]:
        found = list(await asyncio.gather(*(on_loop(journal_writer).put(record(number)) for number in range(3))))
        found.append(await on_loop(journal_writer).put(record(3)))
        gate.set()
        await asyncio.to_thread(files.wait_for, "save rsv-0")
        return found

    journal_writer = JournalWriter(put, files.finish)
    # The two that were taken together with the first one are in its thread, or in the next one.
    first, *_, last = asyncio.run(main())
    assert (first, last) == (FAILED, SAVED)
    journal_writer.close()


@pytest.mark.parametrize(
    ("left", "result"),
    [
        (record(0), FAILED),
        # The journal may have the commit that this event replaces; sent too, both would be charged.
        (attrs.evolve(record(0), mode="event", commit_body={}, event_fallback_body={}), HELD_BACK),
    ],
    ids=["commit", "event"],
)
def test_a_file_system_that_hangs_is_noticed_by_a_later_look_too(
    monkeypatch: pytest.MonkeyPatch, left: Record, result: PutResult
) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.001)
    looks, gate = itertools.count(), threading.Event()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1000.0 if next(looks) < 4 else 2000.0))

    def put(record: Record) -> PutResult:
        assert gate.wait(60)
        return SAVED

    async def main() -> PutResult:
        async with asyncio.timeout(60):
            found = await on_loop(journal_writer).put(left)
        gate.set()
        return found

    journal_writer = JournalWriter(put, lambda record, result: None)
    assert asyncio.run(main()) is result
    journal_writer.close()


def test_only_a_record_can_be_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that was saved long ago is not, and other work in the thread may take its time."""
    now_s = virtual_time(monkeypatch)

    def is_stuck() -> bool:
        now_s[0] += 100.0
        return journal_writer.replace_if_stuck()

    async def main() -> tuple[PutResult, bool, bool]:
        writer = on_loop(journal_writer)
        saved = await asyncio.wait_for(writer.put(record(1)), 60)
        return saved, is_stuck(), await asyncio.wait_for(writer.run(is_stuck), 60)

    journal_writer = JournalWriter(lambda record: SAVED, lambda record, result: None)
    assert asyncio.run(main()) == (SAVED, False, False)
    journal_writer.close()


def test_a_slow_disk_and_a_long_queue_delay_tasks_but_lose_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.02)  # less than all saves take, more than each
    now_s = virtual_time(monkeypatch)
    files, slow = Files(), threading.Event()

    def put(record: Record) -> PutResult:
        now_s[0] += 0.015
        slow.wait(0.03)
        return files.put(record)

    async def main() -> list[PutResult]:
        return list(await asyncio.gather(*(on_loop(journal_writer).put(record(number)) for number in range(20))))

    journal_writer = JournalWriter(put, files.finish)
    assert asyncio.run(main()) == [SAVED] * 20
    journal_writer.close()
    assert len(files.there) == 20


def test_no_task_waits_for_a_hanging_file_that_another_task_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose records were saved in the same batch, and those behind it, continue too."""
    monkeypatch.setattr(module, "STUCK_S", 0.02)
    now_s = virtual_time(monkeypatch)
    files, hangs = Files(), threading.Event()
    files.gate.clear()

    def put(record: Record) -> PutResult:
        if record.reservation_id == "rsv-2":
            assert files.gate.wait(60)
            now_s[0] += 1.0
            assert hangs.wait(60)
        return files.put(record)

    async def main() -> None:
        saves = [asyncio.ensure_future(on_loop(journal_writer).put(record(number))) for number in range(4)]
        await asyncio.sleep(0)
        files.gate.set()
        async with asyncio.timeout(60):
            saved = await asyncio.gather(*saves)
        assert saved[:3] == [SAVED, SAVED, FAILED]  # the last one is saved by another thread, or it has waited too long
        hangs.set()

    journal_writer = JournalWriter(put, files.finish)
    asyncio.run(main())
    journal_writer.close()
    until(lambda: len(files.there) == 4)  # the file that has hung is written by a thread for which nobody waits
    assert sorted(files.there) == ["rsv-0", "rsv-1", "rsv-2", "rsv-3"]


def test_a_task_behind_a_hanging_file_whose_own_task_has_left_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.02)
    now_s = virtual_time(monkeypatch)
    begun, gate = threading.Event(), threading.Event()

    def put(record: Record) -> PutResult:
        now_s[0] += 1.0
        begun.set()
        assert gate.wait(60)
        return SAVED

    async def main() -> PutResult:
        left = asyncio.ensure_future(on_loop(journal_writer).put(record(0)))
        assert await asyncio.to_thread(begun.wait, 60)
        left.cancel()
        async with asyncio.timeout(60):
            return await on_loop(journal_writer).put(record(1))

    journal_writer = JournalWriter(put, lambda record, result: None)
    assert asyncio.run(main()) is FAILED
    gate.set()
    journal_writer.close()
