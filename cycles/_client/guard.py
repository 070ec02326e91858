"""A described reservation, and the guards that hold it: what users have in their hands.

Everything that happens is a flow; here it is only put into blocks, in both worlds. What both guards read and do
without waiting is written once, in `_client.guard_properties`.
"""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cycles._client.context import _current
from cycles._client.guard_properties import GuardProperties
from cycles._core import caps as rules
from cycles._core.amounts import Amount
from cycles._core.results import ReleaseResponse, ReservationExtendResponse
from cycles._core.settlement import Settlement
from cycles._core.usage import Metrics
from cycles._errors import CyclesError, GuardFinalizedError, InvalidRequestError
from cycles._flows import commit as committing, heartbeat as renewing, release as releasing
from cycles._flows.block_end import end_block, end_later
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import run
from cycles._version import public

if TYPE_CHECKING:
    from cycles._client.streams import AsyncGuardedStream, GuardedStream, UsageReader
    from cycles._drivers.runtime import Runtime
    from cycles._drivers.tasks import BlockCancellation

T = TypeVar("T")


class _GuardInBlock(GuardProperties):
    """What both guards need of their surroundings: the process, the block they are in, and their end without one."""

    __slots__ = ("_runtime", "_token")

    def __init__(self, runtime: Runtime, state: GuardState) -> None:
        self._runtime = runtime
        self._token: Token[Any] | None = None
        super().__init__(state)  # last: from here on the guard is one that may not be dropped

    def detach(self) -> str:
        """Give the guard away, unsettled: plain text to go on from with `client.attach` in another thread or process.

        This guard ends (`state` is ``detached``) and nobody keeps the lease until it is attached; make `ttl_ms` long
        enough for the way. The token holds no secret: whoever attaches needs a key of the same tenant.

        Raises:
            GuardFinalizedError: if the guard has ended.
        """
        from cycles._flows import transfer as handover

        self._not_mine()
        token = handover.serialize(self._state)
        if self._state.heartbeat is not None:
            self._still(self._state.heartbeat)
        return token

    def _still(self, heartbeat: Heartbeat) -> None:
        raise NotImplementedError

    def _now_ms(self) -> float:
        return self._runtime.blocking.now_ms()

    def _inert(self) -> bool:
        """In a forked child the parent's guards are only to look at."""
        return self._runtime.pid != os.getpid()

    def _not_mine(self) -> None:
        if self._inert():
            raise InvalidRequestError(
                f"{self._state.name} belongs to the parent process, which settles it; reserve anew in the child"
            )

    def _enter(self) -> None:
        self._state.in_block = True
        self._token = _current.set(weakref.ref(self))

    def _leave(self) -> None:
        token, self._token = self._token, None
        self._state.in_block = False
        if token is not None:
            with contextlib.suppress(ValueError):  # left in another context than entered: that one keeps its own
                _current.reset(token)

    def __del__(self) -> None:
        state = getattr(self, "_state", None)  # absent if __init__ did not get far
        if state is None or state.finalized or state.request.shadow or self._inert() or self._runtime.closed:
            return
        if state.reservation_id is None and state.known is None:
            return
        with contextlib.suppress(CyclesError):
            state.claim("drop")
            self._runtime.drop(state)
            message = f"{state.name} was dropped without commit or release; what it did not spend is given back"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)


class Guard(_GuardInBlock):
    """Holding it means holding budget. `commit` or `release` ends it, once; dropping it gives the budget back."""

    __slots__ = ()

    def commit(
        self,
        actual: Amount | None = None,
        *,
        metrics: Metrics | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Settlement:
        """End the guard with what the action cost; without an amount, with what `spend` added up to.

        One attempt is made, and one event if the lease is over; where the outcome stays unknown the settlement is
        ``pending`` and the client goes on with it, with the same key.

        Raises:
            InvalidRequestError: for something that cannot be settled; nothing was sent and the guard stays active.
            GuardFinalizedError: if it was committed or released before; nothing is sent.
            ProtocolError: for an understood rejection, such as BudgetExceededError under REJECT.
        """
        self._not_mine()
        return run(committing.commit(self._runtime.blocking, self._state, actual, metrics, metadata))

    def release(self, reason: str | None = None) -> ReleaseResponse | None:
        """End the guard and give the budget back; None where the client goes on trying in the background.

        Raises:
            GuardFinalizedError: if it was committed or released before; nothing is sent.
            ProtocolError: for an understood refusal.
        """
        self._not_mine()
        return run(releasing.release(self._runtime.blocking, self._state, reason))

    def extend(self, extend_by_ms: int | None = None) -> ReservationExtendResponse | None:
        """Move the end of the lease, by the guard's `ttl_ms` if nothing else is said. The heartbeat does it otherwise.

        Raises:
            GuardFinalizedError: once the guard has ended.
            CyclesError: where the server does not extend it.
        """
        self._not_mine()
        return run(renewing.extend(self._runtime.blocking, self._state, extend_by_ms))

    def wrap(self, stream: Iterable[T], *, usage: UsageReader | None = None, settle: bool = True) -> GuardedStream[T]:
        """Pass a stream's chunks on, and settle this guard when it is exhausted, closed early or broken off.

        Args:
            stream: Any iterable of chunks; closed with the wrapper, if it can be.
            usage: Reads each chunk, for example `cycles.usage.openai`; gets the chunk, and `guard.usage` if it takes
                a second argument. A mapping it answers is added to `guard.usage`.
            settle: False leaves the settling to you, for several streams under one guard.

        Raises:
            InvalidRequestError: for something that cannot be iterated, an async stream for instance.
        """
        from cycles._client.streams import GuardedStream

        self._not_mine()
        self._state.is_stream = settle
        return GuardedStream(self, stream, usage, settle)

    def cooldown(self) -> None:
        """Wait as long as the caps ask for between actions."""
        if wait_ms := rules.cooldown_ms(self.caps):
            run(self._runtime.blocking.pause(wait_ms / 1000))

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._leave_block(raised)

    def _leave_block(self, raised: BaseException | None) -> None:
        try:
            self._end(raised)
        finally:
            self._leave()

    def _end(self, raised: BaseException | None) -> None:
        """What the guard was for is over: settle it, if nobody has, and apply its lease policy."""
        if not self._inert():
            run(end_block(self._runtime.blocking, self._state, raised))

    def _still(self, heartbeat: Heartbeat) -> None:
        self._runtime.blocking.stop_heartbeat(heartbeat)


class AsyncGuard(_GuardInBlock):
    """The guard of async code: the same, with coroutines where something is sent."""

    __slots__ = ("_cancellation",)

    def __init__(self, runtime: Runtime, state: GuardState) -> None:
        super().__init__(runtime, state)
        self._cancellation: BlockCancellation | None = None

    async def commit(
        self,
        actual: Amount | None = None,
        *,
        metrics: Metrics | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Settlement:
        """As `Guard.commit`. If the caller is cancelled meanwhile, the client goes on with the settlement."""
        self._not_mine()
        io = self._runtime.tasks()
        return await io.to_the_end(committing.commit(io, self._state, actual, metrics, metadata))

    async def release(self, reason: str | None = None) -> ReleaseResponse | None:
        """As `Guard.release`. If the caller is cancelled meanwhile, the client goes on with the release."""
        self._not_mine()
        io = self._runtime.tasks()
        return await io.to_the_end(releasing.release(io, self._state, reason))

    async def extend(self, extend_by_ms: int | None = None) -> ReservationExtendResponse | None:
        """As `Guard.extend`."""
        self._not_mine()
        return await renewing.extend(self._runtime.tasks(), self._state, extend_by_ms)

    def wrap(
        self, stream: AsyncIterable[T], *, usage: UsageReader | None = None, settle: bool = True
    ) -> AsyncGuardedStream[T]:
        """As `Guard.wrap`, for streams that are read with ``async for``."""
        from cycles._client.streams import AsyncGuardedStream

        self._not_mine()
        self._state.is_stream = settle
        return AsyncGuardedStream(self, stream, usage, settle)

    async def cooldown(self) -> None:
        """Wait as long as the caps ask for between actions."""
        if wait_ms := rules.cooldown_ms(self.caps):
            await self._runtime.tasks().pause(wait_ms / 1000)

    async def __aenter__(self) -> Self:
        self._enter()
        if self._state.request.lease_policy == "cancel" and self._state.heartbeat is not None:
            self._cancellation = self._runtime.tasks().cancel_block_on_loss(self._state)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._inert():
            self._leave()
            return
        loss = self._loss(raised)
        try:
            await self._end(loss or raised)
        finally:
            self._leave()
        if loss is not None:
            raise loss

    async def _end(self, raised: BaseException | None) -> None:
        """What the guard was for is over: settle it, if nobody has, and apply its lease policy."""
        if self._inert():
            return
        if isinstance(raised, GeneratorExit) and not self._runtime.in_event_loop():
            with contextlib.suppress(GuardFinalizedError):
                self._state.claim("end")
                end_later(self._runtime.blocking, self._state, raised)
            return
        io = self._runtime.tasks()
        await io.to_the_end(end_block(io, self._state, raised))

    def _still(self, heartbeat: Heartbeat) -> None:
        self._runtime.tasks().stop_heartbeat(heartbeat)

    def _loss(self, raised: BaseException | None) -> BaseException | None:
        """Return the LeaseLostError if `raised` is the cancellation under the policy ``cancel``; else None."""
        cancellation, self._cancellation = self._cancellation, None
        return None if cancellation is None else cancellation.end(raised)


public(AsyncGuard, Guard)
