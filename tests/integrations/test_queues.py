"""What the guards of all queues share, with a queue that only notes what a task asks of it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles.integrations import _queues
from cycles.integrations._queues import TaskGuard
from tests.integrations.conftest import Ledger

POOR = {"agent": "poor"}


class Message:
    """One attempt of a task, as its queue knows it."""

    key = "queue:1:0"

    def __init__(self, denials: int = 0, *, is_redelivered: bool = False) -> None:
        self.denials = denials
        self.postponed: list[tuple[float, int]] = []
        self.failed: list[Exception] = []
        self._is_redelivered = is_redelivered
        self.asked_ttl_ms = 0

    def is_redelivered(self, ttl_ms: int) -> bool:
        self.asked_ttl_ms = ttl_ms
        return self._is_redelivered

    def postpone(self, delay_s: float, denials: int) -> str:
        self.postponed.append((delay_s, denials))
        return "postponed"

    def reject(self, error: Exception) -> str:
        return "rejected"

    def fail(self, error: Exception) -> str:
        self.failed.append(error)
        return "failed"

    def skip(self) -> str:
        return "skipped"


@pytest.fixture
def deliver(client: cycles.Cycles) -> Callable[..., Any]:
    """Run the guarded task for a message."""

    def deliver(message: Message, on_settled: str = "raise", max_denials: int = 2, **options: Any) -> Any:
        guard = TaskGuard(client, cycles.tokens(7), None, None, "retry", on_settled, max_denials, 30.0, options)
        return guard.decorate(lambda: "done", lambda: message)()

    return deliver


def test_a_denied_task_is_postponed_for_longer_each_time_and_fails_at_its_last_denial(deliver: Any) -> None:
    messages = [Message(denials) for denials in range(3)]
    assert [deliver(message, subject=POOR) for message in messages] == ["postponed", "postponed", "failed"]
    [[(first_s, first)], [(second_s, second)]] = [message.postponed for message in messages[:2]]
    assert (first, second) == (1, 2)
    assert 0.75 * 30 <= first_s <= 1.25 * 30
    assert 0.75 * 60 <= second_s <= 1.25 * 60
    assert [type(error) for error in messages[2].failed] == [cycles.BudgetExceededError]


def test_a_task_is_postponed_by_the_time_that_the_server_names(deliver: Any, server: cycles.EmbeddedServer) -> None:
    message = Message()
    body = {"error": "LIMIT_EXCEEDED", "message": "slow down", "request_id": "r1"}
    server.faults.status("reserve", 429, body=body, headers={"Retry-After": "90"}, times=None)
    assert deliver(message) == "postponed"
    assert message.postponed == [(90.0, 1)]


@pytest.mark.parametrize(
    ("on_settled", "result", "spent"), [("raise", "failed", 7), ("skip", "skipped", 7), ("run", "done", 14)]
)
def test_a_message_whose_attempt_was_committed_follows_on_settled(
    deliver: Any, ledger: Ledger, on_settled: str, result: str, spent: int
) -> None:
    assert deliver(Message()) == "done"
    assert deliver(Message(is_redelivered=True), on_settled=on_settled) == result
    assert ledger.spent() == spent
    keys = ["queue:1:0", "queue:1:0#1"] if on_settled == "run" else ["queue:1:0"]
    assert sorted(str(row.idempotency_key) for row in ledger.rows()) == keys


@pytest.mark.parametrize("on_denied", ["retry", "reject"])
def test_a_task_that_another_worker_runs_is_postponed_without_a_denial(
    client: cycles.Cycles, ledger: Ledger, on_denied: str
) -> None:
    message = Message(denials=2)
    guard = TaskGuard(client, cycles.tokens(7), None, None, on_denied, "raise", 2, 30.0, {})
    with client.reserve(cycles.tokens(3), action=("task.run", "other"), idempotency_key=message.key) as running:
        assert guard.decorate(lambda: "done", lambda: message)() == "postponed"
        running.commit(cycles.tokens(3))
    [(delay_s, denials)] = message.postponed
    assert (denials, 0.75 * 120 <= delay_s <= 1.25 * 120) == (2, True)
    assert ledger.spent() == 3


@pytest.mark.parametrize(("age_s", "is_busy"), [(61, True), (59, False)])
def test_a_redelivered_task_is_postponed_while_a_worker_keeps_its_lease_past_the_first_ttl(
    client: cycles.Cycles, deliver: Any, monkeypatch: pytest.MonkeyPatch, age_s: int, is_busy: bool
) -> None:
    """Before that, its first worker may be dead: the task runs, under the reservation of that worker."""
    message, began_s = Message(is_redelivered=True), time.time()
    action = ("task.run", "<lambda>")
    first = client.reserve(cycles.tokens(7), action=action, ttl_ms=60_000, idempotency_key=message.key).acquire()
    monkeypatch.setattr(_queues, "time", SimpleNamespace(time=lambda: began_s + age_s))
    assert deliver(message, ttl_ms=60_000) == ("postponed" if is_busy else "done")
    with nullcontext() if is_busy else pytest.raises(cycles.ReservationFinalizedError):
        first.release()


@pytest.mark.parametrize(
    ("ended", "on_settled", "result"),
    [
        ("commit", "raise", "failed"),
        ("commit", "skip", "skipped"),
        ("commit", "run", "done"),
        ("release", "raise", "done"),
        (None, "raise", "postponed"),
    ],
)
def test_an_old_reservation_keeps_a_redelivered_task_waiting_only_while_it_is_active(
    client: cycles.Cycles,
    deliver: Any,
    monkeypatch: pytest.MonkeyPatch,
    ended: str | None,
    on_settled: str,
    result: str,
) -> None:
    message, began_s = Message(is_redelivered=True), time.time()
    first = client.reserve(cycles.tokens(7), action=("task.run", "<lambda>"), idempotency_key=message.key).acquire()
    if ended == "commit":
        first.commit(cycles.tokens(3))
    elif ended == "release":
        first.release()
    monkeypatch.setattr(_queues, "time", SimpleNamespace(time=lambda: began_s + 3_600))
    assert deliver(message, on_settled=on_settled) == result
    assert len(message.postponed) == (result == "postponed")
    if ended is None:
        first.release()


@pytest.mark.parametrize(("ttl_ms", "is_busy"), [(100_000, False), (30_000, True), (None, False)])
def test_the_first_ttl_of_a_lease_is_that_of_the_task(
    client: cycles.Cycles, deliver: Any, monkeypatch: pytest.MonkeyPatch, ttl_ms: int | None, is_busy: bool
) -> None:
    options: dict[str, Any] = {} if ttl_ms is None else {"ttl_ms": ttl_ms}
    message, began_s = Message(is_redelivered=True), time.time()
    action = ("task.run", "<lambda>")
    client.reserve(cycles.tokens(7), action=action, idempotency_key=message.key, **options).acquire().detach()
    monkeypatch.setattr(_queues, "time", SimpleNamespace(time=lambda: began_s + 45))
    assert deliver(message, **options) == ("postponed" if is_busy else "done")
    assert message.asked_ttl_ms == (ttl_ms or 60_000)


EXPIRED = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r1"}


@pytest.mark.parametrize(
    ("ended", "read", "result"),
    [
        ("release", None, "done"),
        ("release", (410, EXPIRED), "done"),
        ("release", (503, None), "done"),
        ("commit", None, "failed"),
        ("commit", (503, None), "failed"),
    ],
    ids=["released", "expired", "released, not read", "committed", "committed, not read"],
)
def test_a_key_whose_reservation_has_ended_without_a_commit_is_followed_by_the_next_key(
    client: cycles.Cycles,
    deliver: Any,
    ledger: Ledger,
    server: cycles.EmbeddedServer,
    ended: str,
    read: Any,
    result: str,
) -> None:
    """If the reservation of the key cannot be read, it is found in the list."""
    message = Message()
    first = client.reserve(cycles.tokens(7), action=("task.run", "<lambda>"), idempotency_key=message.key).acquire()
    first.release() if ended == "release" else first.commit(cycles.tokens(3))
    if read is not None:
        server.faults.status("get", read[0], body=read[1], times=None)
    assert deliver(message) == result
    assert ledger.spent() == {"done": 7, "failed": 3}[result]
    assert len(ledger.rows()) == {"done": 2, "failed": 1}[result]


@pytest.mark.parametrize("denials", [12, 13, 5_000])
def test_a_task_that_is_denied_very_often_is_postponed_by_an_hour(
    client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch, denials: int
) -> None:
    monkeypatch.setattr(_queues, "random", SimpleNamespace(random=lambda: 0.5))
    message = Message(denials)
    guard = TaskGuard(client, cycles.tokens(7), None, None, "retry", "raise", 10_000, 30.0, {"subject": POOR})
    assert guard.decorate(lambda: "done", lambda: message)() == "postponed"
    assert message.postponed == [(3_600.0, denials + 1)]


def test_a_function_around_a_coroutine_function_is_no_coroutine_function(client: cycles.Cycles, ledger: Ledger) -> None:
    async def work() -> str:
        return "done"

    @functools.wraps(work)
    def blocking() -> str:
        return asyncio.run(work())

    guard = TaskGuard(client, cycles.tokens(7), None, None, "retry", "raise", 2, 30.0, {})
    assert guard.decorate(blocking, lambda: None)() == "done"
    assert asyncio.run(guard.decorate(work, lambda: None)()) == "done"
    assert ledger.spent() == 14


@pytest.mark.parametrize("message", [None, Message()])
def test_a_task_without_an_estimate_runs_unguarded(
    client: cycles.Cycles, ledger: Ledger, message: Message | None
) -> None:
    async def work(number: int) -> int:
        return number

    guard = TaskGuard(client, lambda number: None, None, None, "retry", "raise", 2, 30.0, {"subject": POOR})
    assert guard.decorate(lambda number: number, lambda: message)(3) == 3
    assert asyncio.run(guard.decorate(work, lambda: message)(4)) == 4
    assert ledger.rows() == []


@pytest.mark.parametrize(("luck", "delay_s"), [(0.0, 0.75 * 3_000), (1.0, 3_600.0)])
def test_a_task_is_postponed_by_an_hour_at_most(
    client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch, luck: float, delay_s: float
) -> None:
    monkeypatch.setattr(_queues, "random", SimpleNamespace(random=lambda: luck))
    message = Message()
    guard = TaskGuard(client, cycles.tokens(7), None, None, "retry", "raise", 2, 3_000.0, {"subject": POOR})
    assert guard.decorate(lambda: "done", lambda: message)() == "postponed"
    assert message.postponed == [(delay_s, 1)]


@pytest.mark.parametrize(("delay_s", "is_right"), [(3_600, True), (0.001, True), (3_600.5, False), (-1, False)])
def test_the_first_delay_is_at_most_an_hour(client: cycles.Cycles, delay_s: float, is_right: bool) -> None:
    with nullcontext() if is_right else pytest.raises(cycles.InvalidRequestError, match="denied_delay_s"):
        TaskGuard(client, cycles.tokens(7), None, None, "retry", "raise", 2, delay_s, {})


def test_a_retry_after_of_zero_is_followed_by_the_delay_of_the_task(
    deliver: Any, server: cycles.EmbeddedServer
) -> None:
    message = Message()
    body = {"error": "LIMIT_EXCEEDED", "message": "slow down", "request_id": "r1"}
    server.faults.status("reserve", 429, body=body, headers={"Retry-After": "0"}, times=None)
    assert deliver(message) == "postponed"
    [(delay_s, denials)] = message.postponed
    assert (0.75 * 30 <= delay_s <= 1.25 * 30, denials) == (True, 1)


@pytest.mark.parametrize("code", ["BUDGET_CLOSED", "TENANT_CLOSED"])
def test_a_task_whose_budget_or_tenant_is_closed_fails_at_its_first_denial(
    deliver: Any, server: cycles.EmbeddedServer, code: str
) -> None:
    message = Message()
    body = {"error": code, "message": "it is closed", "request_id": "r1"}
    server.faults.status("reserve", 409, body=body, times=None)
    assert deliver(message) == "failed"
    assert (message.postponed, [getattr(error, "code", None) for error in message.failed]) == ([], [code])


def test_a_task_is_not_rejected_because_no_server_responds(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    def run(on_denied: str, message: Message) -> Any:
        guard = TaskGuard(client, cycles.tokens(7), None, None, on_denied, "raise", 2, 30.0, {"wait": 0})
        return guard.decorate(lambda: "done", lambda: message)()

    rejecting, raising = Message(), Message()
    server.faults.status("reserve", 503, times=None)
    assert run("reject", rejecting) == "postponed"
    with pytest.raises(cycles.ServerError):
        run("raise", raising)
    assert ([denials for _, denials in rejecting.postponed], raising.postponed) == ([1], [])


def test_a_denial_inside_of_the_task_is_an_error_of_the_task(client: cycles.Cycles, ledger: Ledger) -> None:
    message = Message()
    guard = TaskGuard(client, cycles.tokens(7), None, None, "retry", "raise", 2, 30.0, {})

    def task() -> None:
        client.reserve(cycles.tokens(6), action=("task.run", "inner"), subject=POOR).acquire()

    with pytest.raises(cycles.BudgetExceededError):
        guard.decorate(task, lambda: message)()
    assert (message.postponed, message.failed, ledger.spent()) == ([], [], 0)


def test_a_key_whose_reservation_is_deleted_is_followed_by_the_next_key(
    client: cycles.Cycles, deliver: Any, ledger: Ledger, server: cycles.EmbeddedServer
) -> None:
    message = Message()
    with client.reserve(cycles.tokens(3), action=("task.run", "other"), idempotency_key=message.key) as guard:
        guard.commit(cycles.tokens(3))
    server.faults.status("list", 200, body={"reservations": [], "has_more": False}, times=1)
    assert deliver(message) == "done"
    assert sorted(str(row.idempotency_key) for row in ledger.rows()) == ["queue:1:0", "queue:1:0#1"]
    assert ledger.spent() == 10
