"""RQ on a real Redis server, with a worker in this process: keys of attempts, denials, retries."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger, fund_at_second_denial, open_of
from tests.integrations.redis_server import redis_server

pytest.importorskip("rq")
pytest.importorskip("redis")

from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.registry import ScheduledJobRegistry

from cycles.integrations.rq import guarded

# RQ 2.6 does not close the event loop in which it runs a coroutine function.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DENIED = {"agent": "poor"}
RUNS: list[int] = []


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Jobs:
    """A queue with one worker. Functions of a module can be sent; `function` is what they call."""

    def __init__(self, client: cycles.Cycles, connection: Redis) -> None:
        self.client = client
        self.connection = connection
        self.queue = Queue("work", connection=connection)

    def guard(self, function: Any, **options: Any) -> None:
        global job_function
        job_function = guarded(self.client, **{"estimate": cycles.tokens(10), **options})(function)

    def run(self, *arguments: Any, retry: Retry | None = None) -> Any:
        """Send a job and work until it has ended, also if it is postponed."""
        job = self.queue.enqueue("tests.integrations.test_rq.run_job", *arguments, job_id="j1", retry=retry)
        for _ in range(20):
            SimpleWorker([self.queue], connection=self.connection).work(burst=True, logging_level="CRITICAL")
            scheduled = ScheduledJobRegistry(queue=self.queue)
            for job_id in scheduled.get_job_ids():
                scheduled.remove(job_id)
                self.queue._enqueue_job(self.queue.fetch_job(job_id))  # type: ignore[arg-type]
            if not self.queue.count:
                break
        job.refresh()
        return job


job_function: Any = None


def run_job(*arguments: Any) -> Any:
    return job_function(*arguments)


@pytest.fixture
def jobs(client: cycles.Cycles, url: str) -> Iterator[Jobs]:
    connection = Redis.from_url(url)
    connection.flushall()
    RUNS.clear()
    yield Jobs(client, connection)
    connection.close()


def test_thirty_jobs_have_a_guard_each(jobs: Jobs, ledger: Ledger) -> None:
    jobs.guard(lambda n: n)
    for number in range(30):
        jobs.queue.enqueue("tests.integrations.test_rq.run_job", number, job_id=f"j{number}")
    SimpleWorker([jobs.queue], connection=jobs.connection).work(burst=True, logging_level="CRITICAL")
    assert {row.idempotency_key for row in ledger.rows()} == {f"rq:j{number}:0:0" for number in range(30)}
    assert ledger.spent() == 300


def test_an_attempt_is_paid_once_under_its_own_key(jobs: Jobs, ledger: Ledger) -> None:
    jobs.guard(lambda n: n, estimate=lambda n: cycles.tokens(n + 1), actual=lambda result: cycles.tokens(result))
    assert jobs.run(4).return_value() == 4
    assert [row.idempotency_key for row in ledger.rows()] == ["rq:j1:0:0"]
    assert ledger.spent() == 4


def test_a_coroutine_function_is_guarded(
    jobs: Jobs, ledger: Ledger, made_loops: weakref.WeakSet[asyncio.BaseEventLoop]
) -> None:
    async def work() -> None:
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(cycles.tokens(3))

    jobs.guard(work)
    before = open_of(made_loops)
    assert jobs.run().get_status() == "finished"
    for loop in open_of(made_loops):
        if loop not in before:  # RQ 2.6 leaves the loop of a coroutine function open
            loop.close()
    assert ledger.spent() == 3


def test_each_retry_of_the_queue_has_its_own_reservation(jobs: Jobs, ledger: Ledger) -> None:
    def work() -> None:
        RUNS.append(1)
        if len(RUNS) < 3:
            raise ValueError("again")

    jobs.guard(work)
    assert jobs.run(retry=Retry(max=3)).get_status() == "finished"
    assert [row.idempotency_key for row in ledger.rows()] == ["rq:j1:3:0", "rq:j1:2:0", "rq:j1:1:0"]
    assert [row.status for row in ledger.rows()] == ["RELEASED", "RELEASED", "COMMITTED"]


def test_a_retry_that_the_task_returns_releases_and_has_the_next_key(jobs: Jobs, ledger: Ledger) -> None:
    def work() -> Any:
        RUNS.append(1)
        return Retry(max=2) if len(RUNS) < 2 else "done"

    jobs.guard(work)
    assert jobs.run().return_value() == "done"
    assert [row.idempotency_key for row in ledger.rows()] == ["rq:j1:0:0", "rq:j1:0:1"]
    assert ledger.spent() == 10


def test_a_denied_job_is_postponed_under_the_same_key(
    jobs: Jobs, ledger: Ledger, server: cycles.EmbeddedServer
) -> None:
    denied = fund_at_second_denial(jobs.client, server)
    jobs.guard(lambda: "done", subject=DENIED, denied_delay_s=1)
    assert jobs.run().return_value() == "done"
    assert len(denied) == 2
    assert [row.idempotency_key for row in ledger.rows()] == ["rq:j1:0:0"]
    assert ledger.spent(scope="tenant:acme/agent:poor") == 10


@pytest.mark.parametrize("options", [{"max_denials": 0}, {"on_denied": "reject"}])
def test_a_job_that_stays_denied_fails_permanently(jobs: Jobs, ledger: Ledger, options: Any) -> None:
    jobs.guard(lambda: RUNS.append(1), subject=DENIED, **options)
    assert jobs.run(retry=Retry(max=5)).get_status() == "failed"
    assert not RUNS
    assert ledger.spent() == 0


@pytest.mark.parametrize(("on_settled", "status", "runs"), [("raise", "failed", 0), ("skip", "finished", 0)])
def test_an_attempt_that_was_committed_follows_on_settled(
    jobs: Jobs, ledger: Ledger, on_settled: str, status: str, runs: int
) -> None:
    jobs.client.reserve(cycles.tokens(10), action=("task.run", "work"), idempotency_key="rq:j1:5:0").acquire().commit(
        cycles.tokens(10)
    )

    def work() -> None:
        RUNS.append(1)

    jobs.guard(work, on_settled=on_settled)
    assert jobs.run(retry=Retry(max=5)).get_status() == status
    assert len(RUNS) == runs
    assert ledger.spent() == 10


def test_a_direct_call_has_a_fresh_key_and_raises_a_denial(client: cycles.Cycles, ledger: Ledger) -> None:
    function = guarded(client, estimate=cycles.tokens(3))(lambda: 1)
    assert [function(), function()] == [1, 1]
    assert ledger.spent() == 6
    with pytest.raises(cycles.BudgetExceededError):
        guarded(client, estimate=cycles.tokens(10), subject=DENIED)(lambda: None)()


def test_wrong_options_are_rejected_when_the_task_is_decorated() -> None:
    with pytest.raises(cycles.InvalidRequestError):
        guarded(estimate=cycles.tokens(1), max_denials=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        guarded(estimate=cycles.tokens(1), tll_ms=5)


def test_without_the_library_the_import_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['rq'] = None; import cycles.integrations.rq"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'cycles-sdk[rq]'" in ran.stderr
