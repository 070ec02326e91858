"""The state of the heartbeat of one reservation. One of the two classes of the flows that hold a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cycles._core.lease.planner import ExtendAttempt, Lease, Step, Stop
from cycles._core.requests import new_key
from cycles._errors import CyclesError, LeaseLostError


class Heartbeat:
    """The lease of one reservation while somebody keeps it: the planner's value, its next step, and why it ended."""

    __slots__ = (
        "_beating",
        "_lock",
        "adopted",
        "ended",
        "error",
        "extend_by_ms",
        "key",
        "lease",
        "on_lost",
        "reservation_id",
        "step",
        "stop",
        "timer",
        "trace_id",
    )

    def __init__(self, reservation_id: str, extend_by_ms: int, lease: Lease, step: Step, trace_id: str | None) -> None:
        self.reservation_id = reservation_id
        self.extend_by_ms = extend_by_ms
        self.trace_id = trace_id
        self.lease = lease
        self.step: Step | None = step
        self.key = ""
        self.error: CyclesError | None = None
        self.stop: Stop | None = None
        self.ended = False
        self.adopted = False  # the keeper makes the beats from now on, whoever made them before
        self.timer: Any = None
        self._beating = False
        self.on_lost: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def begin(self) -> ExtendAttempt | None:
        """The beat to make now, with its key in place; None if the heartbeat has ended, or somebody is making it."""
        with self._lock:
            step = self.step
            if self.ended or self._beating or not isinstance(step, ExtendAttempt):
                return None
            self._beating = True
            if step.fresh_key or not self.key:
                self.key = new_key()
            return step

    def interrupted(self) -> None:
        """The attempt was given up in the middle: whoever makes the beat next repeats it, key and payload."""
        with self._lock:
            self._beating = False
            if isinstance(self.step, ExtendAttempt):
                self.step = self.step._replace(fresh_key=False)

    def advance(self, lease: Lease, step: Step) -> None:
        """The planner's word on what happened."""
        with self._lock:
            self._beating = False
            self.lease = lease
            self.step = step
            if isinstance(step, Stop) and self.stop is None:
                self.stop = step

    @property
    def lost(self) -> bool:
        """True once the heartbeat has stopped for good while somebody still wanted it."""
        return self.stop is not None

    @property
    def expires_at_ms(self) -> int | None:
        """Server time of the end of the lease, as far as it is known."""
        return self.lease.expires_at_ms

    def set_timer(self, timer: Any) -> None:
        """The driver's timer of the next beat, in place of the one before. Whoever ends the heartbeat may be faster."""
        self.drop_timer()
        self.timer = timer
        if self.ended:
            self.drop_timer()

    def drop_timer(self) -> None:
        """No beat is due any more."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def end(self) -> None:
        """Nobody needs the lease any more."""
        with self._lock:
            self.ended = True
            self.on_lost = None

    def lost_error(self) -> LeaseLostError:
        """What a user is told about the loss."""
        detail = self.stop.detail if self.stop is not None else "the heartbeat stopped"
        error = LeaseLostError(
            f"the lease of reservation {self.reservation_id} was lost: {detail}", reservation_id=self.reservation_id
        )
        error.__cause__ = self.error
        return error
