"""What `Guard` and `AsyncGuard` share: the process, the block and the end of a guard. Nothing here sends a request."""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from contextvars import Token
from typing import TYPE_CHECKING, Any, SupportsIndex

from cycles._client.context import _current
from cycles._client.guard_properties import GuardProperties
from cycles._core.amounts import Amount
from cycles._errors import CyclesError, GuardFinalizedError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat_state import Heartbeat
from cycles._http.first_use import loading

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime


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
        state: GuardState | None = getattr(self, "_state", None)
        if state is None or state.request.idempotency_key is None:
            self._drop()
            return
        with contextlib.suppress(GuardFinalizedError):
            state.claim("interrupt")
            if state.heartbeat is not None:
                self._runtime.blocking.stop(state.heartbeat)

    def detach(self) -> str:
        """End this guard unsettled, and return a token for `client.attach` in another thread or process.

        The state is ``detached`` then, and no heartbeat runs until the token is attached, so `ttl_ms` must be long
        enough for the transfer. The token contains no secret. The client that attaches it needs a key of the same
        tenant.

        Raises:
            GuardFinalizedError: The guard has ended.
            InvalidRequestError: The guard is unreserved, so no client could continue it. It stays as it was.
        """
        with loading:
            from cycles._flows import transfer

        self._check_process()
        token = transfer.serialize(self._state)
        if self._state.heartbeat is not None:
            self._stop_heartbeat(self._state.heartbeat)
        return token

    def _stop_heartbeat(self, heartbeat: Heartbeat) -> None:
        raise NotImplementedError

    def _now_ms(self) -> float:
        return self._runtime.blocking.clock.now_ms()

    def spend(self, amount: Amount) -> Amount:
        """As `GuardProperties.spend`; rejected for a guard of the parent process, which would never settle it.

        Raises:
            InvalidRequestError: another unit than the estimate's, or a guard of the parent process.
            GuardFinalizedError: the guard has ended.
        """
        self._check_process()
        total = super().spend(amount)
        if self._state.settler is None:  # what live guards of a pool spend is not written ahead
            self._runtime.write_ahead(self._state)
        return total

    def _end_in_background(self, raised: BaseException) -> None:
        """End the guard of a generator or coroutine that is being closed, in another thread."""
        with contextlib.suppress(GuardFinalizedError):
            self._state.claim("end")
            self._runtime.end_later(self._state, raised)

    def _inert(self) -> bool:
        """Return whether the guard belongs to the parent process: a forked child can only read it."""
        return self._runtime.pid != os.getpid()

    def _check_process(self) -> None:
        if self._inert():
            raise InvalidRequestError(
                f"{self._state.name} belongs to the parent process, which settles it: reserve again in this process"
            )
        self._see_lease()

    def _see_lease(self) -> None:
        """Report the loss of the lease if no thread could extend it: nothing else would. Cheap otherwise."""
        if self._runtime.scheduler.short_of_threads and not self._inert():
            self._runtime.blocking.see_lease(self._state.heartbeat)

    def _check_active(self, what: str) -> None:
        self._check_process()
        if self._state.finalized:
            raise GuardFinalizedError(f"cannot {what}: {self._state.name} has ended; reserve again")

    def _enter(self) -> None:
        self._check_process()
        self._state.enter_block()
        self._token = _current.set(weakref.ref(self))
        if self._state.trace is not None:
            self._span = self._state.trace.entered()

    def _leave(self) -> None:
        token, self._token = self._token, None
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
        if state is None or state.finalized or state.sends_nothing or self._inert():
            return None
        if state.reservation_id is None and state.known is None:
            return None
        if self._runtime.closed:  # reported by a log record, without a warning of Python
            self._runtime.drop_after_close(state)
            return None
        known = state.known
        try:
            state.claim("drop")
            self._runtime.drop(state)
        except CyclesError:
            return None
        return "its budget is released" if known is None else f"its known spend of {known} is committed"
