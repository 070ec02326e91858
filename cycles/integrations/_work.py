"""One guarded call: the only place where an integration reserves and settles.

`Work.run` and `Work.arun` share everything but `await`, and so do `Work.stream` and `Work.astream`: one flow runs both,
over the operations of `_stepping.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from attrs import define, field

import cycles
from cycles.integrations._cost import LONGEST_NAME, OPEN, Cost, FailedResult
from cycles.integrations._options import Common, estimate_of
from cycles.integrations._shared import DENIALS, withhold
from cycles.integrations._stepping import END, Awaiting, Blocking, Steps, blocking, result_of

if TYPE_CHECKING:
    from cycles import Amount, AsyncGuard, Guard, Reservation

T = TypeVar("T")
_LEFT: Final = (GeneratorExit, asyncio.CancelledError)
_LOST: Final = {"outcome": "error", "attempts": 1, "actual_source": "estimate"}
"""Metadata of a call without a response, as guarded clients write them."""


@define(kw_only=True)
class Work(Cost):
    """One guarded call: what it costs, and how it is denied.

    Attributes:
        common: The options of the integration object.
        denied: Returns the result that replaces a denied call, or raises.
        tool: The name of the tool that is called; the caps must allow it.
        is_model: Whether the call is a step of an agent: caps that allow no further step are a denial.
        key: The idempotency key of the reservation; a new one by default.
        subject: Replaces the subject of `common`, if it was called for this call already.
        charges_lost: Whether a call costs its estimate if it is cancelled or interrupted, or its connection breaks,
            before any of its response has arrived: the provider may bill it.
        began: Whether the call itself has begun: from then on errors are its own.
    """

    common: Common
    denied: Callable[[Exception], Any]
    tool: str | None = None
    is_model: bool = False
    key: str | None = None
    subject: Any = None
    charges_lost: bool = False
    began: bool = field(default=False, init=False)

    @classmethod
    def of_model(
        cls, common: Common, name: str, call: Any, *, denied: Callable[[Exception, str], Any], **options: Any
    ) -> Self | None:
        """Return the guarded call of a model; None if it is not guarded, or if a call around it pays.

        Args:
            common: The options of the integration object.
            name: The name of the model.
            call: What the callables of the integration get.
            denied: Returns what replaces a denied call: it gets the denial and its message.
            options: Other attributes.
        """
        if cycles.providers.current_payer() is not None:
            return None
        estimate = estimate_of("model_budget", common.model_budget, None, call)
        if estimate is None:
            return None
        made = {"action": ("llm.completion", name), "price": common.model_actual, "is_model": True, **options}
        replaced = _replaced(common, denied, (call,), "raise")
        return cls(common=common, estimate=estimate, call=(call,), denied=replaced, **made)

    @classmethod
    def of_tool(
        cls, common: Common, name: str, *call: Any, denied: Callable[[Exception, str], Any], **options: Any
    ) -> Self | None:
        """As `of_model`, for the call of a tool."""
        estimate = estimate_of("tool_budget", common.tool_budget, name, *call)
        if estimate is None:
            return None
        made = {"action": ("tool.call", name), "actual": common.tool_actual, "tool": name, **options}
        return cls(
            common=common, estimate=estimate, call=call, denied=_replaced(common, denied, call, "message"), **made
        )

    def run(self, call: Callable[[Guard], T]) -> T:
        """Reserve, run the call and settle. Returns what `denied` returns if the reservation is denied.

        Raises:
            CyclesError: The budget could not be checked, or the settlement was rejected.
            BaseException: What the call raised.
        """
        try:
            with self._reservation() as guard:
                self._permit(guard)
                try:
                    with self.paying():
                        result = call(guard)
                    self.see(result, guard)
                except BaseException as raised:
                    with self._noting(raised):
                        if made := self._lost(guard, raised) or self.made_inside(guard, left=isinstance(raised, _LEFT)):
                            guard.commit(made[0], metadata=made[1])
                    raise
                amount, metadata, failure = self.ending(guard, result)
                if amount is not None:
                    guard.commit(amount, metadata=metadata)
                elif failure is not None:
                    guard.end(failure)
        except DENIALS as error:
            if self.began:
                raise
            return self.replaced(error)  # type: ignore[no-any-return]
        return result

    async def arun(self, call: Callable[[AsyncGuard], Awaitable[T]]) -> T:
        """As `run`, for a coroutine."""
        try:
            async with self._reservation() as guard:
                self._permit(guard)
                try:
                    with self.paying():
                        result = await call(guard)
                    self.see(result, guard)
                except BaseException as raised:
                    with self._noting(raised):
                        if made := self._lost(guard, raised) or self.made_inside(guard, left=isinstance(raised, _LEFT)):
                            await guard.commit(made[0], metadata=made[1])
                    raise
                amount, metadata, failure = self.ending(guard, result)
                if amount is not None:
                    await guard.commit(amount, metadata=metadata)
                elif failure is not None:
                    await guard.end(failure)
        except DENIALS as error:
            if self.began:
                raise
            return self.replaced(error)  # type: ignore[no-any-return]
        return result

    def stream(self, open_: Callable[[Guard], Any]) -> Generator[Any, None, None]:
        """As `run`, for a stream: reserve at the first step, settle when it ends, raises or is closed.

        `open_` returns an iterable of events.
        """
        return blocking(self._stream(open_, Blocking))

    def astream(self, open_: Callable[[AsyncGuard], Any]) -> AsyncGenerator[Any, None]:
        """As `stream`. `open_` returns an async iterable of events, or an awaitable of it."""
        return self._stream(open_, Awaiting)

    async def _stream(self, open_: Callable[[Any], Any], steps: Steps) -> AsyncGenerator[Any, None]:
        """Reserve, open the stream, yield its events and settle, by the steps of a blocking or an async stream."""
        try:
            guard = await self._reserve(steps)
        except DENIALS as error:
            yield self.replaced(error)
            return
        stream: Any = None
        event: Any = None
        try:
            with self.paying():
                stream = await result_of(open_(guard))
            events = steps.events(stream)
            while True:
                with self.paying():
                    step = await steps.next(events)
                if step is END:
                    break
                event = step
                self.see(event, guard)
                yield event
        except BaseException as raised:
            try:
                await steps.close(stream)
            finally:
                await self.abreak(guard, raised, sent=stream is not None)
            raise
        await (self.abreak(guard, FailedResult(), sent=True) if self.broke_off(event) else self.afinish(guard))

    def paying(self) -> AbstractContextManager[None]:
        """Return the block in which guarded clients report to this call. A tool's call lets them pay themselves."""
        return cycles.providers.paid_by(self if self.is_model else None)

    def replaced(self, error: Exception) -> Any:
        """Return what replaces the denied call.

        Raises:
            Exception: `error` itself, if a denial is raised. Its string has nothing that a model must not read.
        """
        try:
            return self.denied(error)
        except DENIALS as raised:
            withhold(raised)
            raise

    async def areserve(self) -> AsyncGuard:
        """Reserve for a stream. The caller ends the guard with `afinish` or `abreak`.

        Raises:
            Exception: One of `DENIALS`, or an error that is no denial.
        """
        guard: AsyncGuard = await self._reserve(Awaiting)
        return guard

    async def _reserve(self, steps: Steps) -> Any:
        guard = await steps.acquired(self._reservation())
        try:
            self._permit(guard)
        except BaseException as error:
            await result_of(guard.end(error))
            raise
        return guard

    async def afinish(self, guard: Guard | AsyncGuard, result: Any = None) -> None:
        """Settle a stream that was read to its end. `result` is what `failed` gets."""
        amount, metadata, failure = self.ending(guard, result)
        try:
            if amount is not None:
                await result_of(guard.commit(amount, metadata=metadata))
        finally:
            await result_of(guard.end(failure))

    async def abreak(self, guard: Guard | AsyncGuard, raised: BaseException, *, sent: bool) -> None:
        """Settle a stream that was left early or broke off: what was made so far. Never raises an error of Cycles.

        `raised` is why it ended, and `sent` whether the request may have been sent.
        """
        left = isinstance(raised, _LEFT)
        with self._noting(raised):
            made = self._lost(guard, raised)
            if made is None and guard.state in OPEN and (self.begun(guard) or (left and sent)):
                made = self.made(guard, "closed" if left else "error")
            if made is None:
                await result_of(guard.end(raised))
            else:
                await result_of(guard.commit(made[0], metadata=made[1]))

    def _lost(self, guard: Guard | AsyncGuard, raised: BaseException) -> tuple[Amount | None, dict[str, Any]] | None:
        """Return the cost of a call whose response is lost, if such a call is charged and nothing of it has arrived.

        Guarded clients in the call know what they have sent.
        """
        if not self.charges_lost or not cycles.providers.may_be_billed(raised) or guard.state not in OPEN:
            return None
        return None if self.has_seen or self._requests or self.begun(guard) else (self.estimate, _LOST)

    @contextmanager
    def _noting(self, raised: BaseException) -> Iterator[None]:
        """Add an error of the settlement to `raised` as a note."""
        try:
            yield
        except cycles.CyclesError as error:
            raised.add_note(f"cycles: the guard could not be settled: {error}")

    def _reservation(self) -> Reservation:
        common, (kind, name) = self.common, self.action
        return common.reserving().reserve(
            self.estimate,
            action=(kind, name[:LONGEST_NAME] or "unknown"),
            subject=common.subject_of(*self.call) if self.subject is None else self.subject,
            idempotency_key=self.key,
            actual=self.actual if isinstance(self.actual, cycles.Amount) else self.known(),
            **common.options,
        )

    def _permit(self, guard: Guard | AsyncGuard) -> None:
        if self.tool is not None:
            guard.require_tool(self.tool)
        if self.is_model:
            guard.step()
        self._used = guard.usage
        self.began = True


def _replaced(
    common: Common, denied: Callable[[Exception, str], Any], call: tuple[Any, ...], default: Literal["raise", "message"]
) -> Callable[[Exception], Any]:
    return lambda error: denied(error, common.message(error, *call, default=default))
