"""What a pooled call costs in counts that are the same in every run: requests, system calls, threads, bytes, memory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.performance.conftest import ACTION, steps

E = cycles.tokens(2)
A = cycles.tokens(1)
MOST_STEPS = 250  # about 190 in Python 3.11
INPUT_AND_OUTPUT = ("posix", "_socket", "select", "_io")


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(10_000_000)}) as made:
        yield made


@pytest.fixture
def others() -> set[str]:
    """The threads that the test shares its process with: those of pytest and of earlier tests read and write."""
    return {each.name for each in Path("/proc/self/task").iterdir()} - {str(threading.get_native_id())}


@pytest.fixture
def pool(server: cycles.EmbeddedServer, tmp_path: Path) -> Iterator[Any]:
    """A pool that has opened a chunk for thousands of calls."""
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        made = client.pool(cycles.tokens(400_000), action=ACTION)
        call(made)
        yield made


def call(pool: Any) -> None:
    with pool.reserve(E) as guard:
        guard.commit(A)


def test_a_pooled_call_sends_nothing_and_starts_nothing(pool: Any, server: cycles.EmbeddedServer) -> None:
    before, threads = len(server.requests), set(threading.enumerate())
    for _ in range(1_000):
        call(pool)
    assert len(server.requests) == before
    assert set(threading.enumerate()) <= threads  # some of earlier tests may have ended


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_pooled_call_makes_no_read_and_no_write_call(others: set[str], pool: Any) -> None:
    def calls(of: Path = Path("/proc/thread-self")) -> int:
        lines = (of / "io").read_text().split("\n")
        return sum(int(line.split()[1]) for line in lines if line.startswith(("syscr", "syscw")))

    def calls_of_threads() -> dict[str, int]:
        found: dict[str, int] = {}
        for each in Path("/proc/self/task").iterdir():
            if each.name not in others and each.name != str(threading.get_native_id()):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                    found[each.name] = calls(each)
        return found

    begin = calls_of_threads()
    calls()
    idle = -calls() + calls()
    before = calls()
    for _ in range(1_000):
        call(pool)
    assert calls() - before == idle
    assert [name for name, count in calls_of_threads().items() if count != begin.get(name, 0)] == []


def test_a_pooled_call_uses_no_file_and_no_socket(pool: Any) -> None:
    used: set[str] = set()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "c_call" and getattr(argument, "__module__", None) in INPUT_AND_OUTPUT:
            used.add(argument.__name__)

    sys.setprofile(note)
    try:
        call(pool)
    finally:
        sys.setprofile(None)
    assert used == {"getpid"}, "only the check that this is not a forked child"


def test_a_pooled_call_takes_few_steps(pool: Any) -> None:
    assert steps(lambda: call(pool)) <= MOST_STEPS


def test_a_pooled_call_in_a_task_does_not_suspend(pool: Any) -> None:
    async def work() -> str:
        async with pool.reserve(E) as guard:
            settlement: cycles.Settlement = await guard.commit(A)
        return settlement.status

    async def everything() -> None:
        coroutine = work()
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        assert ended.value.value == "pooled"

    asyncio.run(everything())


@pytest.mark.parametrize("chunk", [1_000, 2_000])
def test_ten_thousand_calls_cost_two_requests_for_each_chunk(
    server: cycles.EmbeddedServer, tmp_path: Path, chunk: int
) -> None:
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        with client.pool(cycles.tokens(4 * chunk), action=ACTION, chunk=cycles.tokens(chunk)) as pool:
            for _ in range(10_000):
                call(pool)
        assert len(server.requests) <= 32 * 1_000 // chunk


def test_a_live_pooled_guard_keeps_little_memory(pool: Any) -> None:
    import tracemalloc

    def guards() -> list[Any]:
        return [pool.reserve(E).acquire() for _ in range(1_000)]

    for guard in guards():
        guard.release()
    tracemalloc.start()
    live = guards()
    kib = tracemalloc.get_traced_memory()[0] / 1024 / len(live)
    tracemalloc.stop()
    for guard in live:
        guard.release()
    assert kib <= 2.0
