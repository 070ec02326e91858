"""The queue of deliveries: which attempt is due, what an attempt changes, and the thread that makes attempts."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Final

from attrs import evolve

from cycles.embedded.clock import Clock, SystemClock
from cycles.embedded.webhook_delivery import Attempt, Delivery, Event, Sender
from cycles.embedded.webhook_events import timestamp
from cycles.embedded.webhook_subscriptions import Subscription

MAX_KEPT: Final = 10_000  # the oldest are dropped
_LONGEST_JOIN_S: Final = 1.0  # a receiver that does not respond must not delay the end of the server


class DeliveryQueue:
    """Deliveries in the order of their events. A retry is made when its delay is over.

    Args:
        clock: Says what is due. Only the machine's clock has a thread: no other one moves while a thread waits.
        lock: Guards subscriptions and deliveries.
        find: Returns a subscription by its id, or None if it was deleted.
        disabled: Called with a subscription before and after it was disabled.
    """

    def __init__(
        self,
        clock: Clock,
        lock: threading.RLock,
        find: Callable[[str], Subscription | None],
        disabled: Callable[[Subscription, Subscription], None],
    ) -> None:
        self._clock = clock
        self._find = find
        self._disabled = disabled
        self._changed = threading.Condition(lock)
        self._deliveries: deque[Delivery] = deque(maxlen=MAX_KEPT)
        self._thread: threading.Thread | None = None
        self._closed = False

    @cached_property
    def sender(self) -> Sender:
        """Return what makes the requests; its connections are made when first used."""
        return Sender()

    def add(self, subscription: Subscription, event: Event) -> None:
        """Queue an event for a subscription; its first attempt is due immediately."""
        delivery = Delivery(
            subscription_id=subscription.subscription_id,
            event=event,
            trace_id=event.members.get("trace_id") or secrets.token_hex(16),
            due_ms=self._clock.now_ms(),
        )
        with self._changed:
            self._deliveries.append(delivery)
            if self._thread is None and not self._closed and isinstance(self._clock, SystemClock):
                self._thread = threading.Thread(target=self._run, name="cycles-embedded-webhooks", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def deliveries(self, subscription_id: str) -> list[Delivery]:
        """Return the deliveries of a subscription, the newest first."""
        with self._changed:
            return [each for each in reversed(self._deliveries) if each.subscription_id == subscription_id]

    def deliver(self) -> int:
        """Make every attempt that is due now, in the calling thread, and return how many were made."""
        attempts = 0
        while (found := self._next_due()) is not None:
            delivery, subscription = found
            delivery.attempted_at = timestamp(self._clock.now_ms())
            self._finish(delivery, subscription, self.sender.post(subscription, delivery.event, delivery.trace_id))
            attempts += 1
        return attempts

    def _next_due(self) -> tuple[Delivery, Subscription] | None:
        with self._changed:
            now = self._clock.now_ms()
            for delivery in () if self._closed else self._deliveries:
                if delivery.due_ms is None or delivery.due_ms > now:
                    continue
                delivery.due_ms = None  # this thread makes the attempt
                subscription = self._find(delivery.subscription_id)
                if subscription is not None:
                    return delivery, subscription
                delivery.status = "FAILED"
            return None

    def _finish(self, delivery: Delivery, subscription: Subscription, found: Attempt) -> None:
        with self._changed:
            now = self._clock.now_ms()
            current = self._find(subscription.subscription_id) or subscription
            delivery.attempts, delivery.found = delivery.attempts + 1, found
            current.last_triggered_at = delivery.attempted_at
            if found.succeeded:
                delivery.status, delivery.completed_at = "SUCCESS", timestamp(now)
                current.consecutive_failures, current.last_success_at = 0, timestamp(now)
                return
            current.last_failure_at = timestamp(now)
            if delivery.attempts <= subscription.retry_policy.max_retries:
                delivery.status = "RETRYING"
                delivery.due_ms = now + subscription.retry_policy.delay_ms(delivery.attempts)
                return
            delivery.status, delivery.completed_at = "FAILED", timestamp(now)
            current.consecutive_failures += 1
            if current.status != "ACTIVE" or current.consecutive_failures < current.disable_after_failures:
                return
            before = evolve(current)
            current.status = "DISABLED"
        self._disabled(before, current)

    def _run(self) -> None:
        while True:
            self.deliver()
            with self._changed:
                if self._closed:
                    return
                due = [each.due_ms for each in self._deliveries if each.due_ms is not None]
                self._changed.wait((min(due) - self._clock.now_ms()) / 1000 if due else None)

    def close(self) -> None:
        """Stop delivering. What was not delivered is not delivered later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LONGEST_JOIN_S)
        if "sender" in self.__dict__:
            self.sender.close()
