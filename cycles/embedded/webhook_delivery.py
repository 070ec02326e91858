"""Events on their way to a subscriber: the log row of a delivery, its headers, and the HTTP request."""

from __future__ import annotations

import secrets
import time
from typing import Final

import httpx
from attrs import define, field, frozen

from cycles._version import __version__
from cycles.embedded.records import Body
from cycles.embedded.webhook_events import timestamp
from cycles.embedded.webhook_subscriptions import Subscription
from cycles.webhooks import EVENT_ID_HEADER, EVENT_TYPE_HEADER, SIGNATURE_HEADER, sign_webhook

TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
TEST_TIMEOUT: Final = httpx.Timeout(10.0)
_SUCCESS: Final = range(200, 300)


@frozen
class Attempt:
    """What one request found: the status, or what failed. `elapsed_ms` is in milliseconds."""

    status: int | None
    elapsed_ms: int
    error: str | None

    @property
    def succeeded(self) -> bool:
        """Return whether the receiver accepted the event."""
        return self.status in _SUCCESS


@frozen
class Event:
    """One event: its members, and the bytes that every delivery of it has."""

    members: Body
    at_ms: int
    flags: str
    body: bytes = field(repr=False)


@define(kw_only=True)
class Delivery:
    """One event for one subscription: its state and what its attempts found."""

    delivery_id: str = field(factory=lambda: f"del_{secrets.token_hex(8)}")
    subscription_id: str
    event: Event
    trace_id: str
    status: str = "PENDING"
    attempts: int = 0
    due_ms: int | None = None
    attempted_at: str | None = None
    completed_at: str | None = None
    found: Attempt | None = None

    def to_dict(self) -> Body:
        """Return the row of the delivery log."""
        shown: Body = {
            "delivery_id": self.delivery_id,
            "subscription_id": self.subscription_id,
            "event_id": self.event.members["event_id"],
            "event_type": self.event.members["event_type"],
            "status": self.status,
            "attempted_at": self.attempted_at,
            "completed_at": self.completed_at,
            "attempts": self.attempts,
            "response_status": None if self.found is None else self.found.status,
            "error_message": None if self.found is None else self.found.error,
            "next_retry_at": timestamp(self.due_ms) if self.status == "RETRYING" and self.due_ms is not None else None,
            "trace_id": self.trace_id,
            "trace_flags": self.event.flags,
        }
        return {name: value for name, value in shown.items() if value is not None}


def shown_attempt(attempt: Attempt) -> Body:
    """Return the members that responses have for an attempt; what is None is left out."""
    shown = {
        "response_status": attempt.status,
        "response_time_ms": attempt.elapsed_ms,
        "error_message": attempt.error,
    }
    return {name: value for name, value in shown.items() if value is not None}


def headers_of(subscription: Subscription, event: Event, trace_id: str | None) -> list[tuple[str, str]]:
    """Return the headers of one attempt. A test event has no trace headers."""
    members = event.members
    headers = [
        ("Content-Type", "application/json"),
        *subscription.headers.items(),
        ("User-Agent", f"cycles-embedded/{__version__}"),
        (EVENT_ID_HEADER, members["event_id"]),
        (EVENT_TYPE_HEADER, members["event_type"]),
        (SIGNATURE_HEADER, sign_webhook(event.body, subscription.secret)),
    ]
    if trace_id is not None:
        headers.append(("X-Cycles-Trace-Id", trace_id))
        headers.append(("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-{event.flags}"))
    if "request_id" in members:
        headers.append(("X-Request-Id", members["request_id"]))
    return headers


class Sender:
    """Makes attempts over HTTP. Redirects are not followed, and no proxy of the environment is used."""

    def __init__(self) -> None:
        self._client = httpx.Client(follow_redirects=False, trust_env=False)

    def post(
        self, subscription: Subscription, event: Event, trace_id: str | None, timeout: httpx.Timeout = TIMEOUT
    ) -> Attempt:
        """Post an event and return what happened."""
        began = time.monotonic()
        status, error = None, None
        try:
            headers = headers_of(subscription, event, trace_id)
            with self._client.stream(
                "POST", subscription.url, content=event.body, headers=headers, timeout=timeout
            ) as response:
                status = response.status_code  # the body is not read
        # RuntimeError: the server was closed; ValueError: a header of the subscription is not ASCII
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, ValueError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        return Attempt(status, int((time.monotonic() - began) * 1000), error)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
