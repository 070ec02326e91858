"""Celery and Dramatiq workers as processes on a real Redis server: kill -9, redelivery, and the ledger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.integrations.redis_server import redis_server

pytest.importorskip("redis")

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "celery": ["-m", "celery", "-A", "tests.integrations.queue_tasks", "worker", "--pool=solo", "--loglevel=ERROR"],
    "dramatiq": ["-m", "dramatiq", "tests.integrations.queue_tasks", "--processes=1", "--threads=1"],
}
SEND = """
from tests.integrations.queue_tasks import task
task.send(7, True) if hasattr(task, "send") else task.delay(7, True)
"""
SEND_TO_RQ = """
import os
from redis import Redis
from rq import Queue, Retry
queue = Queue("work", connection=Redis.from_url(os.environ["QUEUE_REDIS"]))
queue.enqueue("tests.integrations.queue_tasks.task", 7, True, retry=Retry(max=1), job_id="j1")
"""
RQ_WORKER = """
import os
from redis import Redis
from rq import Worker
Worker(["work"], connection=Redis.from_url(os.environ["QUEUE_REDIS"])).work(logging_level="CRITICAL")
"""


class Workers:
    """Workers of one queue, and what they have done."""

    def __init__(self, kind: str, directory: Path, redis: str, server: cycles.EmbeddedServer, url: str) -> None:
        self.kind = kind
        self.seen = directory / "seen"
        self.server = server
        self.environment = {
            **os.environ,
            "CYCLES_BASE_URL": url,
            "CYCLES_API_KEY": server.api_key,
            "CYCLES_TENANT": "acme",
            "QUEUE_KIND": kind,
            "QUEUE_REDIS": redis,
            "QUEUE_SEEN": str(self.seen),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def send(self) -> None:
        code = SEND_TO_RQ if self.kind == "rq" else SEND
        subprocess.run([sys.executable, "-c", code], env=self.environment, cwd=ROOT, check=True, timeout=60)

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *COMMANDS.get(self.kind, ["-c", RQ_WORKER])],
            env=self.environment,
            cwd=ROOT,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    @property
    def runs(self) -> int:
        return len(self.seen.read_text().splitlines()) if self.seen.exists() else 0

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until other processes have done something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


@pytest.fixture
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(1_000)})
    with redis_server(tmp_path) as redis, server.listen() as url:
        workers = Workers(request.param, tmp_path, redis, server, url)
        yield workers
        workers.stop()
    server.close()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", COMMANDS, indirect=True)
def test_a_task_whose_worker_is_killed_runs_again_and_is_paid_once(workers: Workers) -> None:
    pytest.importorskip(workers.kind)
    ledger: Any = workers.server.ledger
    workers.send()
    killed = workers.start()
    wait_for(lambda: workers.runs == 1, "the first run")
    assert ledger.balance("tenant:acme", unit="TOKENS").reserved == cycles.tokens(7)
    workers.kill(killed)
    workers.start()
    wait_for(lambda: ledger.balance("tenant:acme", unit="TOKENS").spent == cycles.tokens(7), "the commit", 120)
    assert workers.runs == 2
    balance = ledger.balance("tenant:acme", unit="TOKENS")
    assert (balance.spent, balance.reserved) == (cycles.tokens(7), cycles.tokens(0))
    with workers.server.client(tenant="acme", journal=False) as client:
        rows = list(client.reservations())
    assert len({str(row.idempotency_key).partition("#")[0] for row in rows}) == 1
    assert [row.status for row in rows].count("COMMITTED") == 1


@pytest.mark.timeout(150)
@pytest.mark.parametrize("workers", ["rq"], indirect=True)
def test_a_killed_job_of_rq_gets_a_new_attempt_that_is_paid_alone(workers: Workers) -> None:
    pytest.importorskip("rq")
    ledger: Any = workers.server.ledger
    workers.send()
    workers.start()
    wait_for(lambda: workers.runs == 1, "the first run")
    os.kill(int(workers.seen.read_text().split()[0]), signal.SIGKILL)
    wait_for(lambda: ledger.balance("tenant:acme", unit="TOKENS").spent == cycles.tokens(7), "the commit", 120)
    assert workers.runs == 2
    with workers.server.client(tenant="acme", journal=False) as client:
        rows = {row.idempotency_key: row.status for row in client.reservations()}
    assert rows["rq:j1:0:0"] == "COMMITTED"
    assert rows["rq:j1:1:0"] in ("ACTIVE", "EXPIRED")  # the hold of the killed run ends with its lease
