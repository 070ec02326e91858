"""What the operations of threads pass to the parts of a client: one fake of each part."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._core.lease.planner import ExtendAttempt
from cycles._core.settlement.record import Made, Record
from cycles._drivers.io import threads as module
from cycles._drivers.io.threads import CLOCK, BlockingIo
from cycles._drivers.work.scheduler import Handle
from cycles._flows.io import Settle, run
from cycles._flows.signal import Signal


class Parts:
    """The parts of a client, and the calls that they got."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.may_reserve = True
        self.shared: Any = None
        self.short_of_threads = False
        self.scheduler = self
        wire = SimpleNamespace(check="check")
        soft_limits = SimpleNamespace(approvals=None)
        self.channel = SimpleNamespace(
            base_url="http://x", timeout_s=5.0, max_retries=2, wire=wire, send=self.send, soft_limits=soft_limits
        )
        self.reporter = SimpleNamespace(
            is_enabled_for="enabled",
            report="report",
            begin_trace="begin",
            note_heartbeat_delay=lambda *given, **more: self.calls.append(("delay", *given[:2], more)),
        )
        heartbeats: Any = self
        channel: Any = self.channel
        records: Any = self
        reporter: Any = self.reporter
        queue: Any = self
        self.rejected_hint = "hint"
        self.unsettled = "unsettled"
        self.ends = SimpleNamespace(add=lambda end: self.calls.append(("end", end(1.0))))
        self.io = BlockingIo(heartbeats, channel, records, reporter, queue)

    async def send(self, call: object, loop: object, ends_at_s: float) -> str:
        self.calls.append((call, loop, ends_at_s))
        return "outcome"

    def put(self, record: Any) -> str:
        self.calls.append(("put", record))
        return "saved"

    def finish(self, record: object, result: object) -> str:
        self.calls.append(("finish", record, result))
        return "finished"

    def latest(self, record: Record) -> Record:
        return record

    def hand_over(self, work: object, *, now: bool) -> bool:
        self.calls.append(("queue", work, now))
        return not now

    def settle_sent(self) -> None:
        self.calls.append("settle_sent")

    def record(self, reservation_id: str) -> str:
        return f"record of {reservation_id}"

    def at(self, when_s: float, job: Any, worker_pool: object) -> Any:
        self.calls.append(("at", when_s, worker_pool is self))
        self.job = job
        return "timer"

    def resume(self) -> None:
        self.calls.append("resume")


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_requests_of_a_flush_end_with_it_and_others_do_not(parts: Parts) -> None:
    call: Any = "call"
    limited = parts.io.until(7.0)
    outcomes: list[Any] = [run(limited.send(call)), run(parts.io.send(call))]
    assert outcomes == ["outcome"] * 2
    assert parts.calls == [("call", None, 7.0), ("call", None, math.inf)]


def test_what_flows_need_of_a_client_is_passed_unchanged(parts: Parts) -> None:
    io: Any = parts.io
    assert (io.check, io.is_enabled_for, io.report, io.begin_trace, io.unsettled) == (
        "check", "enabled", "report", "begin", "unsettled",
    )  # fmt: skip
    settings = io.settings
    assert (settings.base_url, settings.timeout_s, settings.max_retries) == ("http://x", 5.0, 2)
    assert run(io.pending("res-1")) == "record of res-1"
    assert run(io.put("record")) == "saved"
    assert run(io.finish("record", "result")) is None
    io.finish_later("later", "result")
    assert run(io.run(lambda: 7)) == 7
    run(io.sync(SimpleNamespace(sync=lambda: parts.calls.append("sync"))))
    assert parts.calls == [
        ("put", "record"), ("finish", "record", "result"), ("finish", "later", "result"), ("end", "finished"), "sync",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("detail", "is_saved", "puts"), [(None, False, 1), (None, True, 0), ("failed", False, 0), ("failed", True, 0)]
)
@pytest.mark.parametrize("now", [True, False])
def test_what_an_interrupted_caller_has_not_saved_is_saved_before_it_is_queued(
    parts: Parts, detail: str | None, is_saved: bool, puts: int, now: bool
) -> None:
    record = Record(reservation_id="res-1", base_url="http://x", made=Made(0.0))
    work = Settle(record, None, detail=detail, is_saved=is_saved)
    assert parts.io.hand_over(work, now=now) is not now
    assert parts.calls == [*[("put", record)] * puts, ("queue", work, now)]


def test_what_cannot_be_saved_is_queued_anyway(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "put", fail)
    work = Settle(Record(reservation_id="res-1", base_url="http://x"), None, is_saved=False)
    with pytest.raises(KeyboardInterrupt):
        parts.io.hand_over(work, now=True)
    assert parts.calls == [("queue", work, True)]


@pytest.mark.parametrize("may_reserve", [True, False])
@pytest.mark.parametrize("has_shared", [True, False])
def test_a_reservation_waits_for_what_earlier_processes_have_sent(
    parts: Parts, may_reserve: bool, has_shared: bool
) -> None:
    parts.may_reserve = may_reserve
    parts.shared = SimpleNamespace(ensure_available=lambda: parts.calls.append("available")) if has_shared else None
    run(parts.io.ensure_journal())
    assert parts.calls == [*["settle_sent"] * (not may_reserve), *["available"] * has_shared]


def test_a_function_and_a_coroutine_function_of_the_user_are_called(parts: Parts) -> None:
    seen: list[threading.Thread] = []

    def function(argument: int) -> int:
        seen.append(threading.current_thread())
        return argument + 1

    async def coroutine(argument: int) -> int:
        return function(argument)

    assert run(parts.io.call_user(function, 1)) == 2
    assert run(parts.io.call_user(coroutine, 2)) == 3
    assert run(parts.io.call_user(lambda argument: coroutine(argument), 3)) == 4
    assert seen[0] is threading.current_thread()
    assert {thread.name for thread in seen[1:]} == {"cycles-coroutine"}


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 0.001])
def test_a_wait_ends_with_its_time_and_leaves_nothing(parts: Parts, timeout_s: float) -> None:
    class Noting(Signal):
        def on_set(self, callback: Any) -> None:
            added.append(callback)
            super().on_set(callback)

        def drop(self, callback: Any) -> None:
            dropped.append(callback)
            super().drop(callback)

    added, dropped, signal = list[Any](), list[Any](), Noting()
    assert not run(parts.io.wait(signal, timeout_s))
    assert len(added) == 1
    assert dropped == added
    signal.set()
    assert run(parts.io.wait(signal, timeout_s))


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_wait_ends_with_its_signal(parts: Parts, timeout_s: float | None) -> None:
    class Setting(Signal):
        def on_set(self, callback: Any) -> None:
            super().on_set(callback)
            self.set()  # by another thread

    assert run(parts.io.wait(Setting(), timeout_s))


class Beat:
    """A heartbeat."""

    def __init__(self, step: object, timer: object = None) -> None:
        self.step = step
        self.timer = timer

    def set_timer(self, timer: object) -> None:
        self.timer = timer


@pytest.mark.parametrize("short_of_threads", [True, False])
def test_an_extend_is_sent_by_the_scheduler_when_it_is_due(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, short_of_threads: bool
) -> None:
    async def send_heartbeat(io: object, heartbeat: object) -> None:
        parts.calls.append(("sent", io is parts.io, heartbeat))

    monkeypatch.setattr(module, "send_heartbeat", send_heartbeat)
    monkeypatch.setattr(module, "report_late", lambda io, heartbeat: parts.calls.append(("late", heartbeat)))
    parts.short_of_threads = short_of_threads
    step = ExtendAttempt(2_500.0, True, 1_000.0)
    beat: Any = Beat(step)
    parts.io.schedule(beat)
    assert beat.timer == "timer"
    assert parts.calls == [("at", 2.5, True), *[("late", beat)] * short_of_threads]
    parts.calls.clear()
    parts.job()
    assert parts.calls == [("delay", beat, 2_500.0, {"blocked_loop": False}), ("sent", True, beat)]
    stopped: Any = Beat("stopped")
    parts.io.schedule(stopped)
    assert stopped.timer is None
    assert len(parts.calls) == 2


@pytest.mark.parametrize("timer", ["none", "of a loop", "of the scheduler"])
def test_a_lease_is_looked_at_if_the_scheduler_may_not_run(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, timer: str
) -> None:
    monkeypatch.setattr(module, "lose_if_over", lambda io, heartbeat: parts.calls.append(("over", heartbeat)))
    handle: Any = Handle(1.0, lambda: None, parts) if timer == "of the scheduler" else object()  # type: ignore[arg-type]
    beat: Any = None if timer == "none" else Beat("step", handle)
    parts.io.see_lease(beat)
    assert parts.calls == ["resume", ("over", beat)] * (timer == "of the scheduler")


def test_the_clocks_have_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(
        monotonic=lambda: 1.5, time_ns=lambda: 2_999_999, clock_gettime=lambda clock: 3.5 if clock == 7 else 0.0
    )
    monkeypatch.setattr(module, "time", times)
    for boot_clock, boot_ms in ((7, 3_500.0), (None, None)):
        monkeypatch.setattr(module, "_BOOTTIME", boot_clock)
        assert (CLOCK.now_ms(), CLOCK.wall_ms(), CLOCK.boot_ms()) == (1_500.0, 2, boot_ms)
