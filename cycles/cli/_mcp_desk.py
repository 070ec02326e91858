"""The reservations that an agent has made with the tools of `cycles mcp`; `_mcp_server.py` offers them over MCP.

A reservation that is open is kept alive by its guard's heartbeat. Over stdio the end of the process is the end of the
session, and everything open is released. Over HTTP a host may disappear without a word, so a reservation that was not
ended within its `ttl_s` is released then; an amount that arrives later is charged without it, because the money was
spent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

import cycles
from cycles import Amount, Unit

if TYPE_CHECKING:
    from cycles import Guard

MOST_TTL_S: Final = 86_400
_LOOK: Final = ("tool.call", "budget_left")
_LONGEST_KIND: Final = 64  # as the protocol allows
_LONGEST_NAME: Final = 256
_NO_RESPONSE: Final = (
    "the budget cannot be checked now: its server gave no usable response; do not act, try again later"
)


class AgentError(Exception):
    """A call of a tool failed. The message is for the model: it has no address, key or scope."""


@define(eq=False)
class _Open:
    """One reservation; `guard` is None once it was released because it was left."""

    guard: Guard | None
    estimate: Amount
    action: tuple[str, str]
    deadline: float
    lock: threading.Lock = field(factory=threading.Lock)


class Desk:
    """Reserves for the agent, and keeps what is open.

    Args:
        client: The Cycles client; its configuration has the subject.
        subject: Levels of the subject beside those of the configuration.
        most: The largest estimate of one reservation; None: no limit.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, client: cycles.Cycles, subject: Any = None, most: Amount | None = None, *, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._subject = subject
        self._most = most
        self._clock = clock
        self._open: dict[str, _Open] = {}

    def left(self) -> dict[str, str]:
        """Return what is left, by unit: that of the budget in which the least is left."""
        found: dict[str, Amount] = {}
        with _explained():
            for unit in Unit:
                try:
                    preview = self._client.preview(Amount(unit, 0), action=_LOOK, subject=self._subject)
                except cycles.CyclesError as error:
                    if getattr(error, "code", None) == "UNIT_MISMATCH":
                        continue  # no budget of this subject is in this unit
                    raise
                for balance in preview.balances or ():
                    left = Amount(balance.remaining.unit, max(0, balance.remaining.amount))
                    known = found.get(left.unit)
                    found[left.unit] = left if known is None or left.amount < known.amount else known
        return {_unit(each): text_of(each) for each in found.values()}

    def check(self, estimate: str, action: str) -> dict[str, Any]:
        """Return whether an action would be allowed now; nothing is reserved."""
        amount, kind = _amount(estimate, "estimate"), _action(action)
        if (reason := self._above(amount)) is not None:
            return {"allowed": False, "reason": reason}
        with _explained():
            found = self._client.decide(amount, action=kind, subject=self._subject)
        return {"allowed": True} if found.allowed else {"allowed": False, "reason": str(found.denial_code)}

    def reserve(self, estimate: str, action: str, ttl_s: int, key: str) -> dict[str, Any]:
        """Reserve; `key` becomes the id."""
        amount, kind = _amount(estimate, "estimate"), _action(action)
        if isinstance(ttl_s, bool) or not isinstance(ttl_s, int) or not 1 <= ttl_s <= MOST_TTL_S:
            raise AgentError(f"ttl_s must be an integer from 1 to {MOST_TTL_S}, got {ttl_s!r:.40}")
        if (reason := self._above(amount)) is not None:
            return {"allowed": False, "reason": reason}
        with _explained():
            try:
                reservation = self._client.reserve(
                    amount, action=kind, subject=self._subject, ttl_ms=max(1000, ttl_s * 1000)
                )
                guard = reservation.acquire()
            except cycles.ReservationDeniedError as denied:
                return {"allowed": False, "reason": denied.code}
        self._open[key] = _Open(guard, amount, kind, self._clock() + ttl_s)
        return {"allowed": True, "id": key}

    def commit(self, key: str, actual: str) -> dict[str, Any]:
        """Commit what an action cost."""
        amount = _amount(actual, "actual")
        with self._taken(key) as entry:
            if amount.unit != entry.estimate.unit:
                raise AgentError(f"actual is in {_unit(amount)}, but {_unit(entry.estimate)} was reserved; convert it")
            with _explained():
                if entry.guard is None:
                    self._client.record(
                        amount, action=entry.action, subject=self._subject, idempotency_key=f"mcp-{key}"
                    )
                else:
                    entry.guard.commit(amount)
            del self._open[key]
        return {"committed": text_of(amount)}

    def release(self, key: str) -> dict[str, Any]:
        """Release a reservation without a cost."""
        with self._taken(key) as entry:
            if entry.guard is not None:
                with _explained():
                    entry.guard.release("the agent did not act")
            del self._open[key]
        return {"released": True}

    def expire(self) -> None:
        """Release what was not ended within its `ttl_s`; its id stays known, so that a late amount is charged."""
        now = self._clock()
        for entry in list(self._open.values()):
            if entry.deadline <= now:
                self._release(entry)

    def close(self) -> None:
        """Release everything that is open."""
        for entry in list(self._open.values()):
            self._release(entry)
        self._open.clear()

    def _release(self, entry: _Open) -> None:
        with entry.lock:
            guard, entry.guard = entry.guard, None
            if guard is not None and guard.state == "active":
                try:
                    guard.release("the session of the agent has ended")
                except cycles.CyclesError:
                    guard.end()  # its lease ends by itself

    @contextmanager
    def _taken(self, key: str) -> Iterator[_Open]:
        entry = self._open.get(key)
        if entry is not None:
            with entry.lock:  # of two calls with one id the second finds it ended
                if self._open.get(key) is entry:
                    yield entry
                    return
        raise AgentError(f"there is no open reservation {key!r:.60}: it was committed or released, or the id is wrong")

    def _above(self, amount: Amount) -> str | None:
        if self._most is None:
            return None
        if amount.unit != self._most.unit:
            return f"a reservation must be in {_unit(self._most)}"
        return None if amount.amount <= self._most.amount else f"one reservation may be at most {text_of(self._most)}"


def text_of(amount: cycles.SignedAmount) -> str:
    """Return an amount as `Amount.parse` reads it, like ``0.40USD``."""
    if amount.unit == Unit.USD_MICROCENTS:
        return f"{str(amount).removeprefix('$')}USD"
    return f"{amount.amount}{amount.unit}"


def _unit(amount: Amount) -> str:
    return "USD" if amount.unit == Unit.USD_MICROCENTS else str(amount.unit)


def _amount(text: Any, name: str) -> Amount:
    if not isinstance(text, str):
        raise AgentError(f'{name} must be a string such as "0.40USD", got {text!r:.60}')
    try:
        return Amount.parse(text)
    except cycles.InvalidRequestError as wrong:
        what, _, _ = str(wrong).partition("; write it like")
        raise AgentError(f'{name}: {what}; write it like "0.40USD"') from None


def _action(text: Any) -> tuple[str, str]:
    kind, _, name = text.partition("/") if isinstance(text, str) else ("", "", "")
    if not (0 < len(kind) <= _LONGEST_KIND and 0 < len(name) <= _LONGEST_NAME):
        limits = f"with at most {_LONGEST_KIND} and {_LONGEST_NAME} characters"
        raise AgentError(f"action must be KIND/NAME such as tool.call/web_search, {limits}, got {text!r:.60}")
    return kind, name


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the client into messages for the model."""
    try:
        yield
    except (cycles.TransportError, cycles.ServerError, cycles.RateLimitedError) as error:
        raise AgentError(_NO_RESPONSE) from error
    except cycles.CyclesError as error:
        code = getattr(error, "code", None) or type(error).__name__
        raise AgentError(f"the budget's server rejected this ({code}); do not try it again unchanged") from error
