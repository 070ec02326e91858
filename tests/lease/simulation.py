"""A server and a network on a virtual clock, to try the planner against. Times are milliseconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from cycles._core.lease.planner import ExtendAttempt, Failure, FailureKind, Grant, Lease, Step, Stop


@dataclass
class Server:
    """Grants time by one of three rules: it adds, it clamps each extension, or it clamps the lead."""

    ttl_ms: int
    max_extension_ms: float = math.inf
    max_lead_ms: float = math.inf
    tick_ms: int = 1  # how coarse its clock is
    tells_remaining: bool = True
    ahead_ms: int = 1_700_000_000_000  # its clock has nothing to do with ours
    expires_ms: int = 0
    by_key: dict[object, int] = field(default_factory=dict)

    def now(self, now_ms: float) -> int:
        return math.floor((now_ms + self.ahead_ms) / self.tick_ms) * self.tick_ms

    def create(self, now_ms: float) -> tuple[int | None, int]:
        self.expires_ms = self.now(now_ms) + int(min(self.ttl_ms, self.max_lead_ms))
        return self._answer(now_ms, self.expires_ms)

    def alive(self, now_ms: float) -> bool:
        return self.now(now_ms) < self.expires_ms

    def extend(self, key: object, now_ms: float) -> tuple[int | None, int]:
        if key not in self.by_key:
            longest = self.now(now_ms) + self.max_lead_ms
            granted = self.expires_ms + min(self.ttl_ms, self.max_extension_ms)
            self.expires_ms = max(self.expires_ms, int(min(granted, longest)))
            self.by_key[key] = self.expires_ms
        return self._answer(now_ms, self.by_key[key])

    def _answer(self, now_ms: float, expires_ms: int) -> tuple[int | None, int]:
        return (max(0, expires_ms - self.now(now_ms)) if self.tells_remaining else None), expires_ms


class Fate(Enum):
    """What the network does to one attempt."""

    OK = "ok"
    LOST_REQUEST = "lost request"
    LOST_ANSWER = "lost answer"
    SERVER_ERROR = "503"
    THROTTLED = "429"


@dataclass(frozen=True)
class Attempt:
    """One drawn attempt: its fate, its travel times, how late its timer fired, the Retry-After of a 429."""

    fate: Fate = Fate.OK
    there_ms: float = 1.0
    back_ms: float = 1.0
    late_ms: float = 0.0
    retry_after_ms: int | None = 0


@dataclass
class Run:
    """A lease kept alive against a server for a while, and all that can be said about it afterwards."""

    server: Server
    timeout_ms: float = 5_000.0
    now_ms: float = 0.0
    lapsed: bool = False
    starts: list[float] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    succeeded: list[bool] = field(default_factory=list)
    stopped: Stop | None = None

    def keep(self, attempts: Iterator[Attempt], until_ms: float) -> None:
        first = next(attempts)
        answered = self.server.create(first.there_ms)
        self.now_ms = first.there_ms + first.back_ms
        lease, step = Lease.opened(
            ttl_ms=self.server.ttl_ms, timeout_ms=self.timeout_ms, grant=Grant(*answered, 0.0, self.now_ms)
        )
        while isinstance(step, ExtendAttempt) and step.due_ms < until_ms:
            assert len(self.starts) < 5_000, "a loop without end"
            lease, step = self._attempt(lease, step, next(attempts))
        if isinstance(step, Stop):
            self.stopped = step
        else:
            self._watch(until_ms)

    def _attempt(self, lease: Lease, beat: ExtendAttempt, attempt: Attempt) -> tuple[Lease, Step]:
        self.waits.append(beat.due_ms - self.now_ms)
        self.starts.append(max(self.now_ms, beat.due_ms) + attempt.late_ms)
        self.keys.append(len(self.keys) if beat.fresh_key else self.keys[-1])
        started, key = self.starts[-1], self.keys[-1]
        arrived, back = started + attempt.there_ms, started + attempt.there_ms + attempt.back_ms
        answered = None
        if attempt.fate in (Fate.OK, Fate.LOST_ANSWER):
            self._watch(arrived)
            answered = self.server.extend(key, arrived)
        lost = attempt.fate in (Fate.LOST_REQUEST, Fate.LOST_ANSWER) or back - started > beat.timeout_ms
        self.now_ms = started + beat.timeout_ms if lost else back
        self.succeeded.append(answered is not None and not lost)
        if answered is not None and not lost:
            return lease.granted(Grant(*answered, started, self.now_ms))
        return lease.failed(_failure(attempt, lost), self.now_ms)

    def _watch(self, now_ms: float) -> None:
        self.lapsed = self.lapsed or not self.server.alive(now_ms)


def _failure(attempt: Attempt, lost: bool) -> Failure:
    if lost:
        return Failure(FailureKind.TRANSPORT, "timed out")
    if attempt.fate is Fate.THROTTLED:
        return Failure(FailureKind.RATE_LIMITED, "HTTP 429", "LIMIT_EXCEEDED", attempt.retry_after_ms)
    return Failure(FailureKind.SERVER, "HTTP 503")
