"""The deliveries of the embedded server: what each attempt changes, also if the subscription changes during it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles.embedded import webhook_queue
from cycles.embedded.clock import SystemClock
from cycles.embedded.webhook_delivery import Attempt, Delivery, Event, headers_of, shown_attempt
from cycles.embedded.webhook_events import timestamp
from cycles.embedded.webhook_queue import DeliveryQueue
from cycles.embedded.webhook_subscriptions import RetryPolicy, Subscription
from tests.support.waiting import PATIENCE_S, until

MEMBERS = {"event_id": "evt_1", "event_type": "budget.funded"}
EVENT = Event(MEMBERS, 5, "01", b"{}")
OK, FAILED = Attempt(200, 3, None), Attempt(500, 4, None)


class Place:
    """A queue over one subscription, with a receiver of the test."""

    def __init__(self, *attempts: Attempt, clock: Any = None, **members: Any) -> None:
        self.clock = clock or cycles.ManualClock()
        self.is_closed = False
        self.subscription: Subscription | None = Subscription(
            subscription_id="s", url="https://h/x", event_types=["budget.funded"], **members
        )
        self.disabled: list[tuple[str, str]] = []
        self.during: Callable[[], object] = lambda: None
        self._attempts = list(attempts)
        note = self.disabled.append
        self.queue = DeliveryQueue(
            self.clock, threading.RLock(), lambda _: self.subscription, lambda a, b: note((a.status, b.status))
        )
        self.queue.__dict__["sender"] = self

    def post(self, *_: Any) -> Attempt:
        self.during()
        return self._attempts.pop(0)

    def close(self) -> None:
        self.is_closed = True

    def add(self) -> Delivery:
        assert self.subscription is not None
        self.queue.add(self.subscription, EVENT)
        return self.queue.deliveries("s")[0]

    @property
    def counts(self) -> tuple[str, int, str | None, str | None]:
        its = self.subscription
        assert its is not None
        return its.status, its.consecutive_failures, its.last_success_at, its.last_failure_at


@pytest.mark.parametrize(
    ("status", "succeeded"), [(199, False), (200, True), (299, True), (300, False), (404, False), (None, False)]
)
def test_which_responses_accept_an_event(status: int | None, succeeded: bool) -> None:
    assert Attempt(status, 1, None).succeeded is succeeded


def test_an_event_that_is_accepted() -> None:
    place = Place(OK, consecutive_failures=3)
    delivery = place.add()
    now = timestamp(place.clock.now_ms())
    assert (delivery.to_dict()["status"], delivery.to_dict()["attempts"]) == ("PENDING", 0)
    assert (place.queue.deliver(), place.queue.deliver()) == (1, 0)
    shown = delivery.to_dict()
    assert (shown["status"], shown["attempts"], shown["response_status"]) == ("SUCCESS", 1, 200)
    assert (shown["attempted_at"], shown["completed_at"], "next_retry_at" in shown) == (now, now, False)
    assert place.counts == ("ACTIVE", 0, now, None)
    assert place.subscription is not None
    assert place.subscription.last_triggered_at == now
    assert place.queue.deliveries("other") == []


def test_the_trace_of_a_delivery_is_that_of_its_event_or_a_new_one() -> None:
    place = Place(OK, FAILED)
    first, second = place.add(), place.add()
    assert (len(first.trace_id), len(second.trace_id), first.trace_id == second.trace_id) == (32, 32, False)
    assert place.subscription is not None
    place.queue.add(place.subscription, Event({**MEMBERS, "trace_id": "t"}, 5, "01", b"{}"))
    assert [each.trace_id for each in place.queue.deliveries("s")] == ["t", second.trace_id, first.trace_id]


def test_a_failed_event_is_tried_again_after_growing_delays() -> None:
    policy = RetryPolicy(max_retries=2, initial_delay_ms=100, backoff_multiplier=3.0, max_delay_ms=1_000)
    place = Place(FAILED, FAILED, FAILED, retry_policy=policy, disable_after_failures=2)
    delivery = place.add()
    for delay_ms in (100, 300):
        assert place.queue.deliver() == 1
        due = timestamp(place.clock.now_ms() + delay_ms)
        assert (delivery.status, delivery.to_dict()["next_retry_at"]) == ("RETRYING", due)
        place.clock.advance(delay_ms - 1)
        assert place.queue.deliver() == 0
        place.clock.advance(1)
    assert (place.queue.deliver(), place.queue.deliver()) == (1, 0)
    now = timestamp(place.clock.now_ms())
    assert (delivery.status, delivery.attempts, delivery.completed_at) == ("FAILED", 3, now)
    assert place.counts == ("ACTIVE", 1, None, now)
    assert place.disabled == []


@pytest.mark.parametrize(("most", "status"), [(1, "DISABLED"), (2, "ACTIVE")])
def test_failures_in_a_row_disable_a_subscription_once(most: int, status: str) -> None:
    place = Place(FAILED, FAILED, retry_policy=RetryPolicy(max_retries=0), disable_after_failures=most)
    place.add()
    assert place.queue.deliver() == 1
    assert (place.counts[:2], place.disabled) == ((status, 1), [("ACTIVE", "DISABLED")] if most == 1 else [])
    place.add()
    assert place.queue.deliver() == 1
    assert (place.counts[:2], place.disabled) == (("DISABLED", 2), [("ACTIVE", "DISABLED")])


def test_what_an_attempt_finds_is_noted_in_the_subscription_as_it_is_now() -> None:
    place = Place(OK)
    delivery = place.add()

    def update() -> None:
        place.subscription = Subscription(subscription_id="s", url="https://other/x")

    place.during = update
    assert place.queue.deliver() == 1
    assert place.subscription is not None
    assert (place.subscription.url, place.counts[2]) == ("https://other/x", delivery.completed_at)


@pytest.mark.parametrize("status", ["PAUSED", "DISABLED", "ACTIVE"])
def test_what_is_queued_is_tried_again_whatever_the_subscription_is_now(status: str) -> None:
    place = Place(FAILED, FAILED, OK)
    delivery = place.add()

    def change() -> None:
        assert place.subscription is not None
        place.subscription = evolve(place.subscription, status=status, retry_policy=RetryPolicy(max_retries=0))

    place.during = change  # the first attempt has begun with the policy of before
    assert place.queue.deliver() == 1
    assert (delivery.status, delivery.due_ms) == ("RETRYING", place.clock.now_ms() + 1_000)
    place.clock.advance(1_000)
    assert place.queue.deliver() == 1
    assert (delivery.status, delivery.attempts, place.counts[:2]) == ("FAILED", 2, (status, 1))


def test_a_subscription_that_is_deleted_gets_no_more_events() -> None:
    place = Place(OK)
    first, second = place.add(), place.add()

    def delete() -> None:
        place.subscription = None

    place.during = delete
    assert place.queue.deliver() == 1
    assert (first.status, second.status, second.attempts) == ("SUCCESS", "FAILED", 0)
    assert second.due_ms is None, "its thread would not sleep any more"


class Counted(SystemClock):
    """The machine's clock. It counts how often it is read."""

    reads = 0

    def now_ms(self) -> int:
        self.reads += 1
        return super().now_ms()


def test_the_thread_of_a_queue_sleeps_until_an_attempt_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_queue, "_LONGEST_JOIN_S", PATIENCE_S)
    before = set(threading.enumerate())
    clock = Counted()
    policy = RetryPolicy(initial_delay_ms=100)
    place = Place(OK, OK, FAILED, OK, retry_policy=policy, clock=clock)
    for _ in range(2):
        place.add()
        until(lambda: place.counts[2] is not None and place.queue.deliveries("s")[0].attempts == 1)
    (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "cycles-embedded-webhooks")
    assert thread.daemon
    reads = clock.reads
    retried = place.add()
    until(lambda: retried.status == "SUCCESS")
    assert retried.attempts == 2
    assert clock.reads - reads < 100
    place.queue.close()
    assert not thread.is_alive()
    assert place.is_closed
    place.add()
    assert "cycles-embedded-webhooks" not in {each.name for each in set(threading.enumerate()) - before}


def test_the_thread_of_a_queue_makes_the_attempt_that_is_due_first() -> None:
    place = Place(FAILED, FAILED, OK, retry_policy=RetryPolicy(initial_delay_ms=60_000), clock=SystemClock())
    slow = place.add()
    until(lambda: slow.status == "RETRYING")
    assert place.subscription is not None
    place.subscription.retry_policy = RetryPolicy(initial_delay_ms=1)
    quick = place.add()
    until(lambda: quick.status == "SUCCESS")
    assert (quick.attempts, slow.attempts) == (2, 1)
    place.queue.close()


def test_a_closed_queue_sends_nothing() -> None:
    place = Place()
    delivery = place.add()
    place.queue.close()
    assert (place.queue.deliver(), delivery.status) == (0, "PENDING")


def test_a_queue_that_is_closed_by_its_own_thread_closes_the_connections() -> None:
    place, tried = Place(OK, clock=SystemClock()), threading.Event()

    def close() -> None:  # for example code that a receiver in this process runs
        try:
            place.queue.close()
        finally:
            tried.set()

    place.during = close
    place.add()
    assert tried.wait(PATIENCE_S)
    assert (place.is_closed, place.queue.deliver()) == (True, 0)


def test_a_deleted_subscription_does_not_delay_the_deliveries_of_others() -> None:
    clock, found = cycles.ManualClock(), {name: Subscription(subscription_id=name, url="https://h/x") for name in "abc"}
    queue = DeliveryQueue(clock, threading.RLock(), found.get, lambda before, after: None)
    queue.__dict__["sender"] = Place(OK, OK)
    for name in "acb":
        queue.add(found[name], EVENT)
    del found["a"]
    assert queue.deliver() == 2
    assert ["".join(each.status for each in queue.deliveries(name)) for name in "abc"] == [
        "FAILED", "SUCCESS", "SUCCESS",
    ]  # fmt: skip


def test_the_headers_of_a_delivery() -> None:
    subscription = Subscription(url="https://h/x", headers={"X-Own": "1"}, secret="whsec_1")
    headers = dict(headers_of(subscription, Event({**MEMBERS, "request_id": "r"}, 5, "00", b"{}"), "t" * 32))
    assert (headers["X-Own"], headers["X-Cycles-Trace-Id"], headers["X-Request-Id"]) == ("1", "t" * 32, "r")
    assert (headers["traceparent"][:36], headers["traceparent"][-3:]) == (f"00-{'t' * 32}-", "-00")
    assert headers["Content-Type"] == "application/json"
    of_a_test = dict(headers_of(subscription, EVENT, None))
    assert {"X-Cycles-Trace-Id", "traceparent", "X-Request-Id"}.isdisjoint(of_a_test)


def test_what_is_none_is_not_shown() -> None:
    assert shown_attempt(OK) == {"response_status": 200, "response_time_ms": 3}
    assert shown_attempt(Attempt(None, 0, "refused")) == {"response_time_ms": 0, "error_message": "refused"}
