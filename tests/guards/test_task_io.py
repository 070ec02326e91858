"""What the operations of tasks pass to the parts of a client, and what a cancelled caller waits for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._core.lease.planner import ExtendAttempt
from cycles._core.settlement.record import Record
from cycles._drivers.io import tasks as module
from cycles._drivers.io.tasks import HEARTBEATS_IN_FLIGHT, BlockCancellation, TaskIo
from cycles._flows.guard_state import Release
from cycles._flows.io import Settle
from cycles._flows.signal import Signal
from tests.support.waiting import PATIENCE_S

from .test_blocking_io import Parts

pytestmark = pytest.mark.anyio

REGION = contextvars.ContextVar("region", default="none")


class Client(Parts):
    """The parts of a client on the running loop."""

    def __init__(self) -> None:
        super().__init__()
        self.is_pending_here = False
        self.scheduled: list[object] = []
        self.handed: list[tuple[bool, object]] = []
        self.journal: list[object] = []
        self.on_loop = asyncio.get_running_loop()
        blocking: Any = SimpleNamespace(parts=self.io.parts, schedule=self.scheduled.append)
        self.blocking = blocking
        writer: Any = SimpleNamespace(put=self.on_disk, finish=self.on_disk, run=self.run_on_disk)
        self.tasks = TaskIo(blocking, writer, self.on_loop)

    async def on_disk(self, *arguments: object) -> str:
        self.journal.append(arguments)
        return "saved"

    async def run_on_disk(self, work: Callable[[], object]) -> object:
        self.journal.append("run")
        return work()

    async def send(self, call: object, loop: object = None, ends_at_s: float = 0.0) -> str:
        self.calls.append((call, loop))
        return "outcome"

    def hand_over(self, work: object, *, now: bool, loop: object = None) -> bool:
        self.handed.append((now, loop))
        return True

    def is_worker_wanted(self, workers: int, loop: object) -> bool:
        return False

    def is_pending(self, reservation_id: str) -> bool:
        return self.is_pending_here

    def settle_sent(self) -> None:
        self.calls.append(threading.current_thread().name)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_requests_are_sent_on_the_loop_and_files_are_written_beside_it(client: Client) -> None:
    io: Any = client.tasks
    assert await io.send("call") == "outcome"
    assert client.calls == [("call", client.on_loop)]
    assert await io.put("record") == "saved"
    assert await io.finish("record", "result") is None
    await io.sync(SimpleNamespace(sync=lambda: client.journal.append("sync")))
    assert client.journal == [("record",), ("record", "result"), "run", "sync"]


@pytest.mark.parametrize("is_pending", [True, False])
async def test_only_a_pending_record_is_read(client: Client, is_pending: bool) -> None:
    client.is_pending_here = is_pending
    found: Any = await client.tasks.pending("res-1")
    assert found == ("record of res-1" if is_pending else None)
    assert client.journal == ["run"] * is_pending


@pytest.mark.parametrize("may_reserve", [True, False])
@pytest.mark.parametrize("refuses", [None, True, False])
async def test_a_reservation_waits_for_what_earlier_processes_have_sent(
    client: Client, may_reserve: bool, refuses: bool | None
) -> None:
    client.may_reserve = may_reserve
    shared = SimpleNamespace(refuses=refuses, ensure_available=lambda: client.journal.append("available"))
    client.shared = None if refuses is None else shared
    await client.tasks.ensure_journal()
    assert client.calls == ["cycles-call"] * (not may_reserve)
    assert client.journal == ["run", "available"] * (refuses is True)


async def test_a_function_of_the_user_blocks_no_loop(client: Client) -> None:
    seen: list[tuple[str, str]] = []

    def function(argument: int) -> int:
        seen.append((REGION.get(), threading.current_thread().name))
        return argument + 1

    async def coroutine(argument: int) -> int:
        return function(argument)

    class Callable:
        async def __call__(self, argument: int) -> int:
            return function(argument)

    REGION.set("here")
    uses: list[Any] = [function, coroutine, Callable(), lambda argument: coroutine(argument)]
    assert [await client.tasks.call_user(each, 1) for each in uses] == [2] * 4
    here = threading.current_thread().name
    assert seen == [("here", "cycles-call"), ("here", here), ("here", here), ("here", here)]


async def test_a_wait_ends_with_its_signal_its_time_or_its_task(client: Client) -> None:
    class Noting(Signal):
        def on_set(self, callback: Any) -> None:
            added.append(callback)
            super().on_set(callback)

        def drop(self, callback: Any) -> None:
            dropped.append(callback)
            super().drop(callback)

    added, dropped, signal = list[Any](), list[Any](), Noting()
    assert not await client.tasks.wait(signal, 0.0)
    waiting = asyncio.ensure_future(client.tasks.wait(signal))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(added) == 2
    assert dropped == added
    waiting = asyncio.ensure_future(client.tasks.wait(signal, PATIENCE_S))
    await asyncio.sleep(0)
    await asyncio.to_thread(signal.set)
    assert await waiting
    assert await client.tasks.wait(signal, 0.0)
    assert len(added) == 3


WORK = Release("res-1", "key-1", None)


@pytest.mark.parametrize(
    ("now", "where", "is_of_loop"),
    [
        (True, "caller", True),
        (False, "caller", False),
        (True, "task of the client", False),  # it is cancelled as its loop ends, which runs no further task
        (True, "thread", False),
    ],
)
async def test_the_loop_continues_what_its_callers_leave(
    client: Client, now: bool, where: str, is_of_loop: bool
) -> None:
    async def hand_over() -> None:
        assert client.tasks.hand_over(WORK, now=now)

    if where == "task of the client":
        await client.tasks.start(hand_over())
    elif where == "thread":
        await asyncio.to_thread(lambda: asyncio.run(hand_over()))
        await asyncio.to_thread(lambda: client.tasks.hand_over(WORK, now=now))
    else:
        await hand_over()
    loop = client.on_loop if is_of_loop else None
    assert client.handed == [(now, loop)] * (1 + (where == "thread"))


def settle(*, is_saved: bool) -> Settle:
    return Settle(Record(reservation_id="res-1", base_url="http://x"), None, is_saved=is_saved)


@pytest.mark.parametrize(
    ("work", "waits"), [(WORK, True), (settle(is_saved=False), True), (settle(is_saved=True), False)]
)
async def test_a_cancelled_caller_waits_for_what_it_left(
    client: Client, monkeypatch: pytest.MonkeyPatch, work: Any, waits: bool
) -> None:
    monkeypatch.setattr(module, "SETTLE_WAIT_S", PATIENCE_S)
    left: list[object] = []
    future = client.on_loop.create_future()
    begun = asyncio.Event()

    def done(work: object) -> object:
        left.append(work)
        return future

    monkeypatch.setattr(client.tasks, "_workers", SimpleNamespace(hand_over=lambda work: True, done=done))

    async def flow() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            client.tasks.hand_over(work, now=True)
            raise

    caller = asyncio.ensure_future(client.tasks.to_the_end(flow()))
    await begun.wait()
    caller.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
        caller.cancel()  # again: the wait continues
    assert caller.done() is not waits
    future.set_result(None)
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert left == [work] * waits
    # What an earlier caller left keeps no later one waiting.
    other = asyncio.ensure_future(client.tasks.to_the_end(asyncio.Event().wait()))
    await asyncio.sleep(0)
    other.cancel()
    await asyncio.wait([other])
    assert other.cancelled()


async def test_a_cancelled_caller_waits_no_longer_than_a_moment(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    now_s = [100.0]

    async def wait(futures: Any, timeout: float) -> None:
        waits.append(timeout)
        now_s[0] += 0.25
        if len(waits) == 1:
            raise asyncio.CancelledError

    this: Any = SimpleNamespace(monotonic=lambda: now_s[0])
    monkeypatch.setattr(module, "time", this)
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(**{**vars(asyncio), "wait": wait}))
    monkeypatch.setattr(client.tasks, "_left_behind", client.on_loop.create_future())

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await client.tasks.to_the_end(cancelled())
    assert waits == [0.5, 0.25]


class Beat:
    """A heartbeat on a loop."""

    def __init__(self, *, adopted: bool = False, step: object = None) -> None:
        self.adopted = adopted
        self.step = step
        self.timer: Any = None

    def set_timer(self, timer: object) -> None:
        self.timer = timer


async def test_an_extend_is_sent_by_the_loop_when_it_is_due(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Any] = []
    sent: list[object] = []
    adopted: list[object] = []

    async def send_heartbeat(io: object, heartbeat: object) -> None:
        sent.append(heartbeat)
        if heartbeat is late:
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 2.0))
    monkeypatch.setattr(module, "send_heartbeat", send_heartbeat)
    monkeypatch.setattr(module, "adopt", lambda io, heartbeat: adopted.append((io is client.blocking, heartbeat)))

    def call_later(delay_s: float, job: object, *given: object) -> str:
        timers.append((delay_s, job, given))
        return "timer"

    monkeypatch.setattr(client.on_loop, "call_later", call_later)
    attempt = ExtendAttempt(3_500.0, True, 1_000.0)
    beat, late, theirs, stopped = (
        Beat(step=attempt),
        Beat(step=ExtendAttempt(1_500.0, True, 1_000.0)),
        Beat(adopted=True, step=attempt),
        Beat(step="stopped"),
    )
    beats: list[Any] = [beat, late, theirs, stopped]
    for each in beats:
        client.tasks.schedule(each)
    assert client.scheduled == [theirs]
    assert [delay_s for delay_s, *_ in timers] == [1.5, 0.0]
    assert [each.timer for each in beats] == ["timer", "timer", None, None]
    for _, job, given in timers:
        job(*given)
    assert [each.timer for each in beats] == [None] * 4
    assert client.calls == [
        ("delay", each, due_ms, {"blocked_loop": True}) for each, due_ms in ((beat, 3_500.0), (late, 1_500.0))
    ]
    for _ in range(4):
        await asyncio.sleep(0)
    assert sent == [beat, late]
    assert adopted == []
    await client.on_loop.shutdown_asyncgens()  # the loop ends
    assert sorted(adopted, key=lambda each: each[1] is late) == [(True, beat), (True, late)]  # type: ignore[index]
    adopted.clear()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "_send_heartbeat" in repr(task):
            task.cancel()
            await asyncio.wait([task])
    assert adopted == [(True, late)]


async def test_so_many_heartbeats_are_in_flight(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    go_on = asyncio.Event()

    async def send_heartbeat(io: object, heartbeat: object) -> None:
        sent.append(heartbeat)
        await go_on.wait()

    monkeypatch.setattr(module, "send_heartbeat", send_heartbeat)
    jobs: list[Any] = []
    monkeypatch.setattr(client.on_loop, "call_later", lambda delay_s, job, *given: jobs.append((job, given)))
    for _ in range(HEARTBEATS_IN_FLIGHT + 3):
        beat: Any = Beat(step=ExtendAttempt(time.monotonic() * 1000, True, 1_000.0))
        client.tasks.schedule(beat)
    for job, given in jobs:
        job(*given)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(sent) == HEARTBEATS_IN_FLIGHT
    go_on.set()
    async with asyncio.timeout(PATIENCE_S):
        while len(sent) < HEARTBEATS_IN_FLIGHT + 3:
            await asyncio.sleep(0)


@pytest.mark.parametrize("runs", [True, False])
async def test_a_close_waits_for_the_workers_of_the_loop(client: Client, runs: bool, monkeypatch: Any) -> None:
    ended: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        ended.append(1)

    running = {asyncio.ensure_future(work())} if runs else set()
    monkeypatch.setattr(client.tasks, "_workers", SimpleNamespace(running=running))
    await client.tasks.drain(PATIENCE_S)
    assert ended == [1] * runs
    running.clear()
    await client.tasks.drain(PATIENCE_S)


@pytest.mark.parametrize("timeout_s", [0.0, 0.001])
async def test_a_close_leaves_workers_that_need_longer_than_its_time(
    client: Client, timeout_s: float, monkeypatch: Any
) -> None:
    worker = asyncio.ensure_future(asyncio.Event().wait())
    monkeypatch.setattr(client.tasks, "_workers", SimpleNamespace(running={worker}))
    async with asyncio.timeout(PATIENCE_S):
        await client.tasks.drain(timeout_s)
    assert not worker.done()
    worker.cancel()


# The cancellation of a block whose lease is lost


def guarded(**members: Any) -> Any:
    heartbeat = SimpleNamespace(lost=False, lost_error=lambda: "lost")
    base = {"heartbeat": heartbeat, "cancellation": None, "cancelled_by_lease": False, "finalized": False}
    return SimpleNamespace(**{**base, **members})


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(
    ("by_lease", "by_others", "raises", "error"),
    [
        (True, 0, True, "lost"),
        (True, 1, True, None),
        (True, 0, False, None),
        (False, 1, True, None),
    ],
)
async def test_only_the_cancellation_of_a_lost_lease_is_a_lost_lease(
    client: Client, by_lease: bool, by_others: int, raises: bool, error: str | None, before: int
) -> None:
    results: list[object] = []
    cancelling: list[int] = []

    async def block() -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(before):  # its code has caught them, and continues
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        guard = guarded()
        client.tasks.cancel_block_on_loss(guard)
        if by_lease:
            guard.cancellation.lease_lost()
        raised: BaseException = ValueError()
        try:
            await asyncio.sleep(0)
            for _ in range(by_others):
                task.cancel()
            await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            raised = cancelled if raises else raised
            if by_lease:
                for _ in range(by_others):
                    task.cancel()
        results.append(guard.cancellation.end(raised))
        cancelling.append(task.cancelling())
        assert guard.cancellation is None
        assert guard.cancelled_by_lease is by_lease

    task = asyncio.ensure_future(block())
    await asyncio.wait([task])
    if not task.cancelled():
        await task
    assert results == [error]
    assert cancelling == [before + by_others]


@pytest.mark.parametrize(
    ("members", "cancels"), [({}, True), ({"finalized": True}, False), ({"cancelled_by_lease": True}, False)]
)
@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_lease_that_is_lost_before_its_block_cancels_it(
    client: Client, members: dict[str, Any], cancels: bool, is_lost: bool
) -> None:
    guard = guarded(**members)
    guard.heartbeat.lost = is_lost
    messages: list[Any] = []

    async def block() -> None:
        made = BlockCancellation(guard, client.on_loop)
        assert guard.cancellation is made
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            messages.extend(cancelled.args)

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.ensure_future(block())
    assert messages == ["cycles: the lease was lost"] * (cancels and is_lost)
