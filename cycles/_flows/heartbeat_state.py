"""The state of the heartbeat of one reservation. With `GuardState`, one of the two flow classes that hold a lock.

The lock is re-entrant, as that of a guard and for the same reason: a signal handler may close the client.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from attrs import define, field

from cycles._core.lease.planner import ExtendAttempt, Lease, Step, Stop
from cycles._core.messages.requests import CallOptions, new_key
from cycles._errors import CyclesError, LeaseLostError


class LeaseOwner(Protocol):
    """What needs a lease: a guard, or the chunk of a pool."""

    def may_extend(self) -> bool:
        """Return whether the lease is still needed when an attempt is due."""
        ...

    def lease_changed(self, event: Literal["lease_lost", "extended"]) -> object:
        """Follow with the own state. Called before the loss is reported."""

    def lease_lost(self) -> object:
        """Act on the loss. Called once, after it is reported."""


@define(eq=False, repr=False)
class Heartbeat:
    """One lease while it is renewed: the planner's value, its next step, and why the heartbeat stopped.

    Attributes:
        owner: Needs the lease, and is notified of what happens to it. None: it has ended.
        key: Of the attempt that is due; a repetition of an attempt has the same.
        stop: Why the lease is lost; None as long as it is not.
        error: The failure of the last attempt.
        ended: Whether the lease is not needed any longer.
        adopted: True if the scheduler thread sends the extends from now on, also of an async guard.
        timer: The driver's timer of the next attempt, or None.
    """

    reservation_id: str
    extend_by_ms: int
    lease: Lease
    step: Step | None
    options: CallOptions
    owner: LeaseOwner | None = None
    key: str = ""
    stop: Stop | None = None
    error: CyclesError | None = None
    ended: bool = False
    adopted: bool = False
    timer: Any = None
    _attempting: bool = False
    # By a lambda, which looks the class up at each call: the simulation replaces it.
    _lock: AbstractContextManager[bool] = field(factory=lambda: threading.RLock(), init=False)

    @property
    def trace_id(self) -> str | None:
        """The trace id of its requests."""
        return self.options.trace_id

    def begin(self) -> ExtendAttempt | None:
        """Return the attempt to make now, with its key in place.

        None means that the heartbeat has ended, or that another thread is already making the attempt.
        """
        with self._lock:
            step, key = self.step, new_key()
            if not isinstance(step, ExtendAttempt) or self.ended or self._attempting:
                return None
            # One attempt at a time: a timer and a thread of the adopted heartbeat may be due together.
            self._attempting = True
            # A repetition has the key of its attempt, so a server extends at most once for both.
            if step.fresh_key or not self.key:
                self.key = key
            return step

    def interrupted(self) -> None:
        """Note that the attempt was aborted: the next one repeats its key and payload."""
        with self._lock:
            self._attempting = False
            if isinstance(self.step, ExtendAttempt):
                self.step = self.step._replace(fresh_key=False)

    def advance(self, lease: Lease, step: Step) -> None:
        """Store the planner's lease and next step after an attempt."""
        with self._lock:
            stop = step if isinstance(step, Stop) else None
            is_loss = stop is not None and self.stop is None
            self._attempting = False
            self.lease = lease
            self.step = step
            if is_loss:
                self.stop = stop
        if is_loss:
            # Outside of the lock: the owner takes locks of its own.
            self._notify("lease_lost")

    def resume(self) -> None:
        """Clear the loss: a manual extend has succeeded."""
        if self.stop is not None:
            self.stop = None
            self._notify("extended")

    def _notify(self, event: Literal["lease_lost", "extended"]) -> None:
        owner = self.owner
        if owner is not None:
            owner.lease_changed(event)

    @property
    def lost(self) -> bool:
        """True once the heartbeat has stopped permanently while the guard needed it."""
        return self.stop is not None

    @property
    def expires_at_ms(self) -> int | None:
        """The end of the lease in server time (ms), if it is known."""
        return self.lease.expires_at_ms

    def set_timer(self, timer: Any) -> None:
        """Replace the driver's timer of the next attempt. If the heartbeat has ended in the meantime, cancel it."""
        # The end may come between the two lines, and would not see the new timer.
        self.drop_timer()
        self.timer = timer
        if self.ended:
            self.drop_timer()

    def drop_timer(self) -> None:
        """Cancel the timer of the next attempt."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def end(self) -> None:
        """End the heartbeat: the lease is not needed any longer."""
        with self._lock:
            # Under the lock, so that no attempt begins after the end of the guard.
            self.ended = True
            self.owner = None
        self.drop_timer()

    def lost_error(self) -> LeaseLostError:
        """Return the exception that reports the loss; its cause is the failure of the last attempt."""
        detail = self.stop.detail if self.stop is not None else "the heartbeat stopped"
        error = LeaseLostError(
            f"the lease of reservation {self.reservation_id} was lost: {detail}; committed amounts are charged anyway",
            reservation_id=self.reservation_id,
        )
        error.__cause__ = self.error
        return error
