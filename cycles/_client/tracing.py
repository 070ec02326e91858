"""The interface of a tracer, for `client.trace_with`: protocols only.

A tracer is called in the thread or task that reserves, sends or settles. What it raises is logged and breaks no guard.
`cycles.integrations.opentelemetry` implements the interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.settlement.lifecycle import StateName
from cycles._core.settlement.settlement import Settlement
from cycles._core.values.usage import Usage
from cycles._version import public


class SentAttempt(Protocol):
    """One attempt of a request, as the context manager of `sending` returns it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the attempt, for example ``traceparent``."""
        ...

    def received(self, result: AttemptResult) -> object:
        """Get the outcome of the attempt. It is called inside the context manager."""


class AttemptResult(Protocol):
    """How one attempt ended."""

    @property
    def status(self) -> int | None:
        """HTTP status; None if there was no response."""

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""

    @property
    def decision(self) -> str | None:
        """The decision, if the response has one."""

    @property
    def error_type(self) -> str | None:
        """The code of an error or of a denial, or the name of the exception; None after a success."""


class TracedGuard(Protocol):
    """A guard, as a tracer can read it."""

    @property
    def request(self) -> ReserveRequest:
        """What was reserved: estimate, action and subject."""
        ...

    @property
    def trace_id(self) -> str:
        """The trace id of the guard's requests. Events of this guard have the same object."""
        ...

    @property
    def reservation_id(self) -> str | None:
        """The server's id, of the chunk for a guard of a pool; None if the block runs without a reservation."""

    @property
    def decision(self) -> str | None:
        """The server's decision: ``ALLOW``, ``ALLOW_WITH_CAPS`` or, in shadow mode, ``DENY``."""

    @property
    def state(self) -> StateName:
        """The state, as in `Guard.state`."""
        ...

    @property
    def settlement(self) -> Settlement | None:
        """How the amount was settled; None until then."""

    @property
    def charged(self) -> Amount | None:
        """What this guard was charged; None if it is not known, and for a guard of a pool what its chunk is charged."""

    @property
    def usage(self) -> Usage:
        """The tokens that were counted so far."""
        ...


class GuardTrace(Protocol):
    """The trace of one guard."""

    @property
    def trace_id(self) -> str | None:
        """The trace id of the guard's requests (32 hex digits); None: the client makes one."""

    def sending(self, operation: str) -> AbstractContextManager[SentAttempt]:
        """Return a context manager around one attempt of a request. `operation` is the id of the protocol."""
        ...

    def opened(self, guard: TracedGuard) -> object:
        """Note that the reservation is made, or that the block runs without one."""

    def refused(self, error: BaseException) -> object:
        """Note that there is no guard."""

    def ended(self, guard: TracedGuard) -> object:
        """Note, once, that the state became final or ``pending``."""

    def entered(self) -> Any:
        """Note that a block begins; what it returns is passed to `left`."""

    def left(self, token: Any) -> object:
        """Note that the block ended, maybe in another context than it was entered in."""


class Tracing(Protocol):
    """A tracer."""

    def begin(self, request: ReserveRequest) -> GuardTrace:
        """Return the trace of a guard. It is called before the reserve is sent."""
        ...

    def sending(self, operation: str) -> AbstractContextManager[SentAttempt]:
        """As `GuardTrace.sending`, for requests that belong to no guard."""
        ...


public(AttemptResult, GuardTrace, SentAttempt, TracedGuard, Tracing)
