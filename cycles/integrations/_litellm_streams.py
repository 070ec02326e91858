"""Streams of LiteLLM under a guard: objects of a subclass of the stream's own class, without an added last chunk."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

import litellm
from attrs import define, field

from cycles.integrations._litellm_reading import LiteLLMCall, is_added, reads_usage_on_request
from cycles.integrations._stepping import END
from cycles.integrations._work import Work

_EVENTS: Final = "_cycles_events"


@define
class GuardedStreams:
    """Opens the guarded stream of a call.

    Attributes:
        call: The call.
        adds_usage: Whether the usage is requested, although the caller did not ask for it.
        opened_stream: The stream of LiteLLM; None if it was denied.
    """

    call: LiteLLMCall
    adds_usage: bool
    opened_stream: Any = field(default=None, init=False)

    @classmethod
    def of(cls, call: LiteLLMCall) -> GuardedStreams | None:
        """Return None if the call returns a whole response."""
        if call.arguments.get("stream") is not True or call.arguments.get("complete_response") is True:
            return None
        return cls(call, reads_usage_on_request(call))

    def asked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a stream that reports its usage."""
        if not self.adds_usage:
            return arguments
        options = {**(arguments.get("stream_options") or {}), "include_usage": True}
        return {**arguments, "stream_options": options}

    def opened(self, work: Work, send: Callable[[Any], Any]) -> Any:
        """Reserve, open the stream, and read its first chunk: what it raises is raised by the call."""

        def open_(guard: Any) -> Any:
            self.opened_stream = send(guard)
            return self.opened_stream

        steps = work.stream(open_)
        return self._stream(self._rest(next(steps, END), steps))

    async def aopened(self, work: Work, send: Callable[[Any], Any]) -> Any:
        """As `opened`, for a coroutine."""

        async def open_(guard: Any) -> Any:
            self.opened_stream = await send(guard)
            return self.opened_stream

        steps = work.astream(open_)
        return self._stream(self._arest(await anext(steps, END), steps))

    def _rest(self, first: Any, steps: Generator[Any, None, None]) -> Generator[Any, None, None]:
        try:
            while first is not END:
                if not (self.adds_usage and is_added(first)):
                    yield first
                first = next(steps, END)
        finally:
            steps.close()

    async def _arest(self, first: Any, steps: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        try:
            while first is not END:
                if not (self.adds_usage and is_added(first)):
                    yield first
                first = await anext(steps, END)
        finally:
            await steps.aclose()

    def _stream(self, events: Any) -> Any:
        """Return an object of a subclass of the stream's class that yields these events; it has its attributes."""
        original = self.opened_stream
        base: Any = litellm.CustomStreamWrapper if original is None else type(original)
        made = object.__new__(_guarded_class(base))
        made.__dict__ = {"model": self.call.model, "_hidden_params": {}} if original is None else vars(original)
        setattr(made, _EVENTS, events)
        return made


@functools.cache
def _guarded_class(base: Any) -> Any:
    async def following(self: Any) -> Any:
        return await anext(getattr(self, _EVENTS))

    async def aclose(self: Any) -> None:
        await getattr(self, _EVENTS).aclose()

    members = {
        "__slots__": (_EVENTS,),  # the attributes are those of the original, which LiteLLM keeps: a dropped stream ends
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__del__": lambda self: None,  # the original has one
        "__iter__": lambda self: self,
        "__next__": lambda self: next(getattr(self, _EVENTS)),
        "__aiter__": lambda self: self,
        "__anext__": following,
        "close": lambda self: getattr(self, _EVENTS).close(),
        "aclose": aclose,
    }
    return type(base.__name__, (base,), members)
