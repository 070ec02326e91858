"""What the operations of the client share: the context of one call, and a list that is read page by page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from attrs import evolve, field, frozen

from cycles._client.call_options import ViewOptions
from cycles._client.context import current_subject
from cycles._client.options import AnySubject, checked_choice, checked_flag, optional_seconds
from cycles._config import Config
from cycles._core.amounts import Amount
from cycles._core.messages.paging import Cursors
from cycles._core.messages.requests import Call, CallOptions, check_key, new_trace_id
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.results import Result
from cycles._core.subjects import LEVELS, Subject, as_action, as_subject
from cycles._core.values.json_values import clean_object
from cycles._errors import InvalidRequestError
from cycles._flows.io import Io
from cycles._flows.retry import send_read, success_of

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime
    from cycles._wire.wire import Wire

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_NO_SUBJECT: Final = Subject()
_OF_VIEW: Final = ("timeout", "extra_headers", "lease_policy")  # options of a reservation that a view has too
_CHOSEN: Final = ("on_unavailable", "on_observed", "settle")

ResultT = TypeVar("ResultT", bound=Result)


@frozen
class OperationContext:
    """What an operation gets from its client: the I/O operations, the configuration and the wire."""

    io: Io
    config: Config
    wire: Wire
    options: ViewOptions = field(factory=ViewOptions)

    def with_options(self, timeout: Any = None, extra_headers: Any = None) -> OperationContext:
        """Return this context with options of one call.

        Raises:
            InvalidRequestError: One of them is wrong; nothing was sent.
        """
        return evolve(self, options=self.options.over({"timeout": timeout, "extra_headers": extra_headers}))

    def traced(self) -> CallOptions:
        """Return the options of a write, with a new trace id."""
        return evolve(self.options.of_call, trace_id=new_trace_id())

    def subject(self, given: AnySubject) -> Subject:
        """Return the subject of a request: `given`, then `cycles.subject(...)` blocks, then the client.

        Raises:
            InvalidRequestError: None of them sets a level, or a value has other characters than names may have.
        """
        # The nearest to the call wins: its argument, then the blocks around it, the view, and the configuration.
        merged = _of_levels(*[getattr(self.config, level) for level in LEVELS])
        for layer in (self.options.subject, current_subject(), None if given is None else as_subject(given)):
            if layer is not None and layer != _NO_SUBJECT:
                merged = _checked(layer.over(merged))
        if not any(getattr(merged, level) for level in LEVELS):
            raise InvalidRequestError(
                f"subject is empty: set at least one of {', '.join(LEVELS)}; "
                'pass subject={"tenant": "acme"} or set CYCLES_TENANT'
            )
        return merged

    def reserve_request(self, estimate: Amount, given: Mapping[str, Any]) -> ReserveRequest:
        """Return the checked request of a reservation, or of the chunks of a pool, which have fewer options.

        Args:
            estimate: The amount.
            given: The other options of `Cycles.reserve` or `Cycles.pool`. What is None comes from the client.

        Raises:
            InvalidRequestError: A value is wrong.
        """
        config, options = self.config, self.options.over({name: given[name] for name in _OF_VIEW})
        metadata, key = given["metadata"], given.get("idempotency_key")
        chosen = {name: checked_choice(name, given[name]) for name in _CHOSEN if given.get(name) is not None}
        return ReserveRequest(
            estimate=estimate,
            action=as_action(given["action"]),
            subject=self.subject(given["subject"]),
            ttl_ms=given["ttl_ms"],
            grace_period_ms=given["grace_period_ms"],
            overage_policy=options.overage_policy if given["overage_policy"] is None else given["overage_policy"],
            metadata=None if metadata is None else clean_object(metadata, "metadata"),
            idempotency_key=None if key is None else check_key(key),
            actual=given.get("actual"),
            shadow=config.shadow if given["shadow"] is None else checked_flag("shadow", given["shadow"]),
            wait=optional_seconds("wait", given.get("wait")),
            observe=checked_flag("observe", given.get("observe", False)),
            **options.of_request(config),
            **{"on_observed": config.on_observed, **chosen},
        )


class Owner(Protocol):
    """A client, or a view of one."""

    @property
    def config(self) -> Config:
        """Its configuration."""
        ...

    def _runtime(self) -> Runtime: ...

    def _context(self) -> OperationContext: ...

    async def aclose(self) -> None:
        """Close the client."""


def _checked(subject: Subject) -> Subject:
    """Return a subject, with its names checked before anything is sent: servers reject other characters."""
    for level in LEVELS:
        name = getattr(subject, level)
        if not isinstance(name, str | None) or not _NAME.fullmatch(name or "_"):
            characters = "1 to 128 letters (a-z), digits, '_', '.' or '-'"
            raise InvalidRequestError(f"subject.{level} must be {characters}, got {name!r:.80}")
    return subject


@lru_cache(maxsize=64)
def _of_levels(*levels: str | None) -> Subject:
    """Return the subject of a configuration, which is the same for most calls."""
    named: dict[str, Any] = dict(zip(LEVELS, levels, strict=True))
    return _checked(Subject(**named))


@frozen
class Pages(Generic[ResultT]):
    """A list that is read page by page: its first call, the member that contains the items, and their class."""

    call: Call
    member: str
    item: type[ResultT]

    async def fetch(self, context: OperationContext, cursors: Cursors) -> list[ResultT]:
        """Return the next page."""
        cursor = {} if cursors.current is None else {"cursor": cursors.current}
        call = evolve(self.call, query={**self.call.query, **cursor}, options=context.options.of_call)
        page = success_of(await send_read(context.io, call), call.operation)
        items = [self.item.read(body, **page.ids) for body in page.body[self.member]]
        # A server may send a cursor with the last page as well; `has_more`, if it is there, decides.
        following = page.body.get("next_cursor") if page.body.get("has_more") is not False else None
        cursors.advance(following, **page.ids)
        return items
