"""Dramatiq on an in-memory broker: keys of attempts, denials, redelivery, coroutine actors."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger, fund_at_second_denial

pytest.importorskip("dramatiq")

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO

from cycles.integrations.dramatiq import guarded, install

DENIED = {"agent": "poor"}


class Queue:
    """A stub broker with one worker."""

    def __init__(self, client: cycles.Cycles) -> None:
        self.broker = StubBroker()
        self.broker.emit_after("process_boot")
        self.broker.add_middleware(AsyncIO())
        install(self.broker)
        install(self.broker)
        self.client = client
        self.worker = dramatiq.Worker(self.broker, worker_threads=1, worker_timeout=10)

    def actor(self, function: Any, *, actor_options: Any = None, **options: Any) -> Any:
        wrapped = guarded(self.client, **{"estimate": cycles.tokens(10), **options})(function)
        given = {"min_backoff": 1, "max_backoff": 1, "max_retries": 3, **(actor_options or {})}
        return dramatiq.actor(broker=self.broker, **given)(wrapped)

    def run(self, actor: Any) -> None:
        """Work until the queue is empty."""
        self.worker.start()
        self.broker.join(actor.queue_name, timeout=20_000, fail_fast=False)
        self.worker.join()

    @property
    def dead(self) -> list[Any]:
        return list(self.broker.dead_letters)


@pytest.fixture
def queue(client: cycles.Cycles) -> Iterator[Queue]:
    queue = Queue(client)
    yield queue
    queue.worker.stop()
    queue.broker.close()


def test_thirty_messages_at_once_have_a_guard_each(queue: Queue, ledger: Ledger) -> None:
    guards: list[Any] = []
    queue.worker = dramatiq.Worker(queue.broker, worker_threads=8, worker_timeout=10)
    actor = queue.actor(lambda: guards.append(cycles.current_guard()), actor_options={"actor_name": "work"})
    messages = [actor.send() for _ in range(30)]
    queue.run(actor)
    assert len({guard.reservation_id for guard in guards}) == 30
    assert {row.idempotency_key for row in ledger.rows()} == {f"dramatiq:{each.message_id}:0" for each in messages}
    assert ledger.spent() == 300


def test_an_attempt_is_paid_once_under_its_own_key(queue: Queue, ledger: Ledger) -> None:
    def summarize(n: int) -> int:
        return n

    actor = queue.actor(summarize, actual=lambda result: cycles.tokens(result), estimate=lambda n: cycles.tokens(n + 1))
    message = actor.send(4)
    queue.run(actor)
    [row] = ledger.rows()
    assert row.idempotency_key == f"dramatiq:{message.message_id}:0"
    assert (row.action.kind, row.action.name, row.reserved) == ("task.run", "summarize", cycles.tokens(5))
    assert ledger.spent() == 4


def test_a_coroutine_actor_is_guarded(queue: Queue, ledger: Ledger) -> None:
    async def summarize() -> None:
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(cycles.tokens(3))

    actor = queue.actor(summarize)
    message = actor.send()
    queue.run(actor)
    assert [row.idempotency_key for row in ledger.rows()] == [f"dramatiq:{message.message_id}:0"]
    assert ledger.spent() == 3


def test_each_retry_has_its_own_reservation(queue: Queue, ledger: Ledger) -> None:
    runs: list[int] = []

    def summarize() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("again")

    actor = queue.actor(summarize)
    message = actor.send()
    queue.run(actor)
    keys = [row.idempotency_key for row in ledger.rows()]
    assert keys == [f"dramatiq:{message.message_id}:{n}" for n in range(3)]
    assert [row.status for row in ledger.rows()] == ["RELEASED", "RELEASED", "COMMITTED"]
    assert ledger.spent() == 10


def test_a_denied_task_is_postponed_and_runs_when_there_is_budget(
    queue: Queue, ledger: Ledger, server: cycles.EmbeddedServer
) -> None:
    denied = fund_at_second_denial(queue.client, server)
    actor = queue.actor(lambda: None, subject=DENIED, denied_delay_s=0.01, actor_options={"actor_name": "summarize"})
    message = actor.send()
    queue.run(actor)
    assert len(denied) == 2
    assert [row.idempotency_key for row in ledger.rows()] == [f"dramatiq:{message.message_id}:0"]
    assert ledger.spent(scope="tenant:acme/agent:poor") == 10


@pytest.mark.parametrize("options", [{"max_denials": 0}, {"on_denied": "reject"}])
def test_a_task_that_stays_denied_fails_permanently(queue: Queue, ledger: Ledger, options: Any) -> None:
    ran: list[int] = []
    actor = queue.actor(
        lambda: ran.append(1), subject=DENIED, denied_delay_s=0.01, actor_options={"actor_name": "s"}, **options
    )
    actor.send()
    queue.run(actor)
    assert not ran
    assert len(queue.dead) == 1
    assert queue.dead[0].options.get("retries", 0) == 0
    assert ledger.spent() == 0


def test_a_denial_that_is_raised_follows_the_retries_of_the_actor(queue: Queue) -> None:
    actor = queue.actor(lambda: None, subject=DENIED, on_denied="raise", actor_options={"actor_name": "s"})
    actor.send()
    queue.run(actor)
    assert queue.dead[0].options["retries"] == 4


def test_a_closed_budget_fails_immediately(queue: Queue, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget("tenant:acme/agent:poor", cycles.tokens(5), status="CLOSED")
    actor = queue.actor(lambda: None, subject=DENIED, actor_options={"actor_name": "s"})
    actor.send()
    queue.run(actor)
    assert queue.dead[0].options.get("retries", 0) == 0


def test_no_server_postpones_and_nothing_is_reserved_twice(
    queue: Queue, ledger: Ledger, server: cycles.EmbeddedServer
) -> None:
    server.faults.drop_response("reserve", times=2)
    actor = queue.actor(lambda: None, denied_delay_s=0.01, actor_options={"actor_name": "s"})
    actor.send()
    queue.run(actor)
    assert len(ledger.rows()) == 1
    assert ledger.spent() == 10


def redelivered(queue: Queue, actor: Any, before: Callable[[str], Any]) -> None:
    """Send a message whose attempt `before` has run already, up to some point."""
    message = actor.message()
    before(f"dramatiq:{message.message_id}:0")
    queue.broker.enqueue(message)
    queue.run(actor)


def held(queue: Queue, key: str, estimate: cycles.Amount | None = None) -> cycles.Guard:
    return queue.client.reserve(
        estimate or cycles.tokens(10), action=("task.run", "summarize"), idempotency_key=key
    ).acquire()


def summarize() -> None:
    """The task."""


def test_a_killed_attempt_continues_under_its_reservation_and_is_paid_once(queue: Queue, ledger: Ledger) -> None:
    killed: list[Any] = []
    redelivered(queue, queue.actor(summarize), lambda key: killed.append(held(queue, key)))
    assert [row.status for row in ledger.rows()] == ["COMMITTED"]
    assert ledger.spent() == 10
    with pytest.raises(cycles.CyclesError):
        killed[0].commit(cycles.tokens(10))


def test_an_attempt_whose_reservation_was_released_gets_the_next_key(queue: Queue, ledger: Ledger) -> None:
    keys: list[str] = []

    def before(key: str) -> None:
        keys.append(key)
        held(queue, key).release()

    redelivered(queue, queue.actor(summarize), before)
    assert [row.idempotency_key for row in ledger.rows()] == [keys[0], f"{keys[0]}#1"]
    assert ledger.spent() == 10


@pytest.mark.parametrize(
    ("on_settled", "runs", "dead", "spent"), [("raise", 0, 1, 10), ("skip", 0, 0, 10), ("run", 1, 0, 20)]
)
def test_an_attempt_that_was_committed_follows_on_settled(
    queue: Queue, ledger: Ledger, on_settled: str, runs: int, dead: int, spent: int
) -> None:
    ran: list[int] = []

    def summarize() -> None:
        ran.append(1)

    actor = queue.actor(summarize, on_settled=on_settled)
    redelivered(queue, actor, lambda key: held(queue, key).commit(cycles.tokens(10)))
    assert (len(ran), len(queue.dead), ledger.spent()) == (runs, dead, spent)


def test_another_estimate_is_handled_by_the_state_of_the_old_reservation(queue: Queue, ledger: Ledger) -> None:
    redelivered(queue, queue.actor(summarize), lambda key: held(queue, key, cycles.tokens(9)).release())
    assert [row.status for row in ledger.rows()] == ["RELEASED", "COMMITTED"]


def test_a_lease_that_another_worker_keeps_past_its_ttl_postpones(
    queue: Queue, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cycles.integrations import _queues, dramatiq as module

    later = SimpleNamespace(time=lambda: time.time() + 90)  # longer than the first ttl
    monkeypatch.setattr(module, "time", later)
    monkeypatch.setattr(_queues, "time", later)
    monkeypatch.setattr(_queues.TaskGuard, "_delay_s", lambda self, attempt, retry=None: running[0].release() and 0.01)
    running: list[Any] = []
    ran: list[int] = []

    def summarize() -> None:
        ran.append(1)

    redelivered(queue, queue.actor(summarize), lambda key: running.append(held(queue, key)))
    assert ran == [1]
    assert [row.status for row in ledger.rows()] == ["RELEASED", "COMMITTED"]


def test_an_attempt_that_cannot_be_looked_up_is_postponed(
    queue: Queue, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cycles.integrations import dramatiq as module
    from cycles.integrations._attempts import found

    looked_up: list[Any] = []

    async def find(work: Any, *, is_async: bool) -> Any:
        looked_up.append(work.key)
        if len(looked_up) == 1:
            raise cycles.TransportError("no server")
        return await found(work, is_async=is_async)

    monkeypatch.setattr("cycles.integrations._queues.found", find)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: time.time() + 90))
    actor = queue.actor(summarize, denied_delay_s=0.01)
    actor.send()
    queue.run(actor)
    assert len(looked_up) == 2
    assert len(set(looked_up)) == 1
    assert ledger.spent() == 10


def test_an_error_of_the_task_itself_is_unchanged(client: cycles.Cycles) -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise cycles.BudgetExceededError("of the task itself")  # noqa: B904 - the context is what is tested

    with pytest.raises(cycles.BudgetExceededError, match="of the task itself") as raised:
        guarded(client, estimate=cycles.tokens(1))(fail)()
    assert isinstance(raised.value.__context__, KeyError)
    assert raised.value.__suppress_context__ is False


def test_a_direct_call_has_a_fresh_key_and_raises_a_denial(client: cycles.Cycles, ledger: Ledger) -> None:
    function = guarded(client, estimate=lambda n: cycles.tokens(n))(lambda n: n)
    assert [function(3), function(3)] == [3, 3]
    assert len({row.idempotency_key for row in ledger.rows()}) == 2
    assert ledger.spent() == 6
    with pytest.raises(cycles.BudgetExceededError):
        guarded(client, estimate=cycles.tokens(10), subject=DENIED)(lambda: None)()


def test_an_estimate_of_none_guards_nothing(client: cycles.Cycles, ledger: Ledger) -> None:
    assert guarded(client, estimate=lambda: None)(lambda: 5)() == 5
    assert ledger.rows() == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"estimate": 5}, cycles.InvalidRequestError),
        ({"estimate": None}, cycles.InvalidRequestError),
        ({"on_denied": "message"}, cycles.InvalidRequestError),
        ({"on_settled": "ignore"}, cycles.InvalidRequestError),
        ({"max_denials": -1}, cycles.InvalidRequestError),
        ({"denied_delay_s": 0}, cycles.InvalidRequestError),
        ({"ttl_ms": 5}, cycles.InvalidRequestError),
        ({"tll_ms": 5}, TypeError),
    ],
)
def test_wrong_options_are_rejected_when_the_task_is_decorated(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        guarded(**{"estimate": cycles.tokens(1), **options})


def test_without_the_library_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['dramatiq'] = None; import cycles.integrations.dramatiq"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'cycles-sdk[dramatiq]'" in ran.stderr
