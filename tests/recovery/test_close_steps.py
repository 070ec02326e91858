"""The steps of a close and of an exit, in their order: each part of the client notes its calls."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

import cycles
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import FlushReport
from cycles._drivers import runtime as module
from cycles._drivers.runtime import THREADS_END_S, UNREAD, Runtime, _close_at_exit
from cycles._flows.block_end import DROPPED
from cycles._flows.io import Settle
from tests.support.inside import runtime_of


class Noting:
    """A part of a client: its calls are noted, and have these results."""

    def __init__(self, name: str, log: list[Any], **results: Any) -> None:
        self.name = name
        self.log = log
        self.results = results

    def __getattr__(self, member: str) -> Any:
        if member in ("in_use", "running"):
            return self.results[member]

        def call(*given: Any, **more: Any) -> Any:
            self.log.append((f"{self.name}.{member}", *given, *more.values()))
            return self.results.get(member)

        return call


class Closing:
    """A client whose parts are replaced, but for the runtime itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[Any] = []
        self.client = cycles.Cycles(
            base_url="http://a.test", api_key="k", tenant="acme", journal=False, flush_timeout=3.0
        )
        self.runtime = cast(Any, runtime_of(self.client))
        self.runtime.close()
        self.runtime.closed = False
        self.flushed = FlushReport(4, 0, 0)
        self.guards = self.part("guards", in_use=False, left=[])
        self.background = self.part("background", flush=self.flushed, pending=["old"], in_other_threads=[])
        self.scheduler = self.part("scheduler")
        self.ahead = self.part("ahead")
        self.channel = self.part("channel")
        self.runtime.records = SimpleNamespace(
            shared=None, directory="folder", close=lambda: self.log.append(("records.close",))
        )
        self.runtime.background.ends = Noting("ends", self.log)
        monkeypatch.setattr(self.runtime, "_reporter", Noting("reporter", self.log))
        monkeypatch.setattr("atexit.unregister", lambda hook: self.log.append(("unregister",)))

    def part(self, name: str, **results: Any) -> Noting:
        made = Noting(name, self.log, **results)
        setattr(self.runtime, name, made)
        return made


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Closing:
    return Closing(monkeypatch)


BEGIN = [("guards.end_background",), ("unregister",), ("guards.stop_heartbeats",)]
FLUSH = [("background.decline",), ("background.flush", 3.0, True)]
END = [
    ("background.close",), ("scheduler.close", THREADS_END_S), ("ahead.close",), ("records.close",), ("channel.close",),
]  # fmt: skip


def test_a_close_flushes_and_then_closes_each_part_after_those_that_use_it(closing: Closing) -> None:
    assert closing.runtime.close() == FlushReport(4, 0, 0)
    assert closing.log == [*BEGIN, *FLUSH, ("background.in_other_threads", []), *END]
    closing.log.clear()
    assert closing.runtime.close() == FlushReport()
    assert closing.log == []


def test_the_hook_of_the_exit_stays_for_guards_that_are_in_use(closing: Closing) -> None:
    closing.guards.results["in_use"] = True
    closing.runtime.close(1.5)
    assert closing.log[:4] == [BEGIN[0], BEGIN[2], FLUSH[0], ("background.flush", 1.5, True)]


def test_a_close_in_an_event_loop_does_not_wait_for_its_tasks(closing: Closing) -> None:
    async def main() -> None:
        closing.runtime.close()

    asyncio.run(main())
    assert ("background.flush", 3.0, False) in closing.log


@pytest.mark.parametrize(("pending", "others"), [(2, []), (0, ["theirs"]), (2, ["theirs", "too"])])
def test_what_is_left_is_reported_with_what_other_threads_settle(
    closing: Closing, pending: int, others: list[str]
) -> None:
    closing.background.results.update(flush=FlushReport(4, pending, 0), in_other_threads=others)
    report = FlushReport(4, pending + len(others), 0)
    assert closing.runtime.close() == report
    left = ["old"] if pending else []
    assert closing.log[5:] == [
        *[("background.pending", 0.0)] * bool(pending),
        ("background.in_other_threads", left),
        ("reporter.left_pending", report, [*left, *others], "folder"),
        *END,
    ]


def test_an_unread_journal_is_reported(closing: Closing) -> None:
    closing.background.results["flush"] = FlushReport(0, 0, 0, scan_finished=False)
    closing.runtime.close()
    assert closing.log[5:] == [("background.in_other_threads", []), ("reporter.journal_problem", UNREAD), *END]


def test_a_close_settles_pools_and_ends_a_shared_store_and_the_journals_thread(closing: Closing) -> None:
    record = Record(reservation_id="res-1", base_url="http://x")
    pools = closing.part("pools")
    closing.runtime.__dict__["_journal_writer"] = Noting("writer", closing.log)
    closing.runtime.records.shared = Noting("shared", closing.log)
    closing.runtime.close()
    names = [name for name, *_ in closing.log]
    assert names == [
        "guards.end_background", "unregister", "guards.stop_heartbeats", "pools.close", "background.decline",
        "background.flush", "pools.closed", "background.in_other_threads", "background.close", "scheduler.close",
        "shared.close", "writer.close", "ahead.close", "records.close", "channel.close",
    ]  # fmt: skip
    settle, writer = closing.log[3][1], closing.log[11]
    assert writer == ("writer.close", THREADS_END_S)
    lease: Any = "lease"
    settle(record, lease)
    assert closing.log[-1] == ("background.keep", Settle(record, lease))
    assert pools.results == {}


@pytest.mark.parametrize("has_pools", [True, False])
def test_the_exit_ends_the_guards_and_closes(
    closing: Closing, caplog: pytest.LogCaptureFixture, has_pools: bool
) -> None:
    if has_pools:
        closing.part("pools", guards=["of a pool"])
    closing.background.results["unfinished"] = {"res-1"}
    closing.runtime.close_at_exit()
    first, *rest = (each for each in closing.log if not each[0].startswith("pools."))
    assert (first, rest[0]) == (("guards.end_background",), ("guards.end_all", ["of a pool"] if has_pools else []))
    assert rest[1] == ("guards.end_background",)  # the close
    assert closing.log[-2:] == [("background.unfinished",), ("guards.left", {"res-1"})]
    assert END[-1] in closing.log
    assert caplog.messages == []


def test_the_exit_after_a_close_ends_what_was_in_use(closing: Closing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cycles")
    closing.runtime.closed = True
    closing.guards.results["left"] = ["a (3 tokens)", "b (4 tokens)"]
    closing.runtime.close_at_exit()
    assert [name for name, *_ in closing.log] == [
        "ends.finish", "guards.end_all_here", "background.unfinished", "guards.left",
    ]  # fmt: skip
    assert closing.log[:2] == [("ends.finish", 3.0), ("guards.end_all_here", 3.0)]
    assert caplog.messages == ["the interpreter exits before 2 guards could be ended: a (3 tokens), b (4 tokens)"]


@pytest.mark.parametrize(("is_own", "is_alive"), [(True, True), (False, True), (True, False)])
def test_the_exit_closes_the_clients_of_this_process(is_own: bool, is_alive: bool) -> None:
    closed: list[int] = []

    class Client:
        pid = os.getpid() + (not is_own)

        def close_at_exit(self) -> None:
            closed.append(self.pid)

    client: Any = Client()
    reference = weakref.ref(client)
    if not is_alive:
        del client
    _close_at_exit(reference)
    assert len(closed) == (is_own and is_alive)


def test_an_async_close_waits_for_the_tasks_first(closing: Closing, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))

    async def drain(timeout_s: float) -> None:
        closing.log.append(("drain", timeout_s))
        now_s[0] += 2.0

    async def aclose(loop: object) -> None:
        closing.log.append(("channel.aclose", loop is asyncio.get_running_loop()))

    monkeypatch.setattr(Runtime, "tasks", lambda runtime: SimpleNamespace(drain=drain))
    closing.runtime.channel = SimpleNamespace(aclose=aclose, close=lambda: closing.log.append(("channel.close",)))
    assert asyncio.run(closing.runtime.aclose()) == FlushReport(4, 0, 0)
    assert closing.log[0] == ("drain", 3.0)
    assert ("background.flush", 1.0, True) in closing.log  # in another thread, with what is left of the time
    assert closing.log[-2:] == [("channel.close",), ("channel.aclose", True)]


def test_guards_that_no_caller_ends_are_ended_in_other_threads(
    closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard: Any = "guard"
    ended: list[Any] = []
    monkeypatch.setattr(module, "end_later", lambda io, guard, raised: ended.append((guard, raised)))
    closing.runtime.drop_after_close(guard)
    error = ValueError()
    closing.runtime.end_later(guard, error)
    (name, first), dropped, (_, second) = closing.log
    assert (name, dropped) == ("ends.add", ("guards.dropped", "guard"))
    second(7.0)
    assert ended == [("guard", error)]
    first(7.0)
    assert closing.log[-1] == ("guards.end_here", "guard", DROPPED, 7.0)
