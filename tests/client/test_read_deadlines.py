"""A read that is repeated takes no longer than one timeout. A write is repeated a number of times."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from cycles._core.messages.outcome import Outcome, RejectedResponse, Unreachable
from cycles._core.messages.requests import Call, CallOptions
from cycles._core.protocol import CREATE_RESERVATION, GET_BALANCES
from cycles._drivers.io.threads import CLOCK
from cycles._flows.io import Settings, run
from cycles._flows.retry import send_read, send_write


class Silent:
    """A server that takes four seconds to fail, and its client, whose time only they move."""

    def __init__(self, outcome: Outcome | None = None, takes_s: float = 4.0) -> None:
        self.outcome = outcome or Unreachable("no response")
        self.takes_s = takes_s
        self.now_ms = 0.0
        self.late_s = 0.0  # how much longer than requested each pause takes
        self.timeouts: list[float | None] = []
        self.pauses: list[float | None] = []
        self.settings = Settings("http://localhost", 10.0, 1)
        self.clock = evolve(CLOCK, now_ms=lambda: self.now_ms, random=lambda: 0.5)

    async def send(self, call: Call) -> Outcome:
        self.timeouts.append(call.timeout_s)
        self.now_ms += min(self.takes_s, call.timeout_s or 0.0) * 1000
        return self.outcome

    async def wait(self, signal: Any, timeout_s: float | None = None) -> bool:
        self.pauses.append(timeout_s)
        self.now_ms += ((timeout_s or 0.0) + self.late_s) * 1000
        return False


@pytest.mark.parametrize(("own", "timeouts"), [(None, [10.0, 5.9, 1.7]), (5.0, [5.0, 0.9])])
def test_each_attempt_has_what_is_left_of_the_timeout(own: float | None, timeouts: list[float]) -> None:
    client: Any = Silent()
    outcome = run(send_read(client, Call(GET_BALANCES, options=CallOptions(timeout_s=own))))
    assert isinstance(outcome, Unreachable)
    assert client.timeouts == pytest.approx(timeouts)
    assert client.now_ms <= (own or 10.0) * 1000


def test_an_attempt_after_a_pause_that_took_too_long_has_no_time_left() -> None:
    client: Any = Silent()
    client.late_s = 20.0
    assert run(send_read(client, Call(GET_BALANCES))) is client.outcome
    assert client.timeouts == [10.0, 0.001]


def test_a_write_is_sent_again_immediately_and_then_after_pauses_that_grow() -> None:
    client: Any = Silent()
    outcome = run(send_write(client, Call(CREATE_RESERVATION, options=CallOptions(max_retries=4))))
    assert isinstance(outcome, Unreachable)
    assert len(client.timeouts) == 5
    assert client.pauses == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize(
    ("retry_after_ms", "pauses"),
    [(0, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]), (1_000, [1.0] * 9), (10_000, []), (None, [])],
    ids=["0 s", "1 s", "the timeout", "none"],
)
def test_a_read_is_repeated_when_a_429_says_so_and_never_without_a_pause(
    retry_after_ms: int | None, pauses: list[float]
) -> None:
    client: Any = Silent(RejectedResponse(429, "LIMIT_EXCEEDED", "slow down", retry_after_ms=retry_after_ms), 0.0)
    assert run(send_read(client, Call(GET_BALANCES))) is client.outcome
    assert client.pauses == pytest.approx(pauses)
    assert len(client.timeouts) == len(pauses) + 1
