"""What can be read of a guard, and done with it without waiting: the same in both worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar, overload

from cycles._core import caps as rules
from cycles._core.amounts import Amount
from cycles._core.lifecycle import StateName
from cycles._core.results import Balance, Caps
from cycles._core.settlement import Settlement
from cycles._core.subjects import Action, Subject
from cycles._core.usage import Usage
from cycles._errors import CyclesError
from cycles._flows.guard_state import GuardState

T = TypeVar("T")


class GuardProperties:
    """Everything a guard knows; it sends nothing."""

    __slots__ = ("__weakref__", "_state")

    def __init__(self, state: GuardState) -> None:
        self._state = state

    @property
    def reservation_id(self) -> str | None:
        """The server's id; None where nothing is held (shadow, unreserved)."""
        return self._state.reservation_id

    @property
    def decision(self) -> str | None:
        """ALLOW, ALLOW_WITH_CAPS, or in shadow mode anything the server said; None where it could not be asked."""
        created = self._state.created
        return None if created is None else created.decision

    @property
    def reason_code(self) -> str | None:
        """Why the decision is DENY, in shadow mode; else None."""
        created = self._state.created
        return None if created is None else created.reason_code

    @property
    def caps(self) -> Caps | None:
        """The limits under which the action is allowed; None where there are none."""
        created = self._state.created
        return None if created is None else created.caps

    @property
    def is_capped(self) -> bool:
        """True where the server allowed the action under caps."""
        return self.caps is not None

    @property
    def expires_at_ms(self) -> int | None:
        """When the lease ends, in milliseconds of server time; follows the heartbeat. None where nothing is held."""
        heartbeat = self._state.heartbeat
        return None if heartbeat is None else heartbeat.expires_at_ms

    @property
    def expires_at(self) -> datetime | None:
        """The same as an aware datetime (UTC)."""
        at_ms = self.expires_at_ms
        return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)

    @property
    def affected_scopes(self) -> list[str]:
        """Every scope of the subject, outermost first."""
        created = self._state.created
        return [] if created is None else created.affected_scopes

    @property
    def scope_path(self) -> str | None:
        """The innermost of them, or None if the server did not say."""
        created = self._state.created
        return None if created is None else created.scope_path

    @property
    def reserved(self) -> Amount | None:
        """What is held; None where nothing is."""
        created = self._state.created
        if created is None or created.reservation_id is None:
            return None
        return created.reserved or self._state.request.estimate

    @property
    def balances(self) -> list[Balance]:
        """The budgets as the last answer told them: of the settlement, else of the reserve."""
        state = self._state
        if state.settlement is not None and state.settlement.balances is not None:
            return state.settlement.balances
        return [] if state.created is None else state.created.balances or []

    @property
    def estimate(self) -> Amount:
        """What was estimated."""
        return self._state.request.estimate

    @property
    def state(self) -> StateName:
        """``active``, ``committed``, ``pending``, ``released``, ``lost``, ``unreserved`` or ``rejected``."""
        return self._state.state

    @property
    def lease_error(self) -> CyclesError | None:
        """The heartbeat failure that stopped the lease, or None."""
        heartbeat = self._state.heartbeat
        if heartbeat is None or not heartbeat.lost:
            return None
        return heartbeat.error or heartbeat.lost_error()

    @property
    def usage(self) -> Usage:
        """A running account of tokens; it becomes the commit's metrics unless others are given."""
        return self._state.usage

    @property
    def subject(self) -> Subject:
        """Whose budget pays."""
        return self._state.request.subject

    @property
    def action(self) -> Action:
        """What is done."""
        return self._state.request.action

    @property
    def settlement(self) -> Settlement | None:
        """How the guard was settled; None until it is."""
        return self._state.settlement

    @property
    def spent(self) -> Amount | None:
        """What `spend` added up to; None if it was never called."""
        return self._state.spent

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
        """The key of the reserve."""
        return self._state.key

    def spend(self, amount: Amount) -> Amount:
        """Add to what is known to have been spent so far; `commit()` without an amount commits the sum.

        Returns:
            The sum.

        Raises:
            InvalidRequestError: for another unit than the estimate's.
            GuardFinalizedError: once the guard has ended.
        """
        return self._state.spend(amount)

    def raise_if_lost(self) -> None:
        """Raise if the heartbeat has given the lease up: the cancellation point of blocking code.

        Raises:
            LeaseLostError: its `__cause__` is the failure that stopped the heartbeat.
        """
        heartbeat = self._state.heartbeat
        if heartbeat is not None and heartbeat.lost:
            raise heartbeat.lost_error()

    def allows_tool(self, name: str) -> bool:
        """Whether the caps allow a tool; names are compared exactly (semantics 6)."""
        return rules.allows_tool(self.caps, name)

    def require_tool(self, name: str) -> None:
        """Go on only if the caps allow a tool.

        Raises:
            ToolNotAllowedError: if they do not.
        """
        rules.require_tool(self.caps, name)

    def filter_tools(self, tools: Iterable[T], name: Callable[[T], str] | None = None) -> list[T]:
        """Those of `tools` that the caps allow; `name` tells a tool's name where it is not obvious."""
        return rules.filter_tools(self.caps, tools, name)

    @overload
    def max_tokens(self, default: int) -> int: ...

    @overload
    def max_tokens(self, default: None = None) -> int | None: ...

    def max_tokens(self, default: int | None = None) -> int | None:
        """How many tokens a model may be asked for: the cap, `default`, or the smaller of the two."""
        return rules.max_tokens(self.caps, default)

    def step(self) -> int:
        """Begin the next step of the work and answer its number, from 1.

        Raises:
            StepsExhaustedError: if the caps grant no further step.
        """
        return self._state.next_step(self.caps)

    def _left_s(self) -> float | None:
        heartbeat = self._state.heartbeat
        return None if heartbeat is None else (heartbeat.lease.lasts_until_ms() - self._now_ms()) / 1000

    def _now_ms(self) -> float:
        """Return the monotonic time in milliseconds."""
        raise NotImplementedError

    def __repr__(self) -> str:
        state = self._state
        name = f"{state.reservation_id[:8]}…" if state.reservation_id else "without reservation"
        facts = f"{state.state} {_money(state)}"
        left = self._left_s()
        if left is not None and not state.finalized:
            facts += f", {max(0, round(left))} s left"
        return f"<{type(self).__name__} {name} {facts}>"


def _money(state: GuardState) -> str:
    settlement, held = state.settlement, state.request.estimate
    if settlement is not None and settlement.charged is not None:
        return f"{settlement.charged} charged"
    if settlement is not None:
        return f"{settlement.actual} {'owed' if settlement.status == 'pending' else 'spent'}"
    if state.state == "released":
        return f"{held} given back"
    return f"{held} reserved" if state.reservation_id else f"{held} estimated"
