"""`Guard` and `AsyncGuard`: what users have while budget is reserved.

Every step is a flow. This module only runs flows, sync and async, and enters and leaves blocks. What both guards can
read without waiting is in `guard_properties.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
import weakref
from collections.abc import AsyncIterable, Iterable, Mapping
from contextvars import Token
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TypeVar

from cycles._client.context import _current
from cycles._client.generator_frames import generator_dropped, in_async_generator
from cycles._client.guard_properties import GuardProperties
from cycles._client.options import checked_flag, optional_seconds
from cycles._core.amounts import Amount
from cycles._core.results import ReleaseResponse, ReservationExtendResponse
from cycles._core.settlement.lifecycle import Dropped
from cycles._core.settlement.settlement import Settlement
from cycles._core.values import caps as rules
from cycles._core.values.usage import Metrics
from cycles._errors import CyclesError, GuardFinalizedError, InvalidRequestError
from cycles._flows import commit as committing, heartbeat as renewing, release as releasing
from cycles._flows.block_end import DROPPED, end_block
from cycles._flows.guard_state import GuardState
from cycles._flows.io import run
from cycles._flows.retry import pause
from cycles._http.first_use import first_use, loading
from cycles._http.running_loop import in_event_loop
from cycles._version import public

if TYPE_CHECKING:
    from cycles._client.streams import AsyncGuardedStream, GuardedStream, UsageReader
    from cycles._drivers.runtime import Runtime

T = TypeVar("T")


class GuardBase(GuardProperties):
    """The process, the block and the end of a guard, which are the same for sync and async code."""

    __slots__ = ("_place", "_runtime", "_span", "_token")  # `_place` is of guards of a pool

    def __init__(self, runtime: Runtime, state: GuardState | None = None) -> None:
        self._runtime = runtime
        self._token: Token[Any] | None = None
        self._span: Any = None  # what the tracer returned when the block was entered
        if state is not None:
            self._take(state)

    def _take(self, state: GuardState) -> None:
        """Own a reservation: it is settled if the guard is dropped. A second call changes nothing."""
        if getattr(self, "_state", None) is not state:
            self._state = state
            self._runtime.watch(state)

    def _abandon(self) -> None:
        """End a guard whose caller never got it. A hold under a caller's key stays for the next run with that key."""
        # Under a caller's key the reservation belongs to the next run with that key, which replays it.
        state: GuardState | None = getattr(self, "_state", None)
        if state is None or state.request.idempotency_key is None:
            self._drop()
            return
        with contextlib.suppress(GuardFinalizedError):
            state.claim("interrupt")
            if state.heartbeat is not None:
                state.heartbeat.end()

    def detach(self) -> str:
        """End this guard unsettled, and return a token for `client.attach` in another thread or process.

        The state is ``detached`` then, and no heartbeat runs until the token is attached, so `ttl_ms` must be long
        enough for the transfer. The token contains no secret. The client that attaches it needs a key of the same
        tenant.

        Raises:
            GuardFinalizedError: The guard has ended.
            InvalidRequestError: The guard is unreserved, so no client could continue it. It stays as it was.
        """
        with first_use, loading:
            from cycles._flows import transfer

        self._check_process()
        # Once there is a token the guard has ended. Its heartbeat stops too: the client that attaches it begins one.
        token = transfer.serialize(self._state)
        if self._state.heartbeat is not None:
            self._state.heartbeat.end()
        return token

    def spend(self, amount: Amount) -> Amount:
        """As `GuardProperties.spend`; rejected for a guard of the parent process, which would never settle it.

        Raises:
            InvalidRequestError: another unit than the estimate's, or a guard of the parent process.
            GuardFinalizedError: the guard has ended.
        """
        self._check_process()
        total = super().spend(amount)
        self._runtime.ahead.spent(self._state)
        return total

    def _commit_in_chunk(
        self, actual: Amount | None, metrics: object, metadata: object, wait: Any
    ) -> Settlement | None:
        """Add the amount of a guard of a pool to its chunk, if it fits and nothing has to be sent; else return None."""
        settler = self._state.settler
        if settler is None or metrics is not None or metadata is not None:
            return None
        if actual is None or actual.__class__ is not Amount or wait.__class__ is not bool:
            return None
        if self._runtime.pid != os.getpid():
            self._check_process()  # raises the error
        if actual.unit == self._state.estimate.unit and self._state.claimed is None:
            self._state.reported_amount = actual  # stays known if an interrupt comes before it is counted
        return settler.commit_quickly(self._state, actual)

    def _end_in_background(self, raised: BaseException) -> None:
        """End the guard of a generator or coroutine that is being closed, in another thread."""
        with contextlib.suppress(GuardFinalizedError):
            self._state.claim("end")
            self._runtime.end_later(self._state, raised)

    def _check_process(self) -> None:
        # After a fork both processes have this guard. Only the parent settles it, or the amount would be charged twice.
        if self._runtime.pid != os.getpid():
            raise InvalidRequestError(
                f"{self._state.name} belongs to the parent process, which settles it: reserve again in this process"
            )
        if self._runtime.scheduler.short_of_threads:
            self._see_lease()

    def _check_active(self, what: str) -> None:
        self._check_process()
        if self._state.finalized:
            raise GuardFinalizedError(f"cannot {what}: {self._state.name} has ended; reserve again")

    def _is_over(self) -> bool:
        """Return whether the end of its block has nothing to do: it has ended, and its lease was not lost."""
        self._see_lease()
        return self._inert() or (self._state.finalized and self._state.loss is None)

    def _enter(self) -> None:
        self._check_process()
        self._state.enter_block()
        self._token = _current.set(weakref.ref(self))
        if self._state.trace is not None:
            self._span = self._state.trace.entered()

    def _leave(self) -> None:
        token, self._token = self._token, None
        # It may be entered again: what a guarded call returns may end the guard later (`unfinished.py`).
        self._state.in_block = False
        if token is not None:
            with contextlib.suppress(ValueError):  # left in another context than it was entered in
                _current.reset(token)
            if self._state.trace is not None:
                self._state.trace.left(self._span)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # A copy that is garbage-collected would release the budget of the original.
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: to use it in another thread or process, "
            "pass guard.detach() and continue it with client.attach(token)"
        )

    def __del__(self) -> None:
        if (rest := self._drop()) is not None:
            message = f"{self._state.name} was dropped without commit or release; {rest}"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=2)

    def _drop(self) -> str | None:
        """End the guard in the background if nothing else will, and return what happens to its budget."""
        state: GuardState | None = getattr(self, "_state", None)  # absent until the reservation is made
        # Nothing to end: no reservation, a known end, a shadow, or a guard of the parent process.
        if state is None or state.finalized or state.sends_nothing or self._inert():
            return None
        # Unreserved and without spend: no ledger has to learn of it.
        if state.reservation_id is None and state.known is None:
            return None
        if self._runtime.closed:  # reported by a log record, without a warning of Python
            self._runtime.drop_after_close(state)
            return None
        known = state.known
        try:
            state.claim("drop")
            self._runtime.end_later(state, Dropped(DROPPED))
        except CyclesError:
            return None
        return "its budget is released" if known is None else f"its known spend of {known} is committed"


class Guard(GuardBase):
    """Budget that is reserved for an action. `commit` or `release` ends the guard, and so does the end of its block."""

    __slots__ = ()

    def commit(
        self,
        actual: Amount | None = None,
        *,
        metrics: Metrics | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Settlement:
        """End the guard with the cost of the action, or without an amount with the total of `spend`.

        The client makes one attempt, and one event if the lease is over. If the outcome is unknown, the settlement is
        ``pending`` and the client retries in the background with the same key. With ``wait=False`` the amount is saved
        in the journal and sent in the background; `settled` waits for it. The amount of a guard of a pool becomes part
        of its chunk's commit, usually without a request: status ``pooled``.

        Raises:
            InvalidRequestError: The values cannot be settled. Nothing was sent, and the guard stays active.
            GuardFinalizedError: The guard has ended. Nothing was sent.
            ProtocolError: The server rejected the commit, for example BudgetExceededError under REJECT.
        """
        if self._state.settler is not None and (pooled := self._commit_in_chunk(actual, metrics, metadata, wait)):
            return pooled
        self._check_process()
        if wait.__class__ is not bool:
            checked_flag("wait", wait)
        return run(committing.commit(self._runtime.blocking, self._state, actual, metrics, metadata, wait=wait))

    def settled(self, timeout: float | None = None) -> Settlement:
        """Wait until the server has confirmed the settlement, for at most `timeout` seconds.

        Returns:
            The settlement. It is still pending if the time was too short, or if the client was closed.

        Raises:
            InvalidRequestError: The guard has not ended.
            GuardFinalizedError: The guard has ended without an amount.
            ProtocolError: The server rejected the amount: what `commit` raises if it waits.
        """
        self._check_process()
        timeout_s = optional_seconds("timeout", timeout)
        return run(committing.settled(self._runtime.blocking, self._state, timeout_s))

    def release(self, reason: str | None = None) -> ReleaseResponse | None:
        """End the guard and release its budget. Returns None if the client continues in the background.

        Raises:
            GuardFinalizedError: The guard has ended. Nothing was sent.
            ProtocolError: The server rejected the release.
        """
        self._check_process()
        return run(releasing.release(self._runtime.blocking, self._state, reason))

    def extend(self, extend_by_ms: int | None = None) -> ReservationExtendResponse | None:
        """Extend the lease by `extend_by_ms` milliseconds, by default `ttl_ms`. The heartbeat does this otherwise.

        Raises:
            GuardFinalizedError: The guard has ended.
            CyclesError: The server did not extend the lease.
        """
        self._check_process()
        return run(renewing.extend(self._runtime.blocking, self._state, extend_by_ms))

    def wrap(self, stream: Iterable[T], *, usage: UsageReader | None = None, settle: bool = True) -> GuardedStream[T]:
        """Pass a stream through, and settle this guard when the stream ends.

        Args:
            stream: Any iterable of chunks. It is closed with the wrapper if it has `close`.
            usage: Reads each chunk, for example `cycles.usage.openai`. It takes the chunk, and `guard.usage` if it
                has a second parameter. A mapping that it returns is added to `guard.usage`.
            settle: False leaves the settlement to the caller, for several streams under one guard.

        Raises:
            InvalidRequestError: The stream is not iterable, for example an async stream.
            GuardFinalizedError: The guard has ended.
        """
        from cycles._client.streams import GuardedStream

        self._check_active("wrap a stream")
        # A stream that is closed early has ended normally, so its known spend is committed and not marked as an error.
        self._state.is_stream = settle
        return GuardedStream(self, stream, usage, settle)

    def cooldown(self) -> None:
        """Wait for the `cooldown_ms` of the caps."""
        if wait_ms := rules.cooldown_ms(self.caps):
            run(pause(self._runtime.blocking, wait_ms / 1000))

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        self.end(raised)

    def end(self, raised: BaseException | None = None) -> None:
        """End the guard as the end of its block would, for frameworks that call back at start and end.

        Also resets `current_guard()` if the block was entered in this context. On a guard that has ended it only
        applies the lease policy.

        Args:
            raised: The exception of the block; it is never raised from here.

        Raises:
            ProtocolError: if the settlement was rejected and `raised` is None.
            LeaseLostError: under ``fail_on_finalize`` and ``cancel``, if the lease was lost and `raised` is None.
        """
        try:
            self._end(raised)
        finally:
            self._leave()

    def _end(self, raised: BaseException | None) -> None:
        """Settle the guard unless it has ended, and apply its lease policy."""
        if self._is_over():
            return
        if isinstance(raised, GeneratorExit) and generator_dropped(sys._getframe()):
            self._end_in_background(raised)  # nothing may wait for the network in the garbage collector
            return
        run(end_block(self._runtime.blocking, self._state, raised))


class AsyncGuard(GuardBase):
    """The guard of async code. Methods that send a request are coroutines."""

    __slots__ = ()

    async def commit(
        self,
        actual: Amount | None = None,
        *,
        metrics: Metrics | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Settlement:
        """As `Guard.commit`. If the caller is cancelled, the client continues the settlement."""
        if self._state.settler is not None and (pooled := self._commit_in_chunk(actual, metrics, metadata, wait)):
            return pooled
        self._check_process()
        if wait.__class__ is not bool:
            checked_flag("wait", wait)
        io = self._runtime.tasks()
        return await io.to_the_end(committing.commit(io, self._state, actual, metrics, metadata, wait=wait))

    async def settled(self, timeout: float | None = None) -> Settlement:
        """As `Guard.settled`."""
        self._check_process()
        timeout_s = optional_seconds("timeout", timeout)
        return await committing.settled(self._runtime.tasks(), self._state, timeout_s)

    async def release(self, reason: str | None = None) -> ReleaseResponse | None:
        """As `Guard.release`. If the caller is cancelled, the client continues the release."""
        self._check_process()
        io = self._runtime.tasks()
        return await io.to_the_end(releasing.release(io, self._state, reason))

    async def extend(self, extend_by_ms: int | None = None) -> ReservationExtendResponse | None:
        """As `Guard.extend`."""
        self._check_process()
        return await renewing.extend(self._runtime.tasks(), self._state, extend_by_ms)

    def wrap(
        self, stream: AsyncIterable[T], *, usage: UsageReader | None = None, settle: bool = True
    ) -> AsyncGuardedStream[T]:
        """As `Guard.wrap`, for streams that are read with ``async for``."""
        from cycles._client.streams import AsyncGuardedStream

        self._check_active("wrap a stream")
        self._state.is_stream = settle
        return AsyncGuardedStream(self, stream, usage, settle)

    async def cooldown(self) -> None:
        """Wait for the `cooldown_ms` of the caps."""
        if wait_ms := rules.cooldown_ms(self.caps):
            await pause(self._runtime.tasks(), wait_ms / 1000)

    async def __aenter__(self) -> Self:
        self._enter()
        if self._state.request.lease_policy == "cancel" and self._state.heartbeat is not None:
            self._runtime.tasks().cancel_block_on_loss(self._state)
        return self

    async def __aexit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        await self.end(raised)

    async def end(self, raised: BaseException | None = None) -> None:
        """As `Guard.end`."""
        if self._inert():
            self._leave()
            return
        # Before the settlement: the cancellation of the task is undone first, or it would interrupt that too.
        loss = self._loss(raised)
        try:
            if isinstance(raised, GeneratorExit) and not in_async_generator(sys._getframe(1)):
                self._end_in_background(raised)
            else:
                await self._end(loss or raised)
        finally:
            self._leave()
        if loss is not None:
            raise loss

    async def _end(self, raised: BaseException | None) -> None:
        """Settle the guard unless it has ended, and apply its lease policy."""
        if self._is_over():
            return
        # Closed by the garbage collector: there is no loop that could wait for the server.
        if isinstance(raised, GeneratorExit) and not in_event_loop():
            self._end_in_background(raised)
            return
        io = self._runtime.tasks()
        await io.to_the_end(end_block(io, self._state, raised))

    def _loss(self, raised: BaseException | None) -> BaseException | None:
        """Return the LeaseLostError if `raised` is the cancellation under the policy ``cancel``; else None."""
        cancellation = self._state.cancellation
        return None if cancellation is None else cancellation.end(raised)


public(AsyncGuard, Guard)
