"""Deliver signed webhooks, as a deployment with an event service does. See `docs/webhooks.md`.

`server.webhooks` keeps subscriptions, the events of this server and a log of deliveries, all in memory. With the
machine's clock a thread delivers in the background. With another clock, a test calls `deliver()`.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from attrs import define, evolve, field

from cycles.embedded.clock import Clock
from cycles.embedded.http import Request
from cycles.embedded.records import Body, Tenant
from cycles.embedded.webhook_delivery import TEST_TIMEOUT, Delivery, Event, shown_attempt
from cycles.embedded.webhook_events import Change, EventDraft, drafts_of, timestamp
from cycles.embedded.webhook_queue import MAX_KEPT, DeliveryQueue
from cycles.embedded.webhook_subscriptions import SYSTEM, Subscription, checked, created, updated

_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})")


@define
class Happening:
    """The request that is handled now, and what it changed."""

    request: Request
    request_id: str | None = None
    trace_id: str | None = None
    drafts: list[EventDraft] = field(factory=list)

    @property
    def flags(self) -> str:
        """Return the trace flags of the request, ``01`` if it has none."""
        match = _TRACEPARENT.fullmatch(self.request.headers.get("traceparent", ""))
        return match[1] if match is not None else "01"

    @property
    def actor(self) -> Body:
        """Return who sent the request."""
        kind = "admin" if self.request.headers.get("x-admin-api-key") else "api_key"
        return {"type": kind, "source_ip": self.request.address}

    def form(self) -> Body:
        """Return the body of the request, empty if it is no JSON object. It is valid if its response is stored."""
        try:
            value = json.loads(self.request.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class Webhooks:
    """Subscriptions, events and deliveries of one server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._subscriptions: dict[str, Subscription] = {}
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._current = threading.local()
        self._queue = DeliveryQueue(clock, self._lock, self._subscriptions.get, self._disabled)

    # --- subscriptions --------------------------------------------------------------------------------------------

    def subscribe(self, url: str, event_types: Iterable[str], *, tenant: str = SYSTEM, **members: Any) -> Subscription:
        """Create a subscription and return it, with its `secret`.

        Args:
            url: Where deliveries are posted; plain HTTP and loopback are allowed.
            event_types: At least one type, for example ``["budget.exhausted"]``.
            tenant: Whose events; by default those of every tenant.
            members: `signing_secret`, `event_categories`, `scope_filter`, `headers`, `retry_policy`,
                `disable_after_failures`, `name`, `description`, `metadata`.

        Raises:
            InvalidRequestError: (a ValueError) naming the member that is wrong.
        """
        form = checked("create", {"url": url, "event_types": list(event_types), **members})
        subscription = created(form, tenant, timestamp(self._clock.now_ms()))
        with self._lock:
            self._subscriptions[subscription.subscription_id] = subscription
        self._emit_lifecycle("created", subscription, None)
        return subscription

    def update(self, subscription_id: str, /, **members: Any) -> Subscription:
        """Change a subscription: the members of `subscribe`, `url`, `event_types`, and `status` ACTIVE or PAUSED.

        Raises:
            KeyError: if there is no such subscription.
            InvalidRequestError: (a ValueError) naming the member that is wrong.
        """
        form = checked("update", members)
        with self._lock:
            before = self.subscription(subscription_id)
            after = updated(before, form, timestamp(self._clock.now_ms()))
            self._subscriptions[subscription_id] = after
        names = {("ACTIVE", "PAUSED"): "paused", ("PAUSED", "ACTIVE"): "resumed", ("DISABLED", "ACTIVE"): "resumed"}
        self._emit_lifecycle(names.get((before.status, after.status), "updated"), after, before)
        return after

    def unsubscribe(self, subscription_id: str) -> None:
        """Delete a subscription; what it has not received yet is not delivered.

        Raises:
            KeyError: if there is no such subscription.
        """
        with self._lock:
            subscription = self.subscription(subscription_id)
            del self._subscriptions[subscription_id]
        self._emit_lifecycle("deleted", subscription, subscription)

    def subscription(self, subscription_id: str) -> Subscription:
        """Return a subscription.

        Raises:
            KeyError: if there is no such subscription.
        """
        return self._subscriptions[subscription_id]

    def subscriptions(self) -> list[Subscription]:
        """Return every subscription, the newest first."""
        return list(reversed(self._subscriptions.values()))

    def deliveries(self, subscription_id: str) -> list[Delivery]:
        """Return the deliveries of a subscription, the newest first.

        Raises:
            KeyError: if there is no such subscription.
        """
        self.subscription(subscription_id)
        return self._queue.deliveries(subscription_id)

    def events(self) -> list[Body]:
        """Return every event, the newest first."""
        with self._lock:
            return [event.members for event in reversed(self._events.values())]

    # --- events -------------------------------------------------------------------------------------------------

    @contextmanager
    def during(self, request: Request) -> Iterator[Happening]:
        """Collect the events of one request, which this thread handles in the block. They are sent at its end."""
        happening = self._current.happening = Happening(request)
        try:
            yield happening
        finally:
            self._current.happening = None
            for draft in happening.drafts:
                self._emit(draft, happening)

    def on_change(self, changes: Sequence[Change]) -> None:
        """Take note of changed records. The ledger calls it while it is locked."""
        for _, after in changes:
            if isinstance(after, Tenant) and after.status == "CLOSED":
                self._close_tenant(after.name)
        happening: Happening | None = getattr(self._current, "happening", None)
        if happening is not None:
            happening.drafts += drafts_of(changes, happening.form)
            return
        for draft in drafts_of(changes, dict):
            self._emit(draft, None)

    def _close_tenant(self, tenant: str) -> None:
        """Disable the subscriptions of a tenant that is closed."""
        with self._lock:
            own = [each for each in self._subscriptions.values() if each.tenant_id == tenant]
            for before in [each for each in own if each.status != "DISABLED"]:
                after = evolve(before, status="DISABLED", updated_at=timestamp(self._clock.now_ms()))
                self._subscriptions[after.subscription_id] = after
                self._emit_lifecycle("disabled_via_tenant_cascade", after, before)

    def emit(self, event_type: str, tenant: str, data: Body | None = None, *, scope: str | None = None) -> str:
        """Make an event as a test needs it, for example ``custom.invoice_sent``, and return its id."""
        return self._emit(EventDraft(type=event_type, tenant_id=tenant, scope=scope, data=data or {}), None)

    def _disabled(self, before: Subscription, after: Subscription) -> None:
        self._emit_lifecycle("disabled", after, before)

    def _emit_lifecycle(self, name: str, after: Subscription, before: Subscription | None) -> None:
        data: Body = {
            "subscription_id": after.subscription_id,
            "tenant_id": after.tenant_id,
            "new_status": after.status,
            "changed_fields": [],
        }
        if before is not None:
            data["previous_status"] = before.status
        self._emit(EventDraft(type=f"webhook.{name}", tenant_id=after.tenant_id, data=data), None)

    def _emit(self, draft: EventDraft, happening: Happening | None) -> str:
        cause = None if draft.by_system else happening
        now = self._clock.now_ms()
        members: Body = {
            "event_id": f"evt_{secrets.token_hex(8)}",
            "event_type": draft.type,
            "category": draft.type.partition(".")[0],
            "timestamp": timestamp(now),
            "tenant_id": draft.tenant_id,
            "scope": draft.scope,
            "actor": _actor(draft, cause),
            "source": "cycles-embedded",
            "data": draft.data or None,
            "request_id": cause.request_id if cause is not None else None,
            "trace_id": cause.trace_id if cause is not None else None,
        }
        members = {name: value for name, value in members.items() if value is not None}
        body = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
        event = Event(members, now, cause.flags if cause is not None else "01", body)
        with self._lock:
            self._events[members["event_id"]] = event
            if len(self._events) > MAX_KEPT:
                self._events.popitem(last=False)
            for subscription in self._subscriptions.values():
                if subscription.wants(members):
                    self._queue.add(subscription, event)
        return str(members["event_id"])

    # --- sending ------------------------------------------------------------------------------------------------

    def deliver(self) -> int:
        """Make every attempt that is due now, in the calling thread, and return how many were made."""
        return self._queue.deliver()

    def test(self, subscription_id: str) -> Body:
        """Post one signed test event immediately and return what the receiver responded. It is not in the log.

        Raises:
            KeyError: if there is no such subscription.
        """
        subscription = self.subscription(subscription_id)
        members = {
            "event_id": f"evt_test_{secrets.token_hex(6)}",
            "event_type": "system.webhook_test",
            "category": "system",
            "timestamp": timestamp(self._clock.now_ms()),
            "tenant_id": subscription.tenant_id,
            "source": "cycles-embedded",
            "data": {"subscription_id": subscription_id, "test": True},
        }
        body = json.dumps(members, separators=(",", ":")).encode()
        event = Event(members, self._clock.now_ms(), "01", body)
        found = self._queue.sender.post(subscription, event, None, TEST_TIMEOUT)
        return {"success": found.succeeded, **shown_attempt(found), "event_id": members["event_id"]}

    def replay(
        self,
        subscription_id: str,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        event_types: Sequence[str] = (),
        max_events: int = 100,
    ) -> Body:
        """Queue stored events again for a subscription, each with its id, body and timestamp.

        Raises:
            KeyError: if there is no such subscription.
        """
        with self._lock:
            subscription = self.subscription(subscription_id)
            chosen = [
                event
                for event in self._events.values()
                if subscription.wants(event.members)
                and (not event_types or event.members["event_type"] in event_types)
                and (from_ms is None or event.at_ms >= from_ms)
                and (to_ms is None or event.at_ms <= to_ms)
            ][:max_events]
            for event in chosen:
                self._queue.add(subscription, event)
        return {
            "replay_id": f"replay_{secrets.token_hex(6)}",
            "events_queued": len(chosen),
            "estimated_completion_seconds": max(1, len(chosen) // 10),
        }

    def close(self) -> None:
        """Stop delivering. What was not delivered is not delivered later."""
        self._queue.close()


def _actor(draft: EventDraft, cause: Happening | None) -> Body:
    if draft.by_system:
        return {"type": "system"}
    return {"type": "admin"} if cause is None else cause.actor
