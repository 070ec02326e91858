"""Celery, Dramatiq and RQ workers as processes on a real Redis server: kill -9, redelivery, and the ledger."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

import cycles
from tests.integrations.queue_workers import COMMANDS, Workers, wait_for, workers as workers

pytest.importorskip("redis")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", COMMANDS, indirect=True)
def test_a_task_whose_worker_is_killed_runs_again_and_is_paid_once(workers: Workers) -> None:
    pytest.importorskip(workers.kind)
    ledger: Any = workers.server.ledger
    workers.send(hang="1")
    killed = workers.start()
    wait_for(lambda: workers.runs == 1, "the first run")
    assert ledger.balance("tenant:acme", unit="TOKENS").reserved == cycles.tokens(7)
    workers.kill(killed)
    workers.start()
    wait_for(lambda: ledger.balance("tenant:acme", unit="TOKENS").spent == cycles.tokens(7), "the commit", 240)
    assert workers.runs == 2
    balance = ledger.balance("tenant:acme", unit="TOKENS")
    assert (balance.spent, balance.reserved) == (cycles.tokens(7), cycles.tokens(0))
    with workers.server.client(tenant="acme", journal=False) as client:
        rows = list(client.reservations())
    assert len({str(row.idempotency_key).partition("#")[0] for row in rows}) == 1
    assert [row.status for row in rows].count("COMMITTED") == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", ["rq"], indirect=True)
def test_a_killed_job_of_rq_gets_a_new_attempt_that_is_paid_alone(workers: Workers) -> None:
    pytest.importorskip("rq")
    ledger: Any = workers.server.ledger
    workers.send(hang="1")
    workers.start()
    wait_for(lambda: workers.runs == 1, "the first run")
    os.kill(int(workers.seen.read_text().split()[0]), signal.SIGKILL)
    wait_for(lambda: ledger.balance("tenant:acme", unit="TOKENS").spent == cycles.tokens(7), "the commit", 240)
    assert workers.runs == 2
    with workers.server.client(tenant="acme", journal=False) as client:
        rows = {row.idempotency_key: row.status for row in client.reservations()}
    assert rows["rq:j1:0:0"] == "COMMITTED"
    assert rows["rq:j1:1:0"] in ("ACTIVE", "EXPIRED")  # the hold of the killed run ends with its lease
