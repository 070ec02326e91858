"""The arguments and results of the lease planner. All times are monotonic milliseconds.

They are named tuples, not attrs classes: every process loads them before its first call, and six attrs classes take
2 ms.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from cycles._core.protocol import ERROR_CODES


class FailureKind(StrEnum):
    """The outcome of an extend attempt that granted nothing."""

    TRANSPORT = "transport"  # timeout, connection error: the outcome is unknown
    AMBIGUOUS = "ambiguous"  # `docs/protocol/responses.md#ambiguous-responses`
    SERVER = "server"  # 5xx
    RATE_LIMITED = "rate_limited"  # 429
    KEY_REJECTED = "key_rejected"  # 401, 403: the key can be corrected, and the server's store can start again
    REJECTED = "rejected"  # any other 4xx


class StopReason(StrEnum):
    """Why no further attempt is made."""

    TOO_SHORT = "too_short"
    NO_SAFE_RETRY = "no_safe_retry"
    NO_PROGRESS = "no_progress"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"
    EXPIRED = "expired"
    FINALIZED = "finalized"
    MAX_EXTENSIONS = "max_extensions"
    TENANT_CLOSED = "tenant_closed"
    NOT_FOUND = "not_found"
    CLIENT_CLOSED = "client_closed"


PERMANENT: Final = {code: StopReason(row.stop_reason) for code, row in ERROR_CODES.items() if row.stop_reason}
"""Codes after which no extend can succeed (`docs/protocol/heartbeat.md#permanent-codes`)."""


class NoticeKind(StrEnum):
    """What is reported once in the life of a lease."""

    SHORT_LEASE = "short_lease"
    FALLBACK = "fallback"
    EXTENSION_BUDGET = "extension_budget"


class Grant(NamedTuple):
    """One valid response to a create or an extend (`docs/protocol/heartbeat.md#what-counts-as-a-success`).

    Attributes:
        remaining_ttl_ms: What is left, by the server; None if the response does not have it (null counts as absent).
        expires_at_ms: Server time; only ever compared with other values of itself.
        sent_ms: Monotonic, just before the attempt; None if the timing is unknown.
        received_ms: Monotonic, after the complete valid body.
    """

    remaining_ttl_ms: int | None
    expires_at_ms: int | None
    sent_ms: float | None
    received_ms: float


class Failure(NamedTuple):
    """One failed extend attempt, classified. `retry_after_ms` is None if it is missing or malformed."""

    kind: FailureKind
    detail: str
    code: str | None = None
    retry_after_ms: int | None = None


class ExtendAttempt(NamedTuple):
    """Make the next extend attempt at `due_ms` (monotonic; the past means now).

    Attributes:
        fresh_key: True for a new idempotency key; False repeats the last attempt, key and payload.
        timeout_ms: How long the whole attempt may take, counted from its own start.
    """

    due_ms: float
    fresh_key: bool
    timeout_ms: float


class Stop(NamedTuple):
    """Make no further attempt. `detail` says why, for the user."""

    reason: StopReason
    detail: str


class Notice(NamedTuple):
    """Something to report although the heartbeat continues."""

    kind: NoticeKind
    detail: str


Step = ExtendAttempt | Stop


class FailedAttempt(NamedTuple):
    """The last failed attempt since the last success; the next failure must show progress against it."""

    elapsed_ms: float
    window_ms: float
    wait_ms: float
