"""Turn one description of an operation into a method of the client and a coroutine of `client.aio`.

An operation is a flow that takes an `OperationContext`. Both methods have its signature and docstring. A list is
described by its first call and reads one page after the other, lazily.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from attrs import evolve, field, frozen

from cycles._client.call_options import CallOptions, options_of_call
from cycles._client.context import current_subject
from cycles._client.options import AnySubject, checked_timeout
from cycles._config import Config
from cycles._core.error_mapping import error_of
from cycles._core.outcome import Success
from cycles._core.paging import Cursors
from cycles._core.requests import Call
from cycles._core.results import Result
from cycles._core.subjects import LEVELS, Subject, as_subject
from cycles._errors import InvalidRequestError
from cycles._flows.io import Io, run
from cycles._flows.retry import send_read

if TYPE_CHECKING:
    from cycles._wire.wire import Wire

P = ParamSpec("P")
R = TypeVar("R")
ResultT = TypeVar("ResultT", bound=Result)


@frozen
class OperationContext:
    """What an operation gets from its client: the I/O operations, the configuration and the wire."""

    io: Io
    config: Config
    wire: Wire
    options: CallOptions = field(factory=CallOptions)

    def with_options(self, timeout: Any = None, extra_headers: Any = None) -> OperationContext:
        """Return this context with options of one call.

        Raises:
            InvalidRequestError: One of them is wrong; nothing was sent.
        """
        if timeout is not None:
            checked_timeout(timeout)
        options = CallOptions().over({"timeout": timeout, "extra_headers": extra_headers})
        return evolve(self, io=options.io(self.io))

    def subject(self, given: AnySubject) -> Subject:
        """Return the subject of a request: `given`, then `cycles.subject(...)` blocks, then the client.

        Raises:
            InvalidRequestError: None of them sets a level.
        """
        merged = as_subject(given)
        around = current_subject()
        if around is not None:
            merged = merged.over(around)
        merged = merged.over(self.options.subject)
        merged = merged.over(Subject(**{level: getattr(self.config, level) for level in LEVELS}))
        if not any(getattr(merged, level) for level in LEVELS):
            raise InvalidRequestError(
                f"subject is empty: set at least one of {', '.join(LEVELS)}; "
                'pass subject={"tenant": "acme"} or set CYCLES_TENANT'
            )
        return merged


class HasContext(Protocol):
    """An object that the methods can be attributes of."""

    def _context(self) -> OperationContext: ...


def _context(client: HasContext, flow: Callable[..., Any], keywords: dict[str, Any]) -> OperationContext:
    """Return the context of one call, and take the options of the call out of its keywords.

    Raises:
        TypeError: The operation has no such keyword.
        InvalidRequestError: An option of the call is wrong.
    """
    context, given = client._context(), options_of_call(flow, keywords)
    return context.with_options(**given) if given else context


def blocking(
    flow: Callable[Concatenate[OperationContext, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], R]:
    """Return a flow as a sync method."""

    @wraps(flow)
    def method(self: HasContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(flow(_context(self, flow, kwargs), *args, **kwargs))

    return method


def suspending(
    flow: Callable[Concatenate[OperationContext, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return a flow as a coroutine method."""

    @wraps(flow)
    async def method(self: HasContext, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await flow(_context(self, flow, kwargs), *args, **kwargs)

    return method


@frozen
class Pages(Generic[ResultT]):
    """A list that is read page by page: its first call, the member that contains the items, and their class."""

    call: Call
    member: str
    item: type[ResultT]

    async def fetch(self, io: Io, cursors: Cursors) -> list[ResultT]:
        """Return the next page."""
        call, cursor = self.call, cursors.current
        if cursor is not None:
            call = evolve(call, query={**call.query, "cursor": cursor})
        outcome = await send_read(io, call)
        if not isinstance(outcome, Success):
            raise error_of(outcome, call.operation) from getattr(outcome, "cause", None)
        items = [self.item.read(body, **outcome.ids) for body in outcome.body[self.member]]
        following = outcome.body.get("next_cursor") if outcome.body.get("has_more") is not False else None
        cursors.advance(following, **outcome.ids)
        return items


def iterating(
    describe: Callable[Concatenate[OperationContext, P], Pages[ResultT]],
) -> Callable[Concatenate[Any, P], Iterator[ResultT]]:
    """Return a list as a method that returns a lazy iterator. The method itself checks the filters."""

    def items(io: Io, pages: Pages[ResultT]) -> Iterator[ResultT]:
        cursors = Cursors()
        while not cursors.ended:
            yield from run(pages.fetch(io, cursors))

    @wraps(describe)
    def method(self: HasContext, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ResultT]:
        context = _context(self, describe, kwargs)
        return items(context.io, describe(context, *args, **kwargs))

    return method


def iterating_async(
    describe: Callable[Concatenate[OperationContext, P], Pages[ResultT]],
) -> Callable[Concatenate[Any, P], AsyncIterator[ResultT]]:
    """Return a list as a method that returns a lazy async iterator. The method itself checks the filters."""

    async def items(io: Io, pages: Pages[ResultT]) -> AsyncIterator[ResultT]:
        cursors = Cursors()
        while not cursors.ended:
            for item in await pages.fetch(io, cursors):
                yield item

    @wraps(describe)
    def method(self: HasContext, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ResultT]:
        context = _context(self, describe, kwargs)
        return items(context.io, describe(context, *args, **kwargs))

    return method
