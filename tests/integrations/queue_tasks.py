"""Tasks of the workers that the queue tests start as processes. Settings come from the environment."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import cycles

KIND = os.environ["QUEUE_KIND"]
REDIS = os.environ["QUEUE_REDIS"]
SEEN = Path(os.environ["QUEUE_SEEN"])
"""A file to which each run appends a line: its pid."""

client = cycles.Cycles(journal=False)
cycles.set_default_client(client)


def work(n: int, hang: bool = False) -> int:
    """Append a line; with `hang` the first run waits until it is killed or interrupted."""
    first = not SEEN.exists()
    with SEEN.open("a") as file:
        file.write(f"{os.getpid()}\n")
    guard = cycles.current_guard()
    if first and guard is not None and "QUEUE_SPEND" in os.environ:
        guard.spend(cycles.tokens(int(os.environ["QUEUE_SPEND"])))
    if hang and first:
        threading.Event().wait()
    return n


OPTIONS: dict[str, Any] = {
    "estimate": lambda n, hang=False: cycles.tokens(n),
    "subject": lambda n, hang=False: {"agent": os.environ.get("QUEUE_AGENT", "rich")},
    "ttl_ms": 10_000,
    "denied_delay_s": 0.5,
    **json.loads(os.environ.get("QUEUE_OPTIONS", "{}")),
}
TASK_OPTIONS: dict[str, Any] = {"acks_late": True, **json.loads(os.environ.get("QUEUE_TASK_OPTIONS", "{}"))}

if KIND == "celery":
    from celery import Celery
    from celery.exceptions import SoftTimeLimitExceeded

    from cycles.integrations.celery import close_with_worker, guarded

    app = Celery("queue_tasks", broker=REDIS, backend=REDIS)
    app.conf.update(
        broker_transport_options={
            "visibility_timeout": 2,
            "unacked_restore_limit": 10,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,  # by default a worker looks every 100 s
        },
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
    )
    close_with_worker(client)
    if "soft_time_limit" in TASK_OPTIONS:
        TASK_OPTIONS["autoretry_for"] = (SoftTimeLimitExceeded,)
    task: Any = app.task(name="work", **TASK_OPTIONS)(guarded(client, **OPTIONS)(work))
elif KIND == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    from cycles.integrations.dramatiq import guarded as guarded_actor, install

    broker = RedisBroker(url=REDIS, heartbeat_timeout=1_000, maintenance_chance=1_000_000)
    install(broker)
    dramatiq.set_broker(broker)
    task = dramatiq.actor(actor_name="work")(guarded_actor(client, **OPTIONS)(work))
elif KIND == "rq":
    from cycles.integrations.rq import guarded as guarded_job

    task = guarded_job(client, **OPTIONS)(work)
else:
    sys.exit(f"unknown kind {KIND}")
