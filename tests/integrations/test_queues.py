"""What the guards of all queues share, with a queue that only notes what a task asks of it."""

from __future__ import annotations

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

    def is_redelivered(self, ttl_ms: int) -> bool:
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
