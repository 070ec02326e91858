"""Repeat a request with an unknown outcome, as far as the protocol allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from attrs import evolve

from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import Ambiguous, NoSuccess, Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call
from cycles._core.protocol import error_code
from cycles._core.results import Result
from cycles._errors import RateLimitedError, ReservationDeniedError
from cycles._flows.io import Sender
from cycles._flows.signal import Signal

R = TypeVar("R", bound=Result)

_FIRST_WAIT_MS: Final = 250.0  # between attempts while waiting for budget; doubled and jittered, up to the next value
_LONGEST_WAIT_MS: Final = 5_000.0
_FIRST_PAUSE_S: Final = 0.1  # between attempts of a read; doubled each time; far below the timeout of a read


class BudgetWait:
    """The pauses of a caller that waits for budget, for at most `wait_s` seconds. None: it does not wait."""

    def __init__(self, io: Sender, wait_s: float | None) -> None:
        self._clock = io.clock
        self._until_ms = io.clock.now_ms() + (wait_s or 0.0) * 1000
        self._pause_ms = _FIRST_WAIT_MS

    def next_s(self, error: ReservationDeniedError | RateLimitedError) -> float | None:
        """Return the seconds until the next attempt after a denial; None if the time is over, or would be."""
        left_ms = self._until_ms - self._clock.now_ms()
        jittered_ms = self._pause_ms * (0.5 + self._clock.random())
        self._pause_ms = min(self._pause_ms * 2, _LONGEST_WAIT_MS)
        requested_ms = error.retry_after_ms or 0  # 0 counts as no time: a loop of requests without a pause otherwise
        delay_ms = requested_ms if requested_ms > 0 else min(jittered_ms, left_ms)
        return None if left_ms <= 0 or delay_ms > left_ms else delay_ms / 1000


async def pause(io: Sender, seconds: float) -> None:
    """Wait for some seconds."""
    await io.wait(Signal(), seconds)


def uncertain(outcome: Outcome) -> bool:
    """Return whether the effect of a request is unknown: no response, an ambiguous one, a failing server."""
    if isinstance(outcome, Unreachable):
        return not outcome.queued  # the client held it back: the server has received nothing, and may be available
    return isinstance(outcome, Ambiguous) or (isinstance(outcome, RejectedResponse) and outcome.server_failed)


def may_have_taken_effect(outcome: Outcome) -> bool:
    """Return whether a request without a usable response may have changed something: its bytes may have been sent.

    A server that cannot check keys has not run the operation.
    """
    if isinstance(outcome, RejectedResponse) and outcome.is_store_failure:
        return False
    return uncertain(outcome) and not (isinstance(outcome, Unreachable) and not outcome.sent)


def is_unlisted(outcome: Outcome) -> bool:
    """Return whether this is an error response that no table lists: 4xx with an unknown code, or a code of another."""
    if not isinstance(outcome, RejectedResponse) or outcome.transient or outcome.understood:
        return False
    return error_code(outcome.code, outcome.status).status != outcome.status


def describe(outcome: NoSuccess) -> str:
    """Return a short description of the outcome, for events."""
    if isinstance(outcome, RejectedResponse) and outcome.status:
        return f"{outcome.message} (HTTP {outcome.status}{f', {outcome.code}' if outcome.code else ''})"
    return outcome.message


async def send_write(io: Sender, call: Call) -> Outcome:
    """Send a call; while its outcome is unknown, send it again with the same key, `max_retries` times.

    See `docs/protocol/heartbeat.md#create-retry`.
    """
    retries = call.options.max_retries
    retries = io.settings.max_retries if retries is None else retries
    return await repeated(io, partial(io.send, call), retries, await io.send(call))


async def repeated(io: Sender, attempt: Callable[[], Awaitable[Outcome]], retries: int, outcome: Outcome) -> Outcome:
    """Make an attempt with this outcome again while that is unknown, not more than `retries` times."""
    for number in range(retries):
        # Only an unknown outcome is repeated: with the same key the server runs the operation at most once.
        if not uncertain(outcome):
            break
        if number > 0:
            await pause(io, _FIRST_PAUSE_S * 2 ** (number - 1) * (0.5 + io.clock.random()))
        outcome = await attempt()
    return outcome


async def send_read(io: Sender, call: Call) -> Outcome:
    """Send a read; repeat it after a temporary failure or a 429, all within one timeout."""
    own = call.options.timeout_s
    deadline, pause_s = io.clock.now_ms() + (io.settings.timeout_s if own is None else own) * 1000, _FIRST_PAUSE_S
    while True:
        left = (deadline - io.clock.now_ms()) / 1000
        # What is left of the one timeout: a caller of a read waits no longer, however often it is repeated.
        outcome = await io.send(evolve(call, timeout_s=max(left, 0.001)))
        wait: float | None = pause_s * (0.5 + io.clock.random())
        # Without a time from the server a 429 is not repeated: more requests are what it rejects.
        if isinstance(outcome, RejectedResponse) and outcome.status == 429:
            wait = None if outcome.retry_after_ms is None else outcome.retry_after_ms / 1000 or wait
        elif not uncertain(outcome):
            return outcome
        if wait is None or io.clock.now_ms() + wait * 1000 >= deadline:
            return outcome
        await pause(io, wait)
        pause_s *= 2


def success_of(outcome: Outcome, operation: str) -> Success:
    """Return the outcome if it is a success.

    Raises:
        CyclesError: any other outcome, as its typed error.
    """
    if isinstance(outcome, Success):
        return outcome
    raise error_of(outcome, operation) from getattr(outcome, "cause", None)


def read(outcome: Outcome, operation: str, result: type[R]) -> R:
    """Return the response as a value. Raises as `success_of`."""
    success = success_of(outcome, operation)
    return result.read(success.body, **success.ids)
