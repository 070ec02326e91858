"""Everything that can be read of a guard, or done with it, without waiting: the same for sync and async guards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar, overload

from cycles._core.amounts import Amount
from cycles._core.results import Balance, Caps
from cycles._core.settlement.lifecycle import StateName
from cycles._core.settlement.settlement import Settlement
from cycles._core.subjects import Action, Subject
from cycles._core.values import caps as rules
from cycles._core.values.usage import Usage
from cycles._errors import CyclesError
from cycles._flows.guard_state import GuardState

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class GuardProperties:
    """The attributes of a guard, and the methods that send nothing."""

    __slots__ = ("__weakref__", "_runtime", "_state")
    _runtime: Runtime
    _state: GuardState

    @property
    def reservation_id(self) -> str | None:
        """The server's id of the reservation; None if nothing is held (shadow, unreserved)."""
        return self._state.reservation_id

    @property
    def decision(self) -> str | None:
        """ALLOW or ALLOW_WITH_CAPS; in shadow mode any decision; None if no server could be reached."""
        return self._state.decision

    @property
    def reason_code(self) -> str | None:
        """The reason of a DENY in shadow or observe mode, otherwise None."""
        created = self._state.created
        return None if created is None else created.denial_code

    @property
    def caps(self) -> Caps | None:
        """The limits of the action, or None if there are none."""
        created = self._state.created
        return None if created is None else created.caps

    @property
    def is_capped(self) -> bool:
        """True if the server allowed the action with caps."""
        return self.caps is not None

    @property
    def expires_at_ms(self) -> int | None:
        """End of the lease in milliseconds of server time. The heartbeat moves it. None if nothing is held."""
        heartbeat = self._state.heartbeat
        return None if heartbeat is None else heartbeat.expires_at_ms

    @property
    def expires_at(self) -> datetime | None:
        """End of the lease as an aware datetime (UTC), at most the year 9999. None if nothing is held."""
        at_ms = self.expires_at_ms
        if at_ms is None:
            return None
        try:
            return _EPOCH + timedelta(milliseconds=at_ms)
        except OverflowError:  # after the year 9999, or before the year 1
            return _LAST if at_ms > 0 else _EPOCH

    @property
    def affected_scopes(self) -> list[str]:
        """Every scope of the subject, outermost first."""
        created = self._state.created
        return [] if created is None else created.affected_scopes

    @property
    def scope_path(self) -> str | None:
        """The innermost scope, or None if the response did not contain it."""
        created = self._state.created
        return None if created is None else created.scope_path

    @property
    def reserved(self) -> Amount | None:
        """The amount that is held; None if nothing is held."""
        created = self._state.created
        if created is None or created.reservation_id is None:
            return None
        return created.reserved or self._state.estimate

    @property
    def balances(self) -> list[Balance]:
        """The budgets in the last response: of the settlement, otherwise of the reservation."""
        state = self._state
        if state.settlement is not None and state.settlement.balances is not None:
            return state.settlement.balances
        return [] if state.created is None else state.created.balances or []

    @property
    def estimate(self) -> Amount:
        """The estimate of the reservation."""
        return self._state.estimate

    @property
    def state(self) -> StateName:
        """``active``, ``committed``, ``pending``, ``released``, ``lost``, ``unreserved`` or ``rejected``."""
        self._see_lease()
        return self._state.state

    @property
    def lease_error(self) -> CyclesError | None:
        """The failure that stopped the heartbeat, or None."""
        self._see_lease()
        heartbeat = self._state.heartbeat
        if heartbeat is None or not heartbeat.lost:
            return None
        return heartbeat.error or heartbeat.lost_error()

    @property
    def usage(self) -> Usage:
        """A running total of tokens. It becomes the metrics of the commit unless `metrics=` is passed."""
        return self._state.usage

    @property
    def subject(self) -> Subject:
        """The subject whose budget pays."""
        return self._state.request.subject

    @property
    def action(self) -> Action:
        """The action."""
        return self._state.request.action

    @property
    def settlement(self) -> Settlement | None:
        """The settlement; None until the guard is settled."""
        return self._state.settlement

    @property
    def spent(self) -> Amount | None:
        """The total of all `spend` calls; None if there was none."""
        return self._state.spent

    @property
    def is_pooled(self) -> bool:
        """True for a guard of a pool, which shares its reservation with others."""
        return self._state.settler is not None

    @property
    def request_id(self) -> str | None:
        """The server's id of the reserve request."""
        created = self._state.created
        return None if created is None else created.request_id

    @property
    def trace_id(self) -> str:
        """Trace id of every request of this guard (32 hex digits)."""
        return self._state.trace_id

    @property
    def idempotency_key(self) -> str:
        """The idempotency key of the reserve request."""
        return self._state.key

    def spend(self, amount: Amount) -> Amount:
        """Add to the amount that is known to be spent. `commit()` without an amount commits the total.

        Returns:
            The total.

        Raises:
            InvalidRequestError: It is not an amount in the unit of the estimate.
            GuardFinalizedError: The guard has ended.
        """
        return self._state.spend(amount)

    def raise_if_lost(self) -> None:
        """Raise an error if the lease is lost: the cancellation point of sync code.

        Raises:
            LeaseLostError: The lease is lost. Its `__cause__` is the failure that stopped the heartbeat.
        """
        self._see_lease()
        if (loss := self._state.loss) is not None:
            raise loss

    def allows_tool(self, name: str) -> bool:
        """Return whether the caps allow a tool. Names are compared exactly (`docs/protocol/decisions-and-caps.md`)."""
        return rules.allows_tool(self.caps, name)

    def require_tool(self, name: str) -> None:
        """Raise an error unless the caps allow a tool.

        Raises:
            ToolNotAllowedError: The caps do not allow it.
        """
        rules.require_tool(self.caps, name)

    def filter_tools(self, tools: Iterable[T], name: Callable[[T], str] | None = None) -> list[T]:
        """Return the tools that the caps allow. `name` returns the name of a tool of an unknown type."""
        return rules.filter_tools(self.caps, tools, name)

    @overload
    def max_tokens(self, default: int) -> int: ...

    @overload
    def max_tokens(self, default: None = None) -> int | None: ...

    def max_tokens(self, default: int | None = None) -> int | None:
        """Return the largest number of tokens to request: the cap, `default`, or the smaller of the two."""
        return rules.max_tokens(self.caps, default)

    def step(self) -> int:
        """Begin the next step of the work and return its number, from 1.

        Raises:
            StepsExhaustedError: The caps allow no further step.
        """
        return self._state.next_step(self.caps)

    def _see_lease(self) -> None:
        """Report the loss of the lease if no thread could extend it: nothing else would. Cheap otherwise."""
        if self._runtime.scheduler.short_of_threads and not self._inert():
            self._runtime.blocking.see_lease(self._state.heartbeat)

    def _inert(self) -> bool:
        """Return whether the guard belongs to the parent process: a forked child can only read it."""
        return self._runtime.pid != os.getpid()

    def __repr__(self) -> str:
        state: GuardState | None = getattr(self, "_state", None)  # absent until the reservation is made
        if state is None:
            return f"<{type(self).__name__}, nothing reserved>"
        name = f"{state.reservation_id[:8]}…" if state.reservation_id else "without reservation"
        properties = f"{state.state} {_amounts(state)}"
        if state.heartbeat is not None and not state.finalized:
            left_ms = state.heartbeat.lease.lasts_until_ms() - self._runtime.blocking.clock.now_ms()
            properties += f", {max(0, round(left_ms / 1000))} s left"
        return f"<{type(self).__name__} {name} {properties}>"


def _amounts(state: GuardState) -> str:
    settlement, held = state.settlement, state.estimate
    if settlement is not None and settlement.charged is not None:
        return f"{settlement.charged} charged"
    if settlement is not None:
        return f"{settlement.actual}" if settlement.status == "pending" else f"{settlement.actual} spent"
    if state.state == "released":
        return str(held)
    return f"{held} reserved" if state.reservation_id else f"{held} estimated"
