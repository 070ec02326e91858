"""Dramatiq: guarded actors. Needs the extra ``dramatiq``; see `docs/integrations/queues.md`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from cycles.integrations._queues import TaskGuard
from cycles.integrations._shared import require

require("dramatiq", "dramatiq")

from dramatiq.errors import Retry
from dramatiq.middleware import CurrentMessage

if TYPE_CHECKING:
    from dramatiq import Broker

    from cycles import Amount, Cycles

__all__ = ["guarded", "install"]

F = TypeVar("F", bound=Callable[..., Any])

_DENIALS = "cycles_denials"
_POSTPONED = "cycles_postponed"


def guarded(
    client: Cycles | None = None,
    *,
    estimate: Amount | Callable[..., Amount | None],
    action: Any = None,
    actual: Any = None,
    on_denied: str = "retry",
    on_settled: str = "raise",
    max_denials: int = 10,
    denied_delay_s: float = 30.0,
    **options: Any,
) -> Callable[[F], F]:
    """Guard each attempt of an actor. Write it below ``@dramatiq.actor``, and call `install` once.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        estimate: An amount, or a callable of the actor's arguments.
        action: The action, or a callable like `estimate`; by default ``("task.run", function name)``.
        actual: The cost: an amount, or a callable of the result. Without it the estimate is committed.
        on_denied: ``"retry"`` postpones a denied message, ``"reject"`` fails it permanently, ``"raise"`` raises.
        on_settled: What happens to a message that is delivered again after its attempt was committed: ``"raise"`` fails
            permanently, ``"skip"`` acknowledges it without a result, ``"run"`` runs and pays again.
        max_denials: How often a message is postponed before it fails permanently.
        denied_delay_s: Seconds until the first postponed run, doubled each time, if the server names no time.
        options: Other options of `reserve`, and `subject`, which may be a callable of the actor's arguments.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """
    guard = TaskGuard(client, estimate, action, actual, on_denied, on_settled, max_denials, denied_delay_s, options)
    return lambda function: guard.decorate(function, _attempt)  # type: ignore[no-any-return]


def install(broker: Broker) -> None:
    """Add the middleware `CurrentMessage` to a broker. Without it each attempt has a new key."""
    if not any(isinstance(each, CurrentMessage) for each in broker.middleware):
        broker.add_middleware(CurrentMessage())


class _Attempt:
    """The attempt that a worker runs: `cycles.integrations._queues.Attempt`."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._postponed = int(message.options.get(_POSTPONED) or 0)
        retries = int(message.options.get("retries") or 0) - self._postponed  # postponed runs are counted as retries
        self.key = f"dramatiq:{message.message_id}:{retries}"
        self.denials = int(message.options.get(_DENIALS) or 0)

    def is_redelivered(self, ttl_ms: int) -> bool:
        # The message does not say it. One that is younger than the lease cannot have outlived it elsewhere.
        return bool(time.time() * 1000 - self._message.message_timestamp > ttl_ms)

    def postpone(self, delay_s: float, denials: int) -> NoReturn:
        self._message.options.update({_DENIALS: denials, _POSTPONED: self._postponed + 1})
        raise Retry("postponed", delay=round(delay_s * 1000))

    def reject(self, error: Exception) -> NoReturn:
        self.fail(error)

    def fail(self, error: Exception) -> NoReturn:
        self._message.options["throws"] = type(error)  # the retry middleware fails the message then
        raise error

    def skip(self) -> None:
        return None


def _attempt() -> _Attempt | None:
    message = CurrentMessage.get_current_message()
    return None if message is None else _Attempt(message)
