"""Let one call of a framework pay for the requests of guarded clients that are sent inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from cycles import Amount, Usage


class Payer(Protocol):
    """A call of a framework that has its own reservation.

    Attributes:
        estimate: What the call has reserved; a request whose cost cannot be known costs as much.
        price: Returns the cost of a `Usage`, for example a `PriceBook`; None: what is estimated is charged.
    """

    estimate: Amount
    price: Callable[[Usage], Amount] | None

    def bind(self, request: Any) -> None:
        """Take a request that is about to be sent. When the call ends, it gets the cost from ``request.paid()``."""
        ...

    def ended(self, request: Any) -> None:
        """Note that the response of a request has ended; its usage is known."""
        ...


_payer: Final[ContextVar[Payer | None]] = ContextVar("cycles_payer", default=None)


@contextmanager
def paid_by(work: Payer | None) -> Iterator[None]:
    """Let `work` pay for each request that a guarded client sends inside the block, in place of a reservation.

    A request is bound to `work` when it is sent, so a stream may be read after the block. Enter it for each step of a
    generator, never across a ``yield``. The integrations of `cycles.integrations` use it for their model calls.

    Args:
        work: The call that pays; None: each request inside the block has its own reservation again.
    """
    token = _payer.set(work)
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine that is dropped is closed in another context
            _payer.reset(token)


def current_payer() -> Payer | None:
    """Return the call that pays for requests of this context, or None."""
    return _payer.get()


def sum_of(endings: Iterable[Any]) -> tuple[Amount, dict[str, Any]] | None:
    """Return the sum of what requests cost, and their metadata; None if none of them was sent to a provider.

    Args:
        endings: What ``request.paid()`` returns for each request.
    """
    costs = [ending for ending in endings if ending.amount is not None]
    if not costs:
        return None
    metadata: dict[str, Any] = {}
    for ending in costs:
        metadata = {name: _joined(metadata.get(name), value) for name, value in {**metadata, **ending.metadata}.items()}
    total: Amount = costs[0].amount
    for ending in costs[1:]:
        total += ending.amount
    return total, metadata


def _joined(first: Any, second: Any) -> Any:
    """Return one metadata value for two requests: the members of both, else the later one."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **second}
    if isinstance(first, list) and isinstance(second, list):
        return list(dict.fromkeys([*first, *second]))
    return second
