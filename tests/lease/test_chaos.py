"""A minute of chaos, on virtual time: every lease that could be kept was kept, and none was lost silently."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

import cycles
from cycles._core.lease.planner import ExtendAttempt
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.subjects import Action, Subject
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import Io, run
from cycles._flows.reserve import open_lease
from tests.lease.lease_io import VirtualIo
from tests.lease.simulation import Server

MINUTE_MS = 60_000.0
RTT_MS = 150.0  # of a healthy response, at most
LATE_MS = 50.0  # of a timer, at most


class ChaosIo(VirtualIo):
    """`Io` for one lease: the clock is virtual, and the network does to each extend what it likes."""

    timeout_s = 5.0

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.dice = random.Random(seed)
        self.clock_ms = 0.0
        self.events: list[Any] = []
        self.bodies: list[Any] = []
        self.answered: list[bool] = []
        self.could_be_kept = True
        self.told: tuple[int, int] = (0, 0)  # what was left, and when it ends, by the last response that arrived
        self.lapsed = False

    async def send(self, call: Call) -> Outcome:
        if call.operation != "extendReservation":
            return self._create()
        assert call.body is not None
        assert call.timeout_s is not None
        self.bodies.append(call.body)
        outcome = self._extend(call.body["idempotency_key"], call.timeout_s * 1000)
        self.answered.append(isinstance(outcome, Success))
        if not isinstance(outcome, Success):
            self.could_be_kept = self._a_retry_is_safe(getattr(outcome, "retry_after_ms", 0))
        return outcome

    def _a_retry_is_safe(self, asked_ms: int | None) -> bool:
        """Whether an attempt and a margin of a second still fit, as far as the client can know."""
        told_ms, ends_ms = self.told
        least_ms = max(1_000, told_ms / 8) + 1_000 + RTT_MS
        return asked_ms is not None and ends_ms - self.server.now(self.clock_ms) - asked_ms >= least_ms

    def _create(self) -> Success:
        started, (remaining, expires) = self.clock_ms, self.server.create(self.clock_ms + 1)
        self.clock_ms += 2
        body = {"decision": "ALLOW", "reservation_id": "r1", "affected_scopes": []}
        return self._success({**body, "remaining_ttl_ms": remaining, "expires_at_ms": expires}, started)

    def _extend(self, key: str, timeout_ms: float) -> Outcome:
        started, there, back = self.clock_ms, *(self.dice.uniform(0, RTT_MS / 2) for _ in range(2))
        fate = self.dice.choices(["ok", "503", "429", "lost request", "lost answer"], [60, 12, 8, 10, 10])[0]
        if fate in ("ok", "lost answer"):
            self.lapsed = self.lapsed or not self.server.alive(started + there)
            remaining, expires = self.server.extend(key, started + there)
        self.clock_ms = started + (timeout_ms if fate.startswith("lost") else there + back)
        if fate == "ok":
            return self._success({"status": "ACTIVE", "remaining_ttl_ms": remaining, "expires_at_ms": expires}, started)
        if fate.startswith("lost"):
            return Unreachable("timed out", TimeoutError())
        retry_after_ms = self.dice.choice([0, 0, 1_000, None]) if fate == "429" else None
        if fate == "503":
            return RejectedResponse(503, "INTERNAL_ERROR", "scripted", retry_after_ms=0)
        return RejectedResponse(429, "LIMIT_EXCEEDED", "scripted", retry_after_ms=retry_after_ms)

    def _success(self, body: dict[str, Any], started_ms: float) -> Success:
        self.told = body["remaining_ttl_ms"], body["expires_at_ms"]
        return Success(body, None, None, started_ms / 1000, self.clock_ms / 1000, b"{}")


def keep_for_a_minute(server: Server, seed: int) -> tuple[ChaosIo, Heartbeat]:
    io = ChaosIo(server, seed)
    plan = ReserveRequest(
        estimate=cycles.tokens(1), action=Action("a", "b"), subject=Subject(tenant="acme"), ttl_ms=server.ttl_ms
    )
    heartbeat = run(open_lease(cast(Io, io), plan, lambda guard: None)).heartbeat
    assert heartbeat is not None
    while isinstance(step := heartbeat.step, ExtendAttempt) and step.due_ms < MINUTE_MS:
        io.clock_ms = max(io.clock_ms, step.due_ms) + io.dice.uniform(0, LATE_MS)
        run(send_heartbeat(cast(Io, io), heartbeat))
    if not heartbeat.lost:
        io.lapsed = io.lapsed or not server.alive(MINUTE_MS)
    return io, heartbeat


def named(io: ChaosIo, name: str) -> list[Any]:
    return [event for event in io.events if type(event).__name__ == name]


@pytest.mark.parametrize("max_lead_ms", [float("inf"), 9_000.0])
def test_every_lease_that_could_be_kept_was_kept(max_lead_ms: float) -> None:
    kept = lost = retried = 0
    for seed in range(300):
        io, heartbeat = keep_for_a_minute(Server(10_000, max_lead_ms=max_lead_ms), seed)
        assert not io.lapsed
        losses, retries = named(io, "LeaseLost"), named(io, "LeaseRetrying")
        assert len(losses) == heartbeat.lost
        assert len(retries) + len(losses) == io.answered.count(False)  # each failure is said once, and no more
        if heartbeat.lost:
            assert not io.could_be_kept, seed
            assert io.server.alive(io.clock_ms)  # and said while the lease still held
        for before, after, answered in zip(io.bodies, io.bodies[1:], io.answered, strict=False):
            assert (before == after) is not answered
        kept, lost, retried = kept + (not heartbeat.lost), lost + heartbeat.lost, retried + len(retries)
    assert min(kept, lost) > 20  # the minute was hard, and not hopeless
    assert retried > 300
