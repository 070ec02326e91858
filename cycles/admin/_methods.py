"""Turn one coroutine over a `Channel` into a method of `Admin` and a method of `admin.aio`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from attrs import frozen

from cycles._client.call_options import options_of_call
from cycles._core.paging import Cursors
from cycles._core.requests import Call
from cycles._core.results import Result
from cycles._flows.io import run
from cycles.admin._channel import Channel, read, with_options

P = ParamSpec("P")
R = TypeVar("R")
ResultT = TypeVar("ResultT", bound=Result)


class HasChannel(Protocol):
    """The object that a method belongs to."""

    _channel: Any


def _channel(client: HasChannel, operation: Callable[..., Any], keywords: dict[str, Any]) -> Channel:
    """Return the channel of one call, and take the options of the call out of its keywords.

    Raises:
        TypeError: The operation has no such keyword.
        InvalidRequestError: An option of the call is wrong.
    """
    given = options_of_call(operation, keywords)
    return with_options(client._channel, **given)


def blocking(operation: Callable[Concatenate[Channel, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """Return an operation as a method that blocks."""

    @wraps(operation)
    def method(self: HasChannel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(operation(_channel(self, operation, kwargs), *args, **kwargs))

    return method


def awaiting(
    operation: Callable[Concatenate[Channel, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return an operation as a coroutine method."""

    @wraps(operation)
    async def method(self: HasChannel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await operation(_channel(self, operation, kwargs), *args, **kwargs)

    return method


@frozen
class Pages(Generic[ResultT]):
    """A list that is read page by page: its operation and filters, the member with the items, and their class."""

    operation: str
    query: Mapping[str, Any]
    member: str
    item: type[ResultT]

    async def fetch(self, channel: Channel, cursors: Cursors) -> list[ResultT]:
        """Return the next page."""
        query = {name: value for name, value in {**self.query, "cursor": cursors.current}.items() if value is not None}
        success = await read(channel, Call(self.operation, query=query))
        items = [self.item.read(body, **success.ids) for body in success.body[self.member]]
        cursors.advance(success.body.get("next_cursor") or None, **success.ids)
        return items

    async def all(self, channel: Channel) -> list[ResultT]:
        """Return the items of all pages."""
        cursors, items = Cursors(), list[ResultT]()
        while not cursors.ended:
            items += await self.fetch(channel, cursors)
        return items


def pages(
    channel: Channel, operation: str, member: str, item: type[ResultT], query: Mapping[str, Any]
) -> Pages[ResultT]:
    """Describe a list. Filters that are None are omitted.

    Raises:
        InvalidRequestError: naming the filter that is wrong.
    """
    given = {name: value for name, value in query.items() if value is not None}
    channel.wire.check(Call(operation, query=given))
    return Pages(operation, given, member, item)


def iterating(
    describe: Callable[Concatenate[Channel, P], Pages[ResultT]],
) -> Callable[Concatenate[Any, P], Iterator[ResultT]]:
    """Return a list as a method that gives a lazy iterator. Wrong filters are an error of the call itself."""

    @wraps(describe)
    def method(self: HasChannel, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ResultT]:
        channel = _channel(self, describe, kwargs)
        return _items(channel, describe(channel, *args, **kwargs))

    return method


def iterating_async(
    describe: Callable[Concatenate[Channel, P], Pages[ResultT]],
) -> Callable[Concatenate[Any, P], AsyncIterator[ResultT]]:
    """Return a list as a method that gives a lazy async iterator."""

    @wraps(describe)
    def method(self: HasChannel, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ResultT]:
        channel = _channel(self, describe, kwargs)
        return _async_items(channel, describe(channel, *args, **kwargs))

    return method


def _items(channel: Channel, pages: Pages[ResultT]) -> Iterator[ResultT]:
    cursors = Cursors()
    while not cursors.ended:
        yield from run(pages.fetch(channel, cursors))


async def _async_items(channel: Channel, pages: Pages[ResultT]) -> AsyncIterator[ResultT]:
    cursors = Cursors()
    while not cursors.ended:
        for item in await pages.fetch(channel, cursors):
            yield item
