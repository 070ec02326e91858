"""The lease planner. See `docs/protocol/heartbeat.md`.

A `Lease` is an immutable value. It takes what happened (a response that granted time, an attempt that failed) and
returns the next lease and one next step: an `ExtendAttempt` to make, or a `Stop`. The caller owns the clock, the timer
and the attempt. All times are monotonic milliseconds; the formulas are in `arithmetic` and `fallback`.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

from cycles._core.lease import arithmetic as primary, fallback
from cycles._core.lease.values import (
    PERMANENT,
    ExtendAttempt,
    FailedAttempt,
    Failure,
    FailureKind,
    Grant,
    Notice,
    NoticeKind,
    Step,
    Stop,
    StopReason,
)

__all__ = [
    "ExtendAttempt",
    "Failure",
    "FailureKind",
    "Grant",
    "Lease",
    "Notice",
    "NoticeKind",
    "Step",
    "Stop",
    "StopReason",
]


class Lease(NamedTuple):
    """What is known of one lease. Make it with `opened`, then follow `granted` and `failed`.

    Attributes:
        notices: What this last change has to report; each kind once in the life of a lease.
        extensions: How many extends succeeded.
        expires_at_ms: Server time, of the last response that had one.
    """

    ttl_ms: int
    timeout_ms: float
    opened_ms: float
    response_ms: float
    expires_at_ms: int | None
    confirmed_until_ms: float
    deadline_ms: float
    delay_ms: float
    by_remaining_ttl: bool = False
    lead_ms: float = 0.0
    largest_rtt_ms: float = 0.0
    granted_ms: float = 0.0
    extensions: int = 0
    last_failure: FailedAttempt | None = None
    reported: frozenset[NoticeKind] = frozenset()
    notices: tuple[Notice, ...] = ()

    @classmethod
    def opened(cls, *, ttl_ms: int, timeout_ms: float, grant: Grant) -> tuple[Self, Step]:
        """Return the lease of a create response, and its first step.

        Args:
            ttl_ms: As requested at reserve; each extend requests the same.
            timeout_ms: The configured timeout of a whole attempt; infinity is allowed.
            grant: The create response.
        """
        lease = cls(
            ttl_ms=ttl_ms,
            timeout_ms=timeout_ms,
            opened_ms=grant.received_ms,
            response_ms=grant.received_ms,
            expires_at_ms=grant.expires_at_ms,
            confirmed_until_ms=grant.received_ms,
            deadline_ms=primary.deadline_ms(timeout_ms, ttl_ms),
            delay_ms=fallback.hold_ms(ttl_ms),
        )
        if grant.remaining_ttl_ms is not None:
            return lease._by_primary(grant, grant.remaining_ttl_ms, timeout_ms)
        lease = lease._with_notice(NoticeKind.FALLBACK, _FALLBACK)  # an immediate extension measures the first grant
        return lease, lease._attempt(grant.received_ms, fresh_key=True)

    def granted(self, grant: Grant) -> tuple[Self, Step]:
        """Return the lease after a successful extend, and the next step. The response selects the algorithm."""
        # A success ends the series of failures against which the next one must show progress.
        lease = self._replace(extensions=self.extensions + 1, last_failure=None, notices=())
        if grant.remaining_ttl_ms is None:
            return lease._by_fallback(grant)
        return lease._by_primary(grant, grant.remaining_ttl_ms, self.deadline_ms)

    def failed(self, failure: Failure, now_ms: float) -> tuple[Self, Step]:
        """Return the lease after an attempt that granted nothing, and the next step."""
        lease = self._replace(notices=())
        # The server has run the request and said no: the same request gets the same response.
        if failure.kind is FailureKind.REJECTED:
            return lease, self._rejected(failure)
        if self.by_remaining_ttl and failure.kind is FailureKind.KEY_REJECTED:
            return lease._retry_key(failure, now_ms)
        if self.by_remaining_ttl:
            return lease._recover(failure, now_ms)
        return lease, self._hold_on(failure, now_ms)

    def lasts_until_ms(self) -> float:
        """Return until when (monotonic) the lease is confirmed. It may last longer."""
        return self.confirmed_until_ms

    def _by_primary(self, grant: Grant, remaining_ttl_ms: int, enforced_ms: float) -> tuple[Self, Step]:
        """Apply the primary algorithm to this response; only the largest rtt comes from earlier ones."""
        rtt = primary.rtt_ms(grant.sent_ms, grant.received_ms)
        lead = primary.lead_floor_ms(remaining_ttl_ms, rtt)
        deadline = primary.deadline_ms(self.timeout_ms, lead)
        largest_rtt = self._largest_rtt_ms(rtt, enforced_ms)
        reserve = primary.retry_reserve_ms(deadline, largest_rtt)
        delay = primary.next_delay_ms(lead, reserve)
        lease = self._replace(
            response_ms=grant.received_ms,
            expires_at_ms=self._expiry(grant),
            confirmed_until_ms=grant.received_ms + lead,
            granted_ms=self.granted_ms + (self._measured(grant) or 0.0),
            by_remaining_ttl=True,
            lead_ms=lead,
            deadline_ms=deadline,
            delay_ms=delay,
            largest_rtt_ms=largest_rtt,
        )
        if delay > 0:
            if self.extensions:  # this response is that of an extend: the next one is not sent immediately after it
                delay = max(delay, primary.LEAST_DISTANCE_MS - (rtt or 0.0))
            return lease, lease._attempt(grant.received_ms + delay, fresh_key=True)
        short = _short_lease(lead, reserve, timing_known=rtt is not None)
        # Once may be a slow response. Twice in a row, each extend would be due immediately: a loop of requests.
        if self.delay_ms == 0:  # zero-delay guard
            return lease, Stop(StopReason.TOO_SHORT, short)
        return lease._with_notice(NoticeKind.SHORT_LEASE, short), lease._attempt(grant.received_ms, fresh_key=True)

    def _by_fallback(self, grant: Grant) -> tuple[Self, Step]:
        """Apply the fallback algorithm after an extension without `remaining_ttl_ms`."""
        measured = self._measured(grant)
        delay, clamped = fallback.pace(measured, grant.received_ms - self.response_ms, self.ttl_ms)
        lease = self._replace(
            response_ms=grant.received_ms,
            expires_at_ms=self._expiry(grant),
            confirmed_until_ms=self.confirmed_until_ms + (measured or 0.0),
            granted_ms=self.granted_ms + (measured or 0.0),
            by_remaining_ttl=False,
            lead_ms=0.0,
            largest_rtt_ms=self._largest_rtt_ms(primary.rtt_ms(grant.sent_ms, grant.received_ms), self.deadline_ms),
            deadline_ms=primary.deadline_ms(self.timeout_ms, self.ttl_ms),
            delay_ms=delay,
        )._with_notice(NoticeKind.FALLBACK, _FALLBACK)
        if clamped:
            lease = lease._with_notice(NoticeKind.EXTENSION_BUDGET, _EXTENSION_BUDGET)
        wait = fallback.wait_ms(delay, measured, lease._lead_min_ms(grant.received_ms))
        return lease, lease._attempt(grant.received_ms + wait, fresh_key=True)

    def _recover(self, failure: Failure, now_ms: float) -> tuple[Self, Step]:
        """Repeat the same key and payload while that is safe, computed from the last success.

        See `docs/protocol/heartbeat.md#recovery`.
        """
        elapsed = max(0.0, now_ms - self.response_ms)
        lead = primary.lead_now_ms(self.lead_ms, elapsed)
        window = primary.retry_window_ms(lead, self.deadline_ms, self.largest_rtt_ms)
        last = self.last_failure
        # A retry is safe as long as its whole timeout fits before the earliest end of the lease. One at the very end is
        # allowed once.
        if window < 0 or (last is not None and window == last.window_ms == 0):
            detail = f"{failure.detail}; no safe retry is left, {_seconds(lead)} before the lease may end"
            return self, Stop(StopReason.NO_SAFE_RETRY, detail)
        if last is not None and (elapsed, window) == (last.elapsed_ms, last.window_ms):
            detail = f"{failure.detail}; the clock has not moved since the last failure, so a retry would be a loop"
            return self, Stop(StopReason.NO_PROGRESS, detail)
        wait = primary.retry_wait_ms(lead, window)
        if failure.kind is FailureKind.RATE_LIMITED:
            requested = _requested_ms(failure)
            if requested is None or requested > window:
                return self, _throttled(failure, window)
            # repeated "Retry-After: 0" would be a loop without delay; waiting longer than requested is allowed
            wait = wait if requested == 0 and last is not None and last.wait_ms == 0 else requested
        lease = self._replace(last_failure=FailedAttempt(elapsed, window, wait))
        return lease, lease._attempt(now_ms + wait, fresh_key=False)

    def _retry_key(self, failure: Failure, now_ms: float) -> tuple[Self, Step]:
        """Repeat the same key and payload while the lease lasts: the server did not run the rejected attempts.

        See `docs/protocol/heartbeat.md#rejected-keys`.
        """
        elapsed = max(0.0, now_ms - self.response_ms)
        lead = primary.lead_now_ms(self.lead_ms, elapsed)
        # Unlike `_recover`: a key that is rejected is rejected before the operation runs, so no retry can do harm.
        if lead == 0:
            return self, Stop(StopReason.REJECTED, f"{failure.detail}; the lease has ended")
        window = primary.retry_window_ms(lead, self.deadline_ms, self.largest_rtt_ms)
        last = self.last_failure
        wait = primary.key_retry_wait_ms(lead, 0.0 if last is None else last.wait_ms)
        lease = self._replace(last_failure=FailedAttempt(elapsed, window, wait))
        return lease, lease._attempt(now_ms + wait, fresh_key=False)

    def _hold_on(self, failure: Failure, now_ms: float) -> Step:
        """Repeat a failed fallback attempt after the current delay, with its key, and never before `Retry-After`."""
        requested = 0.0
        guessed_lead = self.ttl_ms + self._lead_min_ms(now_ms)  # assumes that the reserve was granted in full
        if failure.kind is FailureKind.RATE_LIMITED:
            requested = _requested_ms(failure) or 0.0
            if requested > max(self.delay_ms, guessed_lead):
                return _throttled(failure, guessed_lead)
        # The end is a guess, so one more ttl is allowed before the attempts end.
        if guessed_lead < -self.ttl_ms:
            detail = f"{failure.detail}; the lease must have ended a whole ttl ago"
            return Stop(StopReason.NO_SAFE_RETRY, detail)
        return self._attempt(now_ms + max(self.delay_ms, requested), fresh_key=False)

    def _rejected(self, failure: Failure) -> Stop:
        """Stop after any other 4xx; an unchanged request is never sent again under a new key."""
        reason = PERMANENT.get(failure.code or "", StopReason.REJECTED)
        detail = failure.detail
        if reason is StopReason.MAX_EXTENSIONS:
            detail = f"{detail}; the server grants no more extensions after {self.extensions}; {_LONGER}"
        return Stop(reason, detail)

    def _attempt(self, due_ms: float, *, fresh_key: bool) -> ExtendAttempt:
        return ExtendAttempt(due_ms, fresh_key, primary.attempt_timeout_ms(self.deadline_ms))

    def _largest_rtt_ms(self, rtt: float | None, enforced_ms: float) -> float:
        """Return the largest rtt, without what a blocked event loop of this process added.

        An attempt that took longer than its deadline was delayed in this process. That must not make every later
        attempt earlier.
        """
        return max(self.largest_rtt_ms, min(rtt or 0.0, enforced_ms))

    def _lead_min_ms(self, now_ms: float) -> float:
        """Return the sum of grants minus the time since the reserve response."""
        return self.granted_ms - (now_ms - self.opened_ms)

    def _measured(self, grant: Grant) -> float | None:
        """Return how far this response moved the expiry, in server time."""
        if grant.expires_at_ms is None or self.expires_at_ms is None:
            return None
        return primary.saturated(grant.expires_at_ms - self.expires_at_ms)

    def _expiry(self, grant: Grant) -> int | None:
        return self.expires_at_ms if grant.expires_at_ms is None else grant.expires_at_ms

    def _with_notice(self, kind: NoticeKind, detail: str) -> Self:
        # Each kind once: a lease is extended every few seconds, and its server does not change.
        if kind in self.reported:
            return self
        return self._replace(reported=self.reported | {kind}, notices=(*self.notices, Notice(kind, detail)))


_LONGER: Final = "for longer work, reserve and commit part by part (client.lease_series)"
_FALLBACK: Final = "the server sends no remaining_ttl_ms; the heartbeat uses differences of expires_at_ms, best effort"
_EXTENSION_BUDGET: Final = (
    f"the server only refills the lease, so each extend uses up its extension budget (10 by default); {_LONGER}"
)


def _short_lease(lead: float, reserve: float, *, timing_known: bool) -> str:
    if not timing_known:
        return "the timing of the last response is unknown, so none of the lease is confirmed"
    return (
        f"the lease ({_seconds(lead)}) is not longer than its retry-safety budget ({_seconds(reserve)}); "
        "pass a longer ttl_ms, or find out why the server is slow or grants less"
    )


def _throttled(failure: Failure, window: float) -> Stop:
    requested = _requested_ms(failure)
    limit = "no usable Retry-After" if requested is None else f"Retry-After ({_seconds(requested)}) is too long"
    detail = f"{failure.detail}; {limit}, the lease leaves {_seconds(max(0.0, window))} to wait"
    return Stop(StopReason.RATE_LIMITED, detail)


def _requested_ms(failure: Failure) -> float | None:
    requested = failure.retry_after_ms
    return primary.saturated(requested) if requested is not None and requested >= 0 else None


def _seconds(ms: float) -> str:
    return f"{ms / 1000:g} s"
