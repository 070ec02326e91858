"""Turn one flow into a sync method and into a coroutine method. Both have its signature and docstring.

`Cycles` and `cycles.Admin` have their operations from here. A flow takes the context of the call, which its object
returns. A list is described by its first call and reads one page after the other, lazily.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from cycles._client.call_options import options_of_call
from cycles._core.messages.paging import Cursors
from cycles._flows.io import run

P = ParamSpec("P")
R = TypeVar("R")
ItemT = TypeVar("ItemT")


class Context(Protocol):
    """What a flow gets from the object of its method."""

    def with_options(self, timeout: Any = None, extra_headers: Any = None) -> Self: ...


ContextT = TypeVar("ContextT", bound=Context)
ContextT_co = TypeVar("ContextT_co", bound=Context, covariant=True)
ContextT_contra = TypeVar("ContextT_contra", contravariant=True)


class HasContext(Protocol[ContextT_co]):
    """An object that the methods can be attributes of."""

    def _context(self) -> ContextT_co: ...


class Paged(Protocol[ContextT_contra, ItemT]):
    """A list that is read page by page."""

    async def fetch(self, context: ContextT_contra, cursors: Cursors, /) -> list[ItemT]: ...


def _context_of(owner: HasContext[ContextT], flow: Callable[..., Any], keywords: dict[str, Any]) -> ContextT:
    """Return the context of one call, and take the options of the call out of its keywords.

    Raises:
        TypeError: The operation has no such keyword.
        InvalidRequestError: An option of the call is wrong.
    """
    # First the context: a closed client says so, and not that an option is unknown.
    context, given = owner._context(), options_of_call(flow, keywords)
    return context.with_options(**given) if given else context


def blocking(flow: Callable[Concatenate[ContextT, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """Return a flow as a sync method."""

    @wraps(flow)
    def method(self: HasContext[ContextT], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(flow(_context_of(self, flow, kwargs), *args, **kwargs))

    return method


def suspending(
    flow: Callable[Concatenate[ContextT, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return a flow as a coroutine method."""

    @wraps(flow)
    async def method(self: HasContext[ContextT], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await flow(_context_of(self, flow, kwargs), *args, **kwargs)

    return method


def iterating(
    describe: Callable[Concatenate[ContextT, P], Paged[ContextT, ItemT]],
) -> Callable[Concatenate[Any, P], Iterator[ItemT]]:
    """Return a list as a method that returns a lazy iterator. The method itself checks the filters."""

    def items(context: ContextT, pages: Paged[ContextT, ItemT]) -> Iterator[ItemT]:
        cursors = Cursors()
        while not cursors.ended:
            yield from run(pages.fetch(context, cursors))

    @wraps(describe)
    def method(self: HasContext[ContextT], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ItemT]:
        # A wrong filter raises in this call, and not in the first step of the loop over the result.
        context = _context_of(self, describe, kwargs)
        return items(context, describe(context, *args, **kwargs))

    return method


def iterating_async(
    describe: Callable[Concatenate[ContextT, P], Paged[ContextT, ItemT]],
) -> Callable[Concatenate[Any, P], AsyncIterator[ItemT]]:
    """Return a list as a method that returns a lazy async iterator. The method itself checks the filters."""

    async def items(context: ContextT, pages: Paged[ContextT, ItemT]) -> AsyncIterator[ItemT]:
        cursors = Cursors()
        while not cursors.ended:
            for item in await pages.fetch(context, cursors):
                yield item

    @wraps(describe)
    def method(self: HasContext[ContextT], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ItemT]:
        context = _context_of(self, describe, kwargs)
        return items(context, describe(context, *args, **kwargs))

    return method
