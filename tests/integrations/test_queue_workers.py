"""Celery, RQ and Dramatiq workers as processes on a real Redis server: denials, settled attempts, limits, pools."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

import cycles
from tests.integrations.queue_workers import Workers, wait_for, workers as workers

redis = pytest.importorskip("redis")

PREFORK = ("--pool=prefork", "--concurrency=1")
KEYS = {"celery": "celery:t1:0", "rq": "rq:j1:1:0"}

pytestmark = pytest.mark.timeout(600)


def commit_before(workers: Workers) -> None:
    """Commit the attempt that the queue will deliver, as a worker does that is killed before it acknowledges."""
    with workers.server.client(tenant="acme", journal=False) as client:
        options: Any = {"action": ("task.run", "work"), "subject": {"agent": "rich"}}
        key = KEYS[workers.kind]
        client.reserve(cycles.tokens(7), idempotency_key=key, ttl_ms=10_000, **options).acquire().commit(
            cycles.tokens(7)
        )


def left_in(workers: Workers, *names: str) -> int:
    """Return how many messages the queues of Redis have."""
    connection: Any = redis.Redis.from_url(workers.environment["QUEUE_REDIS"])
    with connection:
        lengths = [connection.hlen if connection.type(name) == b"hash" else connection.llen for name in names]
        return sum(length(name) for length, name in zip(lengths, names, strict=True))


@pytest.mark.parametrize("workers", ["celery", "rq", "dramatiq"], indirect=True)
def test_a_denied_task_runs_when_there_is_budget(workers: Workers) -> None:
    pytest.importorskip(workers.kind)
    workers.send(agent="poor", scheduler="1")
    process = workers.start()
    denied = workers.server.requests
    wait_for(lambda: len(denied.of("reserve")) >= 2, "the second attempt")
    assert workers.runs == 0
    workers.server.ledger.fund("tenant:acme/agent:poor", cycles.tokens(100))
    wait_for(lambda: workers.balance() == (7, 0), "the commit")
    workers.end(process)
    assert workers.runs == 1
    [key] = workers.rows()
    assert key == KEYS.get(workers.kind, key)
    assert key.endswith(":0")


@pytest.mark.parametrize("workers", ["celery"], indirect=True)
def test_a_denied_message_is_rejected(workers: Workers) -> None:
    pytest.importorskip("celery")
    workers.send(agent="poor", options=json.dumps({"on_denied": "reject"}))
    process = workers.start()
    wait_for(lambda: len(workers.server.requests.of("reserve")) == 1, "the denial")
    wait_for(lambda: left_in(workers, "celery", "unacked") == 0, "the rejection")
    workers.end(process)
    assert workers.runs == 0
    assert workers.rows() == {}
    assert len(workers.server.requests.of("reserve")) == 1


@pytest.mark.parametrize("workers", ["rq"], indirect=True)
def test_a_denied_job_fails_permanently(workers: Workers) -> None:
    pytest.importorskip("rq")
    workers.send(agent="poor", options=json.dumps({"on_denied": "reject"}), scheduler="1")
    process = workers.start()
    connection: Any = redis.Redis.from_url(workers.environment["QUEUE_REDIS"])
    with connection:
        wait_for(lambda: connection.zcard("rq:failed:work") == 1, "the failure")
    workers.end(process)
    assert workers.runs == 0
    assert len(workers.server.requests.of("reserve")) == 1


@pytest.mark.parametrize("workers", ["celery", "rq"], indirect=True)
@pytest.mark.parametrize(("on_settled", "runs", "spent"), [("skip", 0, 7), ("raise", 0, 7)])
def test_an_attempt_that_was_committed_is_not_paid_again(
    workers: Workers, on_settled: str, runs: int, spent: int
) -> None:
    pytest.importorskip(workers.kind)
    commit_before(workers)
    reserved = len(workers.server.requests.of("reserve"))
    workers.send(options=json.dumps({"on_settled": on_settled}))
    process = workers.start()
    wait_for(lambda: len(workers.server.requests.of("reserve")) > reserved, "the redelivery")
    if workers.kind == "celery":
        wait_for(lambda: left_in(workers, "celery", "unacked") == 0, "the acknowledgement")
    else:
        connection: Any = redis.Redis.from_url(workers.environment["QUEUE_REDIS"])
        with connection:
            ended = ("rq:failed:work", "rq:finished:work")
            wait_for(lambda: any(connection.zcard(name) for name in ended), "the end of the job")
            assert bool(connection.zcard("rq:failed:work")) is (on_settled == "raise")
    workers.end(process)
    assert (workers.runs, workers.balance()) == (runs, (spent, 0))


@pytest.mark.parametrize("workers", ["celery"], indirect=True)
def test_a_soft_time_limit_commits_known_spend_and_the_retry_has_its_own_key(workers: Workers) -> None:
    pytest.importorskip("celery")
    limits = {"soft_time_limit": 1, "max_retries": 1, "default_retry_delay": 0, "retry_backoff": False}
    workers.send(hang="1", spend="2", task_options=json.dumps(limits))
    process = workers.start(*PREFORK)
    wait_for(lambda: workers.balance() == (2 + 7, 0), "both commits")
    workers.end(process)
    assert workers.runs == 2
    assert workers.rows() == {"celery:t1:0": "COMMITTED", "celery:t1:1": "COMMITTED"}


@pytest.mark.parametrize("workers", ["celery"], indirect=True)
def test_a_soft_time_limit_releases_when_nothing_is_spent(workers: Workers) -> None:
    pytest.importorskip("celery")
    limits = {"soft_time_limit": 1, "max_retries": 1, "default_retry_delay": 0, "retry_backoff": False}
    workers.send(hang="1", task_options=json.dumps(limits))
    process = workers.start(*PREFORK)
    wait_for(lambda: workers.balance() == (7, 0), "the commit")
    workers.end(process)
    assert workers.rows() == {"celery:t1:0": "RELEASED", "celery:t1:1": "COMMITTED"}


@pytest.mark.parametrize("workers", ["celery"], indirect=True)
def test_a_pool_process_that_is_killed_is_replaced_and_its_task_is_paid_once(workers: Workers) -> None:
    pytest.importorskip("celery")
    workers.send(hang="1", task_options=json.dumps({"reject_on_worker_lost": True}))
    process = workers.start(*PREFORK)
    wait_for(lambda: workers.runs == 1, "the first run")
    assert workers.balance() == (0, 7)
    child = int(workers.seen.read_text().split()[0])
    assert child != process.pid
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: workers.balance() == (7, 0), "the commit")
    workers.end(process)
    assert workers.runs == 2
    assert workers.rows() == {"celery:t1:0": "COMMITTED"}


@pytest.mark.parametrize("workers", ["celery"], indirect=True)
def test_a_pool_process_settles_what_is_pending_when_it_ends(workers: Workers) -> None:
    pytest.importorskip("celery")
    workers.server.faults.status("commit", 503, times=2)
    workers.send()
    process = workers.start(*PREFORK)
    wait_for(lambda: len(workers.server.requests.of("commit")) >= 1, "the first commit")
    workers.end(process)
    assert workers.balance() == (7, 0)
    assert workers.rows() == {"celery:t1:0": "COMMITTED"}
