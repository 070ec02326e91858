"""What one guarded call costs: the amount to commit, or none if the end of the block decides.

`docs/integrations/README.md` prints the table. What a stream made so far is counted as guarded provider clients count
it (`docs/providers.md`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import define, field

import cycles
from cycles.usage import Usage

if TYPE_CHECKING:
    from cycles import Amount, AsyncGuard, Guard

    AnyGuard: TypeAlias = Guard | AsyncGuard
    Outcome: TypeAlias = Literal["closed", "error"] | None

OPEN: Final = ("active", "lost", "unreserved", "observed")
"""States of a guard that has not ended."""
LONGEST_NAME: Final = 256  # characters of an action name that the protocol allows
_LONGEST_MODEL: Final = 128  # characters of a model version
_ESTIMATED: Final = {"actual_source": "estimate"}
_adding: Final[ContextVar[bool]] = ContextVar("cycles_adding_usage", default=False)
"""Whether this thread adds the usage of a request to that of its guard."""
_log: Final = logging.getLogger("cycles")


class FailedResult(Exception):
    """Ends a guard whose call returned a result that reports a failure. It is never raised to a caller."""


@define(kw_only=True)
class Cost:
    """What one call costs.

    Attributes:
        estimate: What to reserve.
        action: Kind and name.
        call: What the callables of the integration get.
        price: For a model call: returns the cost of a `Usage`.
        actual: For any other call: an amount, or a callable of `call` and the result.
        read: Adds the usage that a result or stream event reports; returns True if it is complete.
        failed: Returns whether a result, or the last event of a stream, says that the call failed.
        prompt: Returns what the model reads, for a stream that is left before it reports its usage.
        strings: Returns the text that a stream event carries, for the same case.
        limit: The output limit of the request, in tokens.
        streams: Whether a stream inside of the call has begun, maybe without text.
        has_seen: Whether a result, or an event of a stream, has arrived.
    """

    estimate: Amount
    action: tuple[str, str]
    call: tuple[Any, ...] = ()
    price: Callable[[Usage], Amount] | None = None
    actual: Any = None
    read: Callable[[Any, Usage], object] | None = None
    failed: Callable[[Any], bool] | None = None
    prompt: Callable[[], Any] | None = None
    strings: Callable[[Any], Iterable[str]] | None = None
    limit: int | None = None
    streams: bool = field(default=False, init=False)
    has_seen: bool = field(default=False, init=False)
    _requests: list[Any] = field(factory=list, init=False)
    _used: Usage | None = field(default=None, init=False)
    _complete: bool = field(default=False, init=False)
    _text_bytes: int = field(default=0, init=False)
    _deltas: int = field(default=0, init=False)

    def bind(self, request: Any) -> None:
        """Take a request of a guarded client that this call pays."""
        self._requests.append(request)

    def ended(self, request: Any) -> None:
        """Add what a request used to the usage of the guard, so that the guard is priced also if it is interrupted."""
        if self._used is None:
            return
        token = _adding.set(True)
        try:
            request.add_usage(self._used)
        finally:
            _adding.reset(token)

    def paid(self, outcome: Outcome = None) -> tuple[Amount, dict[str, Any]] | None:
        """Return the cost of the requests of guarded clients, and its metadata; None if none was sent to a provider.

        `outcome` is that of the responses that have not ended.
        """
        found = cycles.providers.sum_of([request.paid(outcome) for request in self._requests])
        if found is None:
            return None
        for request in self._requests:
            self.ended(request)
        return found

    def see(self, event: Any, guard: AnyGuard) -> None:
        """Read a result, or one event of a stream. One of an unknown shape reports nothing.

        Nothing is read of a call whose requests guarded clients have sent: they report more than a framework does.
        """
        if self._requests:
            return
        made: list[str] = []
        try:
            if self.read is not None and self.read(event, guard.usage):
                self._complete = True
            if self.strings is not None:
                made = [text for text in self.strings(event) if text]
        except Exception as error:  # the call was made and is paid, also if its result cannot be read
            _log.warning("the usage of %s cannot be read: %r", self.action[1][:LONGEST_NAME], error)
        self._deltas += bool(made)
        self._text_bytes += sum(len(text.encode("utf-8", "surrogatepass")) for text in made)
        self.has_seen = True

    @property
    def has_streamed(self) -> bool:
        """Whether an event of a stream carried text."""
        return self._deltas > 0

    def made_inside(self, guard: AnyGuard, *, left: bool) -> tuple[Amount | None, dict[str, Any]] | None:
        """Return what a call made so far, if the framework streams inside of it; None: the block's end settles."""
        if guard.state not in OPEN:
            return None
        if self.paid("closed" if left else "error") or self.has_streamed or (left and self.streams):
            return self.made(guard, "closed" if left else "error")
        return None

    def broke_off(self, event: Any) -> bool:
        """Return whether the last event of a stream says that the call failed, before complete usage was reported."""
        return not (self._complete or self._requests) and self.failed is not None and self.failed(event)

    def begun(self, guard: AnyGuard) -> bool:
        """Return whether a stream has produced anything, or something is known to be spent."""
        return self._deltas > 0 or guard.usage.is_filled or guard.spent is not None or self.paid() is not None

    def ending(self, guard: AnyGuard, result: Any) -> tuple[Amount | None, Mapping[str, Any], Exception | None]:
        """Return the amount to commit and its metadata, or why the call failed; neither if the block's end settles."""
        if guard.state not in OPEN or guard.spent is not None:
            return None, {}, None
        if (paid := self.paid()) is not None:
            return *paid, None
        if self.failed is not None and self.failed(result):
            return None, {}, FailedResult()
        if isinstance(self.actual, cycles.Amount) or (guard.usage.is_filled and self.of_usage() is not None):
            return None, {}, None
        amount = self._checked(lambda: self.actual(*self.call, result)) if self.actual is not None else None
        return (self.estimate, _ESTIMATED, None) if amount is None else (amount, {}, None)

    def of_usage(self) -> Callable[[Usage], Amount] | None:
        """Return what calculates the cost of reported usage, or None: the estimate is committed then."""
        if self.price is not None or self.actual is not None or self.estimate.unit != "TOKENS":
            return self.price
        return lambda usage: cycles.tokens(usage.tokens_input + usage.tokens_output)

    def known(self) -> Callable[[Usage], Amount] | None:
        """Return what calculates the cost if the end of the block has to: an interruption has prevented `ending`.

        Each addition to the usage calls it too, to write the cost ahead; a request that is in flight must not end then.
        """
        calculate = self.of_usage()
        if calculate is None:
            return None
        return lambda usage: ((self._so_far() if _adding.get() else self.paid()) or [calculate(usage)])[0]

    def _so_far(self) -> tuple[Amount, dict[str, Any]] | None:
        """Return the cost of the requests that have ended, and its metadata."""
        return cycles.providers.sum_of([request.ending for request in self._requests if request.ending is not None])

    def made(self, guard: AnyGuard, outcome: Literal["closed", "error"]) -> tuple[Amount | None, dict[str, Any]]:
        """Return the cost of what a stream made so far, and its metadata. None is the known spend."""
        metadata: dict[str, Any] = {"outcome": outcome}
        if guard.spent is not None:
            return None, metadata
        if (paid := self.paid(outcome)) is not None:
            return paid[0], metadata | paid[1]
        if not self._complete:
            metadata |= _ESTIMATED
            self._count(guard.usage)
        calculate = self.of_usage()
        amount = None if calculate is None else self._checked(lambda: calculate(guard.usage))
        return (self.estimate, metadata | _ESTIMATED) if amount is None else (amount, metadata)

    def _count(self, usage: Usage) -> None:
        output = max(-(-self._text_bytes // 3), self._deltas)
        output = output if self.limit is None else min(output, self.limit)
        counts = {"tokens_output": max(output, usage.tokens_output)}
        if not usage.tokens_input:
            counts["tokens_input"] = self._count_input()
        usage.see_response(None, counts, model=usage.model_version or self.action[1][:_LONGEST_MODEL])

    def _count_input(self) -> int:
        content = None if self.prompt is None else self.prompt()
        book = self.price if isinstance(self.price, cycles.PriceBook) else cycles.PriceBook({})
        return book.count_input(self.action[1], content)

    def _checked(self, calculate: Callable[[], Amount]) -> Amount | None:
        """Return an amount that a callable of the application calculates; None if that fails."""
        try:
            amount = calculate()
            if not isinstance(amount, cycles.Amount) or amount.unit != self.estimate.unit:
                raise TypeError(f"it must return an Amount in {self.estimate.unit}, got {amount!r:.80}")
        except Exception as error:  # the application's own code; its failure must not lose the spend
            name = self.action[1][:LONGEST_NAME]
            _log.warning("the actual of %s failed, its estimate of %s is committed: %r", name, self.estimate, error)
            return None
        return amount
