"""The words of the lease planner: what goes into it and what comes out. All times are monotonic milliseconds.

Named tuples, not attrs classes: every process loads these before its first call, and six attrs classes take 2 ms.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from cycles._core.protocol import ERROR_CODES


class FailureKind(StrEnum):
    """What became of an extend attempt that granted nothing."""

    TRANSPORT = "transport"  # time-out, connection error: the outcome is unknown
    AMBIGUOUS = "ambiguous"  # an answer that proves nothing (semantics 10.1)
    SERVER = "server"  # 5xx
    RATE_LIMITED = "rate_limited"  # 429
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


PERMANENT: Final = {code: StopReason(row.stop_reason) for code, row in ERROR_CODES.items() if row.stop_reason}
"""Codes after which no extend can succeed (`docs/protocol/heartbeat.md#permanent-codes`)."""


class NoticeKind(StrEnum):
    """What a driver tells the user once in the life of a lease."""

    SHORT_LEASE = "short_lease"
    FALLBACK = "fallback"
    EXTENSION_BUDGET = "extension_budget"


class Grant(NamedTuple):
    """One schema-valid answer to a create or an extend (semantics 10.1).

    Attributes:
        remaining_ttl_ms: What the server says is left; None where it does not say (null counts as absent).
        expires_at_ms: Server time; only ever compared with other values of itself.
        sent_ms: Monotonic, just before the attempt; None where the timing is unknown.
        received_ms: Monotonic, after the complete valid body.
    """

    remaining_ttl_ms: int | None
    expires_at_ms: int | None
    sent_ms: float | None
    received_ms: float


class Failure(NamedTuple):
    """One failed extend attempt, already judged. `retry_after_ms` is None where it is missing or malformed."""

    kind: FailureKind
    detail: str
    code: str | None = None
    retry_after_ms: int | None = None


class ExtendAttempt(NamedTuple):
    """Make the next extend attempt at `due_ms` (monotonic; the past means now).

    Attributes:
        fresh_key: True for a new idempotency key; False repeats the last attempt, key and payload.
        cut_ms: How long the whole attempt may take, counted from its own start, before it is cut off.
    """

    due_ms: float
    fresh_key: bool
    cut_ms: float


class Stop(NamedTuple):
    """Make no further attempt. `permanent` means that the server said so; `detail` is for the user."""

    reason: StopReason
    detail: str
    permanent: bool


class Notice(NamedTuple):
    """Something the user should know, although the heartbeat goes on."""

    kind: NoticeKind
    detail: str


Step = ExtendAttempt | Stop


class FailedAttempt(NamedTuple):
    """The last failed attempt since the last success: what the progress guard compares with (semantics 10.3)."""

    elapsed_ms: float
    window_ms: float
    wait_ms: float
