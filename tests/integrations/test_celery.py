"""Celery with a worker in this process and an in-memory broker: keys of attempts, denials, retries."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger, fund_at_second_denial

pytest.importorskip("celery")

from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject, TimeoutError as ResultTimeoutError

from cycles.integrations.celery import close_with_worker, guarded

DENIED = {"agent": "poor"}


class Tasks:
    """An application with one worker."""

    def __init__(self, client: cycles.Cycles) -> None:
        self.client = client
        self.app = Celery("tests", broker="memory://", backend="cache+memory://")
        self.id = uuid.uuid4().hex  # brokers and results in memory belong to the process
        self.app.conf.update(
            task_acks_late=True, task_default_queue=self.id, broker_transport_options={"polling_interval": 0.01}
        )

    def task(self, function: Any, *, task_options: Any = None, **options: Any) -> Any:
        function.__name__ = "work"
        wrapped = guarded(self.client, **{"estimate": cycles.tokens(10), **options})(function)
        return self.app.task(name="work", shared=False, **(task_options or {}))(wrapped)

    def run(self, *arguments: Any, timeout: float = 120, **kwargs: Any) -> Any:
        """Send a message, and return the result when a worker has finished it."""
        with start_worker(self.app, pool="solo", perform_ping_check=False, shutdown_timeout=120):
            return self.app.tasks["work"].apply_async(arguments, kwargs, task_id=self.id).get(timeout=timeout)


@pytest.fixture
def tasks(client: cycles.Cycles) -> Iterator[Tasks]:
    tasks = Tasks(client)
    yield tasks
    tasks.app.close()


def test_an_attempt_is_paid_once_under_its_own_key(tasks: Tasks, ledger: Ledger) -> None:
    tasks.task(lambda n: n, estimate=lambda n: cycles.tokens(n + 1), actual=lambda result: cycles.tokens(result))
    assert tasks.run(4) == 4
    assert [row.idempotency_key for row in ledger.rows()] == [f"celery:{tasks.id}:0"]
    assert ledger.spent() == 4


def test_thirty_messages_at_once_have_a_guard_each(tasks: Tasks, ledger: Ledger) -> None:
    guards: list[Any] = []
    tasks.task(lambda: guards.append(cycles.current_guard()))
    with start_worker(tasks.app, pool="threads", concurrency=8, perform_ping_check=False, shutdown_timeout=120):
        results = [tasks.app.tasks["work"].delay() for _ in range(30)]
        for result in results:
            result.get(timeout=300)
    assert len({guard.reservation_id for guard in guards}) == 30
    assert {row.idempotency_key for row in ledger.rows()} == {f"celery:{result.id}:0" for result in results}
    assert ledger.spent() == 300


def test_each_retry_has_its_own_reservation_also_with_autoretry(tasks: Tasks, ledger: Ledger) -> None:
    runs: list[int] = []

    def work() -> str:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("again")
        return "done"

    retrying = {"autoretry_for": (Exception,), "retry_backoff": False, "default_retry_delay": 0}
    tasks.task(work, task_options=retrying)
    assert tasks.run() == "done"
    assert [row.idempotency_key for row in ledger.rows()] == [f"celery:{tasks.id}:{n}" for n in range(3)]
    assert [row.status for row in ledger.rows()] == ["RELEASED", "RELEASED", "COMMITTED"]
    assert ledger.spent() == 10


@pytest.mark.parametrize("options", [{}, {"autoretry_for": (Exception,), "max_retries": 0}])
def test_a_denied_task_is_postponed_without_using_a_retry(
    tasks: Tasks, ledger: Ledger, server: cycles.EmbeddedServer, options: Any
) -> None:
    denied = fund_at_second_denial(tasks.client, server)
    tasks.task(lambda: "done", subject=DENIED, denied_delay_s=0.01, task_options=options)
    assert tasks.run() == "done"
    assert len(denied) == 2
    assert [row.idempotency_key for row in ledger.rows()] == [f"celery:{tasks.id}:0"]
    assert ledger.spent(scope="tenant:acme/agent:poor") == 10


@pytest.mark.parametrize("options", [{}, {"autoretry_for": (Exception,), "max_retries": 5}])
def test_a_task_that_stays_denied_fails_permanently(tasks: Tasks, ledger: Ledger, options: Any) -> None:
    ran: list[int] = []
    tasks.task(lambda: ran.append(1), subject=DENIED, denied_delay_s=0.01, max_denials=2, task_options=options)
    with pytest.raises(cycles.BudgetExceededError):
        tasks.run()
    assert not ran
    assert ledger.spent() == 0


def test_a_closed_budget_fails_immediately(tasks: Tasks, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_budget("tenant:acme/agent:poor", cycles.tokens(5), status="CLOSED")
    tasks.task(lambda: None, subject=DENIED)
    with pytest.raises(cycles.BudgetClosedError):
        tasks.run()


def test_no_server_postpones_and_nothing_is_reserved_twice(
    tasks: Tasks, ledger: Ledger, server: cycles.EmbeddedServer
) -> None:
    server.faults.drop_response("reserve", times=2)
    tasks.task(lambda: "done", denied_delay_s=0.01)
    assert tasks.run() == "done"
    assert len(ledger.rows()) == 1
    assert ledger.spent() == 10


@pytest.mark.parametrize(("on_settled", "ran", "spent"), [("raise", 0, 10), ("run", 1, 20)])
def test_an_attempt_that_was_committed_follows_on_settled(
    tasks: Tasks, ledger: Ledger, on_settled: str, ran: int, spent: int
) -> None:
    runs: list[int] = []
    tasks.client.reserve(
        cycles.tokens(10), action=("task.run", "work"), idempotency_key=f"celery:{tasks.id}:0"
    ).acquire().commit(cycles.tokens(10))

    def work() -> None:
        runs.append(1)

    tasks.task(work, on_settled=on_settled)
    if on_settled == "raise":
        with pytest.raises(cycles.ReservationNotActiveError):
            tasks.run()
    else:
        tasks.run()
    assert (len(runs), ledger.spent()) == (ran, spent)


def released(tasks: Tasks, number: int) -> None:
    """Reserve and release with the key of a redelivery."""
    key = f"celery:{tasks.id}:0#{number}" if number else f"celery:{tasks.id}:0"
    tasks.client.reserve(cycles.tokens(10), action=("task.run", "work"), idempotency_key=key).acquire().release()


def test_an_attempt_has_sixteen_keys(tasks: Tasks, ledger: Ledger) -> None:
    runs: list[int] = []
    for number in range(15):
        released(tasks, number)
    tasks.task(lambda: runs.append(1))
    tasks.run()
    assert [row.idempotency_key for row in ledger.rows()][15:] == [f"celery:{tasks.id}:0#15"]
    assert (len(runs), ledger.spent()) == (1, 10)


def test_an_attempt_whose_keys_are_all_used_fails_and_does_not_run(tasks: Tasks, ledger: Ledger) -> None:
    runs: list[int] = []
    for number in range(16):
        released(tasks, number)
    tasks.task(lambda: runs.append(1))
    with pytest.raises(cycles.CyclesError, match="all 16 keys"):
        tasks.run()
    assert (runs, ledger.spent(), len(ledger.rows())) == ([], 0, 16)


@pytest.mark.parametrize("on_settled", ["run", "skip"])
def test_a_committed_key_in_the_sequence_follows_on_settled(tasks: Tasks, ledger: Ledger, on_settled: str) -> None:
    runs: list[int] = []
    released(tasks, 0)
    key = f"celery:{tasks.id}:0#1"
    tasks.client.reserve(cycles.tokens(10), action=("task.run", "work"), idempotency_key=key).acquire().commit(
        cycles.tokens(4)
    )
    tasks.task(lambda: runs.append(1), on_settled=on_settled)
    if on_settled == "skip":
        with pytest.raises(ResultTimeoutError):  # it is acknowledged without a result
            tasks.run(timeout=1)
    else:
        tasks.run()
    assert (len(runs), ledger.spent()) == ((0, 4) if on_settled == "skip" else (1, 14))


def test_a_rejection_is_a_reject_that_autoretry_does_not_catch(tasks: Tasks) -> None:
    from cycles.integrations.celery import _Rejected

    rejected = _Rejected("no", requeue=False)
    assert isinstance(rejected, Reject)
    assert rejected.requeue is False


@pytest.mark.parametrize("call", [lambda task: task(3), lambda task: task.apply((3,)).get()], ids=["direct", "eager"])
def test_a_direct_or_eager_call_has_a_fresh_key_and_raises_a_denial(
    tasks: Tasks, ledger: Ledger, call: Callable[[Any], Any]
) -> None:
    task = tasks.task(lambda n: n, estimate=lambda n: cycles.tokens(n))
    assert [call(task), call(task)] == [3, 3]
    assert all(not str(row.idempotency_key).startswith("celery:") for row in ledger.rows())
    assert ledger.spent() == 6
    denied = guarded(tasks.client, estimate=cycles.tokens(10), subject=DENIED)(lambda n: n)
    with pytest.raises(cycles.BudgetExceededError):
        denied(3)


def test_a_worker_process_that_ends_closes_the_client(server: cycles.EmbeddedServer, tmp_path: Any) -> None:
    from celery import signals

    client = server.client(tenant="acme", journal_dir=tmp_path)
    close_with_worker(client)
    signals.worker_process_shutdown.send(sender=None, pid=1, exitcode=0)
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=("a", "b"))
    with pytest.raises(cycles.InvalidRequestError):
        close_with_worker("client")  # type: ignore[arg-type]


def test_wrong_options_are_rejected_when_the_task_is_decorated() -> None:
    with pytest.raises(cycles.InvalidRequestError):
        guarded(estimate=cycles.tokens(1), on_denied="message")
    with pytest.raises(TypeError):
        guarded(estimate=cycles.tokens(1), tll_ms=5)


def test_without_the_library_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['celery'] = None; import cycles.integrations.celery"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'cycles-sdk[celery]'" in ran.stderr
