"""Interrupts, forks, threads, loops and the ends of processes: who holds budget may go, the budget does not."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._flows.guard_state import GuardState
from tests.support.in_child import in_a_child

from .conftest import ACTION, Shop, World

T = cycles.tokens


def interrupt() -> None:
    """Ctrl-C, while the main thread waits for the response."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def sync_work(client: cycles.Cycles, verb: str | None = None) -> Callable[[], None]:
    def work() -> None:
        with client.reserve(T(100), action=ACTION) as guard:
            if verb == "commit":
                guard.commit(T(7))
            elif verb == "release":
                guard.release()
            else:
                guard.spend(T(7))

    return work


def async_work(client: cycles.Cycles, verb: str | None = None) -> Callable[[], None]:
    async def work() -> None:
        async with client.reserve(T(100), action=ACTION) as guard:
            if verb == "commit":
                await guard.commit(T(7))
            elif verb == "release":
                await guard.release()
            else:
                guard.spend(T(7))

    return lambda: asyncio.run(work())


WORK = pytest.mark.parametrize("work", [sync_work, async_work], ids=["sync", "async"])


@WORK
@pytest.mark.parametrize(
    ("at", "verb", "money"),
    [
        ("reserve", None, (0, 0)),
        ("commit", None, (7, 0)),
        ("commit", "commit", (7, 0)),
        ("release", "release", (0, 0)),
    ],
)
def test_an_interrupt_while_a_response_is_awaited(
    client: cycles.Cycles, shop: Shop, work: Any, at: str, verb: str | None, money: Any
) -> None:
    shop.faults.delay(at, 0.1)
    shop.on_arrival[at] = interrupt
    with pytest.raises(KeyboardInterrupt):
        work(client, verb)()
    shop.until(lambda: shop.money() == money and shop.sent(at) and (at != "reserve" or shop.sent("release")))
    assert len({request.idempotency_key for request in shop.sent(at)}) == 1


def test_an_interrupt_in_the_block_of_a_loop(client: cycles.Cycles, shop: Shop) -> None:
    async def main() -> None:
        async with client.reserve(T(100), action=ACTION) as guard:
            guard.spend(T(7))
            asyncio.get_running_loop().call_soon(interrupt)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    shop.until(lambda: shop.money() == (7, 0))


def test_an_interrupt_while_waiting_for_budget(client: cycles.Cycles, shop: Shop) -> None:
    def interrupt_the_wait() -> None:
        shop.arrivals.wait_for("reserve")
        interrupt()

    reservation = client.reserve(T(2_000_000), action=ACTION, wait=600)
    thread = threading.Thread(target=interrupt_the_wait)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        reservation.acquire()
    thread.join()
    assert shop.money() == (0, 0)


# --- forks --------------------------------------------------------------------------------------------------------

FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@FORKS
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("verb", ["commit", "release", "extend", "detach", "spend"])
def test_a_child_cannot_touch_its_parents_guard(client: cycles.Cycles, shop: Shop, kind: str, verb: str) -> None:
    world = World(kind, client)
    guard = asyncio.run(world.acquire(world.reserve()))
    args = (T(1),) if verb in ("commit", "spend") else ()

    def touch() -> None:
        asyncio.run(world.get(getattr(guard, verb)(*args)))

    said = in_a_child(touch)
    assert said.startswith("InvalidRequestError: ")
    assert "parent" in said
    assert (guard.state, shop.operations) == ("active", ["reserve"])
    asyncio.run(world.get(guard.release()))


@FORKS
def test_a_child_that_leaves_its_parents_block_settles_nothing(client: cycles.Cycles, shop: Shop) -> None:
    def leave() -> Any:
        guard.__exit__(None, None, None)
        return guard.reservation_id

    with client.reserve(T(100), action=ACTION) as guard:
        guard.spend(T(7))
        assert in_a_child(leave) == guard.reservation_id
        assert shop.operations == ["reserve"]
        assert guard.state == "active"
    assert shop.money() == (7, 0)


@FORKS
@pytest.mark.parametrize("work", [sync_work, async_work], ids=["sync", "async"])
def test_a_child_works_separately_and_the_parent_continues(client: cycles.Cycles, shop: Shop, work: Any) -> None:
    sync_work(client)()
    async_work(client)()
    with client.reserve(T(100), action=ACTION) as guard:
        assert in_a_child(work(client)) is None
        assert shop.money() == (21, 100)
        guard.extend()
        guard.spend(T(7))
    assert shop.money() == (28, 0)


@FORKS
def test_a_child_forked_from_a_loop_works_in_its_own(client: cycles.Cycles, shop: Shop) -> None:
    async def main() -> Any:
        async with client.reserve(T(100), action=ACTION) as guard:
            said = in_a_child(sync_work(client))
            guard.spend(T(7))
            return said

    assert asyncio.run(main()) is None
    assert shop.money() == (14, 0)


# --- loops and threads --------------------------------------------------------------------------------------------


def test_one_client_serves_loop_after_loop(client: cycles.Cycles, shop: Shop) -> None:
    for _ in range(5):
        async_work(client)()
        sync_work(client)()
    assert shop.money() == (70, 0)


def test_sync_code_beside_a_running_loop(client: cycles.Cycles, shop: Shop) -> None:
    async def main() -> None:
        async with client.reserve(T(100), action=ACTION) as outer:
            sync_work(client)()
            await asyncio.to_thread(sync_work(client))
            outer.spend(T(7))

    asyncio.run(main())
    assert shop.money() == (21, 0)


def test_a_loop_per_thread_and_plain_threads(client: cycles.Cycles, shop: Shop) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(work(client)) for _ in range(12) for work in (sync_work, async_work)]
    for job in jobs:
        job.result()
    assert shop.money() == (24 * 7, 0)


# --- processes ----------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, json, sys
import cycles
client = cycles.Cycles(**json.loads(sys.argv[1]))
"""


def child(shop: Shop, script: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    wanted = {**shop.settings(**settings)}
    wanted["journal_dir"] = str(wanted["journal_dir"])
    command = [sys.executable, "-W", "error", "-c", CHILD + script, json.dumps(wanted)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])


def test_a_process_that_ends_in_the_middle_of_its_block(shop: Shop) -> None:
    done = child(
        shop,
        "with client.reserve(cycles.tokens(100), action=('a', 'b')) as guard:\n"
        "    guard.spend(cycles.tokens(7))\n"
        "    sys.exit(3)\n",
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert shop.money() == (7, 0)


def test_a_loop_that_ends_with_a_task_in_its_block(shop: Shop) -> None:
    done = child(
        shop,
        "async def work():\n"
        "    async with client.reserve(cycles.tokens(100), action=('a', 'b')) as guard:\n"
        "        guard.spend(cycles.tokens(7))\n"
        "        ready.set()\n"
        "        await asyncio.Event().wait()\n"
        "async def main():\n"
        "    global ready, task\n"
        "    ready = asyncio.Event()\n"
        "    task = asyncio.create_task(work())\n"
        "    await ready.wait()\n"
        "asyncio.run(main())\n",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert shop.money() == (7, 0)


def test_a_process_that_ends_with_a_settlement_pending(shop: Shop) -> None:
    shop.faults.status("commit", 503)
    done = child(
        shop,
        "guard = client.reserve(cycles.tokens(100), action=('a', 'b')).acquire()\n"
        "print(guard.commit(cycles.tokens(7)).status)\n",
        retry_initial_delay=30.0,
    )
    assert (done.returncode, done.stdout) == (0, "pending\n")
    assert shop.money() == (7, 0)


# --- between an answer and the guard ------------------------------------------------------------------------------


@WORK
def test_an_interrupt_just_after_the_response_to_the_reserve(client: cycles.Cycles, shop: Shop, work: Any) -> None:
    """Ctrl-C comes in an observer: the response is there, the guard is not yet."""
    client.on_event(strike(cycles.events.Reserved))
    with pytest.raises(KeyboardInterrupt):
        work(client)()
    shop.until(lambda: shop.money() == (0, 0) and shop.sent("release"))


@WORK
def test_an_interrupt_just_after_the_response_to_the_commit(client: cycles.Cycles, shop: Shop, work: Any) -> None:
    client.on_event(strike(cycles.events.Settled))
    with pytest.raises(KeyboardInterrupt):
        work(client, "commit")()
    client.flush(5)
    assert shop.money() == (7, 0)
    assert client.pending() == []
    assert not shop.sent("release")


@WORK
@pytest.mark.parametrize(
    ("verb", "money"), [("commit", (7, 0)), (None, (7, 0)), ("release", (0, 0))], ids=["commit", "end", "release"]
)
def test_an_interrupt_just_after_a_guard_was_claimed(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch, work: Any, verb: str | None, money: Any
) -> None:
    """No other caller can end the guard any more, and nothing has been sent: the smallest gap there is."""
    claim = GuardState.claim

    def claim_and_die(self: GuardState, *args: Any) -> bool:
        monkeypatch.undo()
        claim(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(GuardState, "claim", claim_and_die)
    with pytest.raises(KeyboardInterrupt):
        work(client, verb)()
    shop.until(lambda: shop.money() == money and (shop.sent("commit") or shop.sent("release")))
    assert len(shop.sent("commit") + shop.sent("release")) == 1


@WORK
def test_an_interrupt_before_a_block_could_begin_to_end(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch, work: Any
) -> None:
    """Nothing holds on to the guard then, so that it is dropped, and settled as such."""

    def die(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(cycles.Guard, "end", die)
    monkeypatch.setattr(cycles.AsyncGuard, "_loss", die)
    with pytest.warns(ResourceWarning, match="dropped"):
        interrupted(work(client))
    shop.until(lambda: shop.money() == (7, 0) and shop.bodies("commit"))
    assert shop.bodies("commit")[0]["metadata"] == {"outcome": "dropped"}


def interrupted(work: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    del caught
    gc.collect()


def strike(kind: type[Any]) -> Callable[[Any], None]:
    """An observer that is interrupted the first time it gets such an event."""
    struck: list[Any] = []

    def observer(event: Any) -> None:
        if isinstance(event, kind) and not struck:
            struck.append(event)
            raise KeyboardInterrupt

    return observer
