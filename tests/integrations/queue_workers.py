"""Workers of queues as processes on a real Redis server, and what they have done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cycles
from tests.integrations.redis_server import redis_server
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "celery": ["-m", "celery", "-A", "tests.integrations.queue_tasks", "worker", "--pool=solo", "--loglevel=ERROR"],
    "dramatiq": ["-m", "dramatiq", "tests.integrations.queue_tasks", "--processes=1", "--threads=1"],
}
SEND = """
import os
from tests.integrations.queue_tasks import task
arguments = (7, os.environ["QUEUE_HANG"] == "1")
task.send(*arguments) if hasattr(task, "send") else task.apply_async(arguments, task_id="t1")
"""
SEND_TO_RQ = """
import os
from redis import Redis
from rq import Queue, Retry
queue = Queue("work", connection=Redis.from_url(os.environ["QUEUE_REDIS"]))
hang = os.environ["QUEUE_HANG"] == "1"
queue.enqueue("tests.integrations.queue_tasks.task", 7, hang, retry=Retry(max=1), job_id="j1")
"""
RQ_WORKER = """
import os
from redis import Redis
from rq import Worker
worker = Worker(["work"], connection=Redis.from_url(os.environ["QUEUE_REDIS"]))
worker.work(with_scheduler=os.environ["QUEUE_SCHEDULER"] == "1", logging_level="CRITICAL")
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
            "QUEUE_HANG": "0",
            "QUEUE_SCHEDULER": "0",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def send(self, **settings: str) -> None:
        """Send the task. `settings` of the environment hold for it and for workers that start later."""
        self.environment |= {f"QUEUE_{name.upper()}": value for name, value in settings.items()}
        code = SEND_TO_RQ if self.kind == "rq" else SEND
        subprocess.run([sys.executable, "-c", code], env=self.environment, cwd=ROOT, check=True, timeout=300)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker. The last of repeated options holds."""
        process = subprocess.Popen(
            [sys.executable, *COMMANDS.get(self.kind, ["-c", RQ_WORKER]), *options],
            env=self.environment,
            cwd=ROOT,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(120)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Let a worker finish what it does, and end."""
        process.terminate()
        process.wait(120)

    def balance(self) -> tuple[int, int]:
        """Return what is spent, and what is held."""
        balance = self.server.ledger.balance("tenant:acme", unit="TOKENS")
        assert balance.spent is not None
        assert balance.reserved is not None
        return balance.spent.amount, balance.reserved.amount

    def rows(self) -> dict[str, str]:
        """Return the state of each reservation by its key, oldest first."""
        with self.server.client(tenant="acme", journal=False) as client:
            rows = sorted(client.reservations(), key=lambda row: row.created_at_ms)
        return {str(row.idempotency_key): row.status for row in rows}

    @property
    def runs(self) -> int:
        return len(self.seen.read_text().splitlines()) if self.seen.exists() else 0

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until other processes have done something."""
    until(condition, seconds, step_s=0.1, what=lambda: f"({what})")


@pytest.fixture
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    budgets = {"tenant:acme": cycles.tokens(1_000), "tenant:acme/agent:poor": cycles.tokens(5)}
    server = cycles.EmbeddedServer(budgets=budgets)
    with redis_server(tmp_path) as redis, server.listen() as url:
        workers = Workers(request.param, tmp_path, redis, server, url)
        yield workers
        workers.stop()
    server.close()
