"""A list of an admin operation, which is read page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from attrs import frozen

from cycles._core.messages.paging import Cursors
from cycles._core.messages.requests import Call
from cycles._core.results import Result
from cycles.admin._channel import Channel, read

ResultT = TypeVar("ResultT", bound=Result)


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
