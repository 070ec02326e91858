"""A heartbeat continues after 401 and 403 while the lease lasts: keys are corrected, and stores recover."""

from __future__ import annotations

from typing import Any, cast

import pytest
from attrs import define, field

import cycles
from cycles._core.lease.planner import ExtendAttempt, Failure, FailureKind, Stop, StopReason
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success
from cycles._core.messages.requests import Call
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.protocol import ERROR_CODES, UNLISTED_4XX, UNLISTED_5XX
from cycles._core.subjects import Action, Subject
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import Io, run
from cycles._flows.reserve import open_lease
from tests.lease.lease_io import VirtualIo
from tests.lease.planning import TRANSPORT, attempt, opened, stop

TTL_MS = 60_000
STORE_DOWN = RejectedResponse(401, "UNAUTHORIZED", "INTERNAL_ERROR")
REJECTIONS = (
    STORE_DOWN,
    RejectedResponse(401, "UNAUTHORIZED", "KEY_NOT_FOUND"),
    RejectedResponse(401, None, "a proxy's page", conformant=False),
    RejectedResponse(403, "FORBIDDEN", "another tenant"),
    RejectedResponse(403, "NOT_FOUND", "a code of another status"),
)
KEY_REJECTED = Failure(FailureKind.KEY_REJECTED, "KEY_NOT_FOUND (HTTP 401, UNAUTHORIZED)", "UNAUTHORIZED")


@define
class LeaseIo(VirtualIo):
    """`Io` of one lease on a virtual clock, whose extends are rejected until `fixed_at_ms`."""

    rejection: RejectedResponse
    fixed_at_ms: float = float("inf")
    timeout_s: float = 5.0
    clock_ms: float = 0.0
    keys: list[str] = field(factory=list)
    events: list[Any] = field(factory=list)

    async def send(self, call: Call) -> Outcome:
        body = {"expires_at_ms": int(self.clock_ms) + TTL_MS, "remaining_ttl_ms": TTL_MS}
        if call.operation == "extendReservation":
            assert call.body is not None
            self.keys.append(call.body["idempotency_key"])
            if self.clock_ms < self.fixed_at_ms:
                return self.rejection
            body["status"] = "ACTIVE"  # type: ignore[assignment]
        else:
            body |= {"decision": "ALLOW", "reservation_id": "r1", "affected_scopes": []}  # type: ignore[dict-item]
        return Success(body, None, None, self.clock_ms / 1000, self.clock_ms / 1000, b"")

    def of(self, name: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == name]


def keep(io: LeaseIo, until_ms: float) -> Heartbeat:
    """Reserve, and send every heartbeat that is due before `until_ms`."""
    request = ReserveRequest(
        estimate=cycles.tokens(1), subject=Subject(tenant="acme"), action=Action("test", "work"), ttl_ms=TTL_MS
    )
    heartbeat = run(open_lease(cast(Io, io), request, lambda guard: None)).heartbeat
    assert heartbeat is not None
    while isinstance(heartbeat.step, ExtendAttempt) and heartbeat.step.due_ms < until_ms:
        io.clock_ms = max(io.clock_ms, heartbeat.step.due_ms)
        run(send_heartbeat(cast(Io, io), heartbeat))
    return heartbeat


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda each: f"{each.status} {each.message}")
def test_the_heartbeat_continues_after_an_outage(rejection: RejectedResponse) -> None:
    io = LeaseIo(rejection, fixed_at_ms=55_000)  # the first heartbeat is due after 49 s
    heartbeat = keep(io, until_ms=60_000)
    assert not heartbeat.lost
    assert len(io.of("LeaseExtended")) == 1
    assert io.of("LeaseLost") == []
    assert len(set(io.keys)) == 1  # repeated with its key


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda each: f"{each.status} {each.message}")
def test_the_loss_is_reported_once_and_when_the_lease_ends(rejection: RejectedResponse) -> None:
    io = LeaseIo(rejection)
    heartbeat = keep(io, until_ms=float("inf"))
    (lost,) = io.of("LeaseLost")
    assert heartbeat.lost
    assert io.clock_ms == TTL_MS
    assert "the lease has ended" in str(lost)
    assert len(io.of("LeaseRetrying")) == len(io.keys) - 1 == 6


@pytest.mark.parametrize(("code", "row"), ERROR_CODES.items())
def test_each_row_of_the_table_says_whether_the_heartbeat_stops(code: str, row: Any) -> None:
    io = LeaseIo(RejectedResponse(row.status, code, "scripted", retry_after_ms=1_000), fixed_at_ms=50_000)
    assert keep(io, until_ms=60_000).lost is row.stops_heartbeat


@pytest.mark.parametrize(("status", "row"), [(404, UNLISTED_4XX), (418, UNLISTED_4XX), (520, UNLISTED_5XX)])
def test_the_default_rows_say_whether_the_heartbeat_stops(status: int, row: Any) -> None:
    io = LeaseIo(RejectedResponse(status, None, "scripted"), fixed_at_ms=50_000)
    assert keep(io, until_ms=60_000).lost is row.stops_heartbeat


def test_the_pauses_grow_and_are_short_before_the_end_of_the_lease() -> None:
    lease, step = opened(TTL_MS)
    dues = []
    while True:
        now, _ = attempt(step)
        dues.append(now)
        lease, step = lease.failed(KEY_REJECTED, now)
        if isinstance(step, Stop):
            break
        assert attempt(step)[1] is False
    assert dues == [49_000, 50_000, 52_000, 56_000, 58_000, 59_000, 60_000]
    assert stop(step) is StopReason.REJECTED


def test_a_long_lease_is_tried_every_30_seconds() -> None:
    lease, _ = opened(3_600_000, ttl=3_600_000)
    now = 0.0
    for _ in range(8):
        lease, step = lease.failed(KEY_REJECTED, now)
        wait = attempt(step)[0] - now
        now += wait
    assert wait == 30_000


def test_a_timeout_between_rejections_follows_its_own_rule() -> None:
    lease, _ = opened(TTL_MS)
    lease, step = lease.failed(KEY_REJECTED, 49_000)
    lease, step = lease.failed(TRANSPORT, 50_000)
    assert attempt(step) == (52_500, False)
    lease, step = lease.failed(KEY_REJECTED, 52_500)
    assert attempt(step) == (52_500 + 3_750, False)


def test_a_lease_without_remaining_ttl_is_retried_after_its_usual_delay() -> None:
    lease, _ = opened(None)
    _, step = lease.failed(KEY_REJECTED, 100)
    assert attempt(step) == (30_100, False)
