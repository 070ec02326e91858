"""An interrupt at any bytecode of a guarded call leaves no hold, no heartbeat and no lost amount."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import file_name
from cycles._core.settlement.schedule import RetrySchedule
from cycles._drivers.channel import Channel
from cycles._drivers.work.queue import WorkQueue
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat_state import Heartbeat
from cycles._journal.records import Records
from tests.support.inside import runtime_of
from tests.support.points import run_at
from tests.support.short import IS_SHORT

ACTION = ("test", "work")
SPENT = cycles.tokens(3)


def interrupt() -> None:
    raise KeyboardInterrupt


class Till:
    """One ledger and one client of it."""

    def __init__(self, server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
        self.server = server
        self.client = client
        self.known = 0

    def guarded(self) -> None:
        """Reserve, spend, commit."""
        with self.client.reserve(cycles.tokens(5), action=ACTION) as guard:
            guard.spend(SPENT)
            self.known += SPENT.amount  # not traced, so not interrupted
            guard.commit()

    def money(self) -> tuple[int, int]:
        """What is spent, and what is held."""
        balance = self.server.ledger.balance("tenant:acme", unit="TOKENS")
        assert balance.spent is not None
        assert balance.reserved is not None
        return balance.spent.amount, balance.reserved.amount

    def heartbeats(self) -> int:
        """How many leases are renewed. A timer of a heartbeat that has ended sends nothing."""
        table = runtime_of(self.client).scheduler.timetable
        jobs = [entry._job for _, _, entry in list(table.heap)]
        heartbeats = [job.args[0] for job in jobs if isinstance(job, partial) and isinstance(job.args[0], Heartbeat)]
        return sum(not heartbeat.ended for heartbeat in heartbeats)

    def interrupted(self, folder: str, number: int, call: Callable[[], object]) -> bool:
        """Call with an interrupt at this point, and settle. Returns False if the call has fewer points."""
        try:
            more = run_at(folder, number, interrupt, call)
        except KeyboardInterrupt:
            more = True
        assert self.client.flush(5).pending == 0
        return more


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    with (
        cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(10**9)}) as server,
        server.client(tenant="acme", journal_dir=tmp_path, retry_initial_delay=0.001, flush_timeout=0.1) as client,
    ):
        yield Till(server, client)


def check_every_point(till: Till, folder: str, call: Callable[[], object], *, step: int = 1) -> int:
    """Interrupt `call` at each point of this folder. Returns how many points there were.

    The call after each interrupt succeeds. It also removes cancelled timers, which would be points of the next call.
    """
    call()
    number, before, till.known = 0, till.money()[0], 0
    step = 6 * step if IS_SHORT else step
    while till.interrupted(f"/cycles/{folder}/", number, call):
        spent, held = till.money()
        assert held == 0, f"point {number} leaves a hold"
        assert till.heartbeats() == 0, f"point {number} leaves a heartbeat"
        assert spent - before in ({SPENT.amount} if till.known else {0, SPENT.amount}), f"point {number} loses money"
        call()
        spent, held = till.money()
        assert held == 0, f"after point {number}, a call leaves a hold"
        number, before, till.known = number + step, spent, 0
    return number


ignore_dropped = pytest.mark.filterwarnings(
    "ignore:.*was dropped without commit:ResourceWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)


@pytest.mark.parametrize(
    ("folder", "points"), [("_client", 60), ("_flows", 80), ("_drivers", 40), ("_journal", 15), ("_wire", 20)]
)
@ignore_dropped
def test_no_point_of_a_guarded_block_leaves_a_hold(till: Till, folder: str, points: int) -> None:
    assert check_every_point(till, folder, till.guarded) > points


@ignore_dropped
def test_no_point_of_the_pure_core_leaves_a_hold(till: Till) -> None:
    assert check_every_point(till, "_core", till.guarded, step=9) > 300


@pytest.mark.parametrize("folder", ["_client", "_flows"])
@ignore_dropped
def test_no_point_of_a_decorated_call_leaves_a_hold(till: Till, folder: str) -> None:
    @till.client.guarded(cycles.tokens(5), action=ACTION, actual=SPENT)
    def work() -> int:
        return 1

    assert check_every_point(till, folder, work) > 50


@pytest.mark.parametrize("folder", ["_client", "_flows"])
@ignore_dropped
def test_no_point_of_a_release_leaves_a_hold(till: Till, folder: str) -> None:
    def release() -> None:
        with till.client.reserve(cycles.tokens(5), action=ACTION) as guard:
            guard.release()

    till.client.reserve(cycles.tokens(5), action=ACTION, actual=SPENT).acquire().commit(SPENT)
    assert check_every_point(till, folder, release) > 30


@ignore_dropped
def test_an_error_that_is_kept_keeps_no_hold(till: Till) -> None:
    """The frames of the interrupt hold the guard, and a debugger or an error tracker keeps them."""
    number, kept, more = 0, [], True
    while more:
        try:
            more = run_at("/cycles/_flows/", number, interrupt, till.client.reserve(SPENT, action=ACTION).acquire)
        except KeyboardInterrupt as error:
            kept.append(error)
            till.client.flush(5)
            assert till.money()[1] == 0, number
            assert till.heartbeats() == 0, number
        number += 1
    assert len(kept) > 30
    kept.clear()  # coroutines that were interrupted before their first step warn when they are deleted


@ignore_dropped
def test_the_hold_of_a_callers_key_stays_for_the_next_run_and_no_heartbeat_renews_it(till: Till) -> None:
    number, more = 0, True
    while more:
        key = f"job-{number}"
        reservation = till.client.reserve(SPENT, action=ACTION, idempotency_key=key)
        try:
            more = run_at("/cycles/_flows/", number, interrupt, reservation.acquire)
        except KeyboardInterrupt:
            assert till.heartbeats() == 0, number
        if not more:
            break  # the call has ended, and the guard that it returned is dropped, which releases its hold
        till.client.reserve(SPENT, action=ACTION, idempotency_key=key).acquire().release()
        assert till.money()[1] == 0, number
        number += 1
    assert number > 30


@pytest.mark.parametrize("wait", [True, False])
@ignore_dropped
def test_no_point_of_a_commit_leaves_its_guard_pending(till: Till, wait: bool) -> None:
    """The caller has kept the guard, and asks for its settlement."""
    number, more = 0, True
    while more:
        guard = till.client.reserve(cycles.tokens(5), action=ACTION).acquire()
        more = till.interrupted("/cycles/_flows/", number, partial(guard.commit, SPENT, wait=wait))
        if guard.state == "active":  # it was interrupted before it began
            guard.commit(SPENT)
        assert (guard.settled(5.0).status, guard.state) == ("committed", "committed"), f"point {number}"
        number += 1
    assert number > 20


@ignore_dropped
def test_no_point_of_an_attach_leaves_a_lease_that_is_renewed_without_a_guard(till: Till) -> None:
    """Whoever is interrupted before has the token, and can attach it again."""
    number, more = 0, True
    while more:
        token = till.client.reserve(cycles.tokens(5), action=ACTION).acquire().detach()
        more = till.interrupted("/cycles/_flows/", number, till.client.attach(token).acquire)
        assert till.heartbeats() == 0, f"point {number} leaves a heartbeat"
        if till.money()[1]:
            till.client.attach(token).acquire().release()
        assert till.money() == (0, 0), f"point {number}"
        number += 1
    assert number > 20


@pytest.mark.parametrize(("folder", "step"), [("_flows", 1), ("_drivers", 1), ("_journal", 3)])
@ignore_dropped
def test_a_commit_that_is_interrupted_in_an_outage_is_on_disk(tmp_path: Path, folder: str, step: int) -> None:
    """A kill would lose it otherwise: the background saves an amount when it tries it, half an hour later."""
    with (
        cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(10**9)}) as server,
        server.client(tenant="acme", journal_dir=tmp_path, retry_initial_delay=3600.0, flush_timeout=0.0) as client,
    ):
        first, *guards = [client.reserve(SPENT, action=ACTION).acquire() for _ in range(160)]
        server.faults.status("commit", 503, times=None)
        first.commit(SPENT)
        client.flush(0.1)
        number, interrupted, more = 0, 0, True
        while more:
            guard = guards.pop()
            try:
                more = run_at(f"/cycles/{folder}/", number, interrupt, partial(guard.commit, SPENT))
            except KeyboardInterrupt:
                if guard.state != "active":
                    interrupted += 1
                    saved = list(tmp_path.rglob(file_name(str(guard.reservation_id))))
                    assert len(saved) == 1, f"point {number} loses the amount"
            number += 4 * step if IS_SHORT else step
        assert interrupted > 10
        for guard in guards:
            guard.release()


SECOND: dict[str, tuple[Any, str]] = {
    "before the record is saved again": (Records, "put"),
    "before it is queued": (WorkQueue, "hand_over"),
    "in the queue": (RetrySchedule, "add"),
    "after it is queued": (GuardState, "end_trace"),
}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("journal", [True, False])
@ignore_dropped
def test_a_second_signal_loses_no_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, journal: bool
) -> None:
    """A parent that forwards the Ctrl-C that its child has got from the terminal too sends two within a millisecond."""
    options: Any = {"journal_dir": tmp_path} if journal else {"journal": False}
    with (
        cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(10**9)}) as server,
        server.client(tenant="acme", retry_initial_delay=0.001, **options) as client,
    ):
        till = Till(server, client)
        guard = client.reserve(SPENT, action=ACTION).acquire()
        signals: list[str] = []

        def signal_at(name: str, owner: Any, method: str) -> None:
            original = getattr(owner, method)

            def signalled(*args: Any, **options: Any) -> Any:
                if name not in signals and (name == "first" or "first" in signals):
                    signals.append(name)
                    raise KeyboardInterrupt
                return original(*args, **options)

            monkeypatch.setattr(owner, method, signalled)

        signal_at("first", Channel, "send")
        signal_at("second", *SECOND[second])
        with pytest.raises(KeyboardInterrupt):
            guard.commit(SPENT)
        assert signals == ["first", "second"]
        assert client.flush(5).pending == 0
        assert till.money() == (SPENT.amount, 0)
