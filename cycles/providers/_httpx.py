"""Hooks of SDKs without a method above their retries: a copy of the client whose `httpx` client sees each request.

Each attempt is a request here, with a reservation of its own. These SDKs raise what `send` raises unchanged.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from cycles.providers._bodies import parsed_json, with_limits
from cycles.providers._call import Call
from cycles.providers._classes import subclass, without_hooks
from cycles.providers._meter import Meter
from cycles.providers._pump import receive
from cycles.providers._settle import TASK, THREAD

T = TypeVar("T")

_HOLDERS: Final = ("sdk_configuration", "async_client", "_client_wrapper", "httpx_client")
"""Attributes of the parts of an SDK that lead to its `httpx` clients: those of mistralai, then of cohere."""
_WEBSOCKETS: Final = "realtime"
"""How properties are named that return connections over a websocket."""
_LENGTHS: Final = ("content-length", "transfer-encoding")


def guarded_copy(llm: T, meter: Meter) -> T:
    """Return a guarded copy of a client.

    Raises:
        ConfigurationError: if it has no `httpx` client.
    """
    made = _Copy(llm, meter)
    copied = made.part(llm)
    if not made.clients:
        raise without_hooks(meter, type(llm).__module__.partition(".")[0], f"{type(llm).__name__} has no httpx client")
    return copied  # type: ignore[no-any-return]


class _Copy:
    """A copy of a client and of its parts. Each part is copied once, because parts refer to each other."""

    def __init__(self, original: object, meter: Meter) -> None:
        self._original = original
        self._meter = meter
        self._parts: dict[int, Any] = {}
        self.clients = 0

    def part(self, value: Any) -> Any:
        """Return a copy of a part whose requests are seen; another value unchanged."""
        if (known := self._parts.get(id(value))) is not None:
            return known
        if callable(getattr(value, "send", None)) and callable(getattr(value, "build_request", None)):
            self.clients += 1
            copied = object.__new__(_watched(type(value), self._meter))
            copied.__dict__ = value.__dict__
            self._parts[id(value)] = copied
            return copied
        if isinstance(value, type) or not any(hasattr(value, name) for name in _HOLDERS):
            return value
        cls = type(value)
        copied = object.__new__(_guarded(cls, self._meter) if value is self._original else _rejecting(cls, self._meter))
        self._parts[id(value)] = copied
        copied.__dict__["_cycles_original"] = self._original  # which closes the connections when it is dropped
        for name, member in vars(value).items():
            if not inspect.isfunction(member):  # methods that the SDK has bound to the original
                copied.__dict__[name] = self.part(member)
        return copied


def _guarded(cls: Any, meter: Meter) -> type[Any]:
    """Return a subclass of the class of a client, whose parts may be made when they are first used."""
    if not hasattr(cls, "__getattr__"):
        return _named(cls, meter)

    def __getattr__(self: Any, name: str) -> Any:
        found = cls.__getattr__(self, name)
        found.__class__ = _rejecting(type(found), meter)
        return found

    return _named(cls, meter, __getattr__=__getattr__)


def _rejecting(cls: Any, meter: Meter) -> type[Any]:
    """Return a subclass whose connections over a websocket are rejected, because no hook sees what they cost."""
    names = [name for name in vars(cls) if name.startswith(_WEBSOCKETS) and isinstance(vars(cls)[name], property)]
    if not names or meter.unmetered == "allow":
        return cls  # type: ignore[no-any-return]
    return _named(cls, meter, **{name: _rejected(f"{cls.__name__.lower()}.{name}", meter) for name in names})


def _rejected(name: str, meter: Meter) -> property:
    return property(lambda self: meter.reject_unmetered(name))


def _named(cls: Any, meter: Meter, **members: Any) -> type[Any]:
    return subclass(cls, _cycles_meter=meter, **members)


def _watched(cls: Any, meter: Meter) -> type[Any]:
    """Return a subclass of a class of `httpx` clients that meters what it sends."""

    caller = TASK if inspect.iscoroutinefunction(cls.send) else THREAD

    async def send(self: Any, request: Any, **how: Any) -> Any:
        call = _planned(meter, request)
        if call is None:
            return await caller.result(cls.send(self, request, **how))
        try:  # around all of it: a signal handler may raise at any point
            cap = await caller.open(call)
            response = await caller.result(cls.send(self, _limited(call, request, cap), **how))
            receive(call, response)
            if not call.streams:
                await caller.end(call, None, _failure(response))
        except BaseException as error:
            await caller.end(call, None, error)
            raise
        return response

    return _named(cls, meter, send=caller.method(send))


def _failure(response: Any) -> Exception | None:
    """Return the error of a response that is no success; the SDK raises its own."""
    try:
        response.raise_for_status()
    except Exception as error:
        return error
    return None


def _planned(meter: Meter, request: Any) -> Call | None:
    """Return the call of a request, with its estimate; None if it passes untouched."""
    url = str(request.url)
    path = meter.api.path(request.url.path)
    found = meter.endpoint(request.method, path, url)
    if found is None:
        return None
    body = _body(request)
    streams = body.get("stream") is True
    call = Call(meter, None if found == "unmetered" else found, path, body, stream=streams, url=url)
    call.reserved = call.estimate()
    return call


def _body(request: Any) -> Mapping[str, Any]:
    content = None
    with contextlib.suppress(Exception):  # a body that is streamed
        content = parsed_json(request.content)
    return content if isinstance(content, Mapping) else {}


def _limited(call: Call, request: Any, cap: int | None) -> Any:
    """Return a copy of a request with the output limit and with the usage event of a stream."""
    call.attempts = 1
    changes: dict[str, Any] = {**call.limits(cap), **call.with_usage_event()}
    if not changes:
        return request
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() not in _LENGTHS]
    body = with_limits(_body(request), changes)
    kept = {"headers": headers, "extensions": request.extensions}
    return type(request)(request.method, request.url, content=json.dumps(body).encode(), **kept)
