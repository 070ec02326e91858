"""Hooks of the package google-genai: a subclass of its API client, and new modules around it.

The hooks are above the SDK's own retries: attempts that it retries itself are not counted.
"""

from __future__ import annotations

import copy
import json
import sys
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, TypeVar

from cycles._errors import ConfigurationError
from cycles._version import install_extra
from cycles.providers._bodies import with_limits
from cycles.providers._call import Call, Outcome
from cycles.providers._meter import Meter
from cycles.providers._pump import broken
from cycles.providers._settle import end_call, end_call_async, end_dropped, open_call, open_call_async

T = TypeVar("T")

_HOOKS: Final = ("request", "request_streamed", "async_request", "async_request_streamed")
_LIVE: Final = {"AsyncLive": "aio.live.connect", "AsyncLiveMusic": "aio.live.music.connect"}
"""Classes that connect over a websocket."""
_UNMETERED: Final = ("interactions", "agents", "triggers", "environments", "voices", "decisions")
"""Families that use the HTTP client directly: no hook sees their requests."""


def guarded_copy(llm: T, meter: Meter) -> T:
    """Return a guarded copy of a client.

    Raises:
        ConfigurationError: if its API client has no known hooks.
    """
    original: Any = llm
    api = getattr(original, "_api_client", None)
    missing = [name for name in _HOOKS if not callable(getattr(type(api), name, None))]
    if api is None or missing:
        package = sys.modules.get("google.genai")
        version = getattr(package, "__version__", "of an unknown version")
        raise ConfigurationError(
            f"google-genai {version} cannot be guarded: its API client has no {', '.join(missing)}; "
            f"install a version that its extra allows: {install_extra('google')}"
        )
    guarded: Any = object.__new__(_guarded_api(type(api), meter))
    guarded.__dict__ = api.__dict__
    copied: Any = _rebound(original, guarded, meter, original)
    return copied  # type: ignore[no-any-return]


def _rebound(module: Any, api: Any, meter: Meter, client: Any) -> Any:
    """Return a copy of a client or module whose requests go through the guarded API client.

    Each part refers to the original client, which closes the shared transport when it is dropped: a program may keep
    nothing but ``guard(genai.Client()).aio.models``.
    """
    copied = object.__new__(_quiet_class(type(module), meter))
    copied.__dict__["_cycles_original"] = client
    for name, value in vars(module).items():
        if name == "_api_client":
            copied.__dict__[name] = api
        elif hasattr(value, "_api_client") and value is not api:
            copied.__dict__[name] = _rebound(value, api, meter, client)
        elif name.strip("_") in (*_UNMETERED, "nextgen_client_instance"):
            copied.__dict__[name] = None
        else:
            copied.__dict__[name] = copy.copy(value) if isinstance(value, dict | list) else value
    return copied


def _quiet_class(cls: Any, meter: Meter) -> type[Any]:
    """Return a subclass that closes nothing when it is dropped, and rejects what cannot be metered."""
    if (made := meter.classes.get(cls)) is not None:
        return made
    members: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_cycles_meter": meter,
    }
    if hasattr(cls, "__del__"):
        members["__del__"] = lambda self: None
    if meter.unmetered != "allow":
        for name in _UNMETERED:
            if isinstance(getattr(cls, name, None), property):
                members[name] = _rejected_property(name, meter)
        if (live := _LIVE.get(cls.__name__)) is not None:
            members["connect"] = lambda self, *args, **how: meter.reject_unmetered(live)
    return meter.classes.setdefault(cls, type(cls.__name__, (cls,), members))


def _rejected_property(name: str, meter: Meter) -> property:
    return property(lambda self: meter.reject_unmetered(name))


def _guarded_api(cls: Any, meter: Meter) -> type[Any]:
    if (made := meter.classes.get(cls)) is not None:
        return made
    members = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__del__": lambda self: None,
        **_sync_hooks(cls, meter),
        **_async_hooks(cls, meter),
    }
    return meter.classes.setdefault(cls, type(cls.__name__, (cls,), members))


def _sync_hooks(cls: Any, meter: Meter) -> dict[str, Any]:
    def request(self: Any, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        call = _planned(self, meter, http_method, path, request_dict)
        if call is None:
            return cls.request(self, http_method, path, request_dict, http_options)
        try:  # around all of it: a signal handler may raise at any point
            cap = open_call(call)
            response = cls.request(self, http_method, path, _limited(call, request_dict, cap), http_options)
            call.whole(_bytes(response.body))
            end_call(call)
        except BaseException as error:
            end_call(call, None, error)
            raise
        return response

    def request_streamed(self: Any, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        call = _planned(self, meter, http_method, path, request_dict)
        if call is None:
            return cls.request_streamed(self, http_method, path, request_dict, http_options)
        try:
            cap = open_call(call)
            chunks = cls.request_streamed(self, http_method, path, _limited(call, request_dict, cap), http_options)
            return _Chunks(call, chunks)
        except BaseException as error:
            end_call(call, None, error)
            raise

    return {"request": request, "request_streamed": request_streamed}


def _async_hooks(cls: Any, meter: Meter) -> dict[str, Any]:
    async def request(self: Any, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        call = _planned(self, meter, http_method, path, request_dict)
        if call is None:
            return await cls.async_request(self, http_method, path, request_dict, http_options)
        try:  # around all of it: a signal handler may raise at any point
            cap = await open_call_async(call)
            response = await cls.async_request(self, http_method, path, _limited(call, request_dict, cap), http_options)
            call.whole(_bytes(response.body))
            await end_call_async(call)
        except BaseException as error:
            await end_call_async(call, None, error)
            raise
        return response

    async def streamed(self: Any, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        call = _planned(self, meter, http_method, path, request_dict)
        if call is None:
            return await cls.async_request_streamed(self, http_method, path, request_dict, http_options)
        try:
            cap = await open_call_async(call)
            body = _limited(call, request_dict, cap)
            chunks = await cls.async_request_streamed(self, http_method, path, body, http_options)
            call.responded = True
            return _AsyncChunks(call, chunks)
        except BaseException as error:
            await end_call_async(call, None, error)
            raise

    return {"async_request": request, "async_request_streamed": streamed}


def _planned(api: Any, meter: Meter, http_method: str, path: str, body: Any) -> Call | None:
    """Return the call of a request, with its estimate; None if it passes untouched."""
    url = str(getattr(api._http_options, "base_url", None) or "")
    found = meter.endpoint(http_method, path, url)
    if found is None:
        return None
    content = body if isinstance(body, Mapping) else {}
    streams = "streamGenerateContent" in path
    call = Call(meter, None if found == "unmetered" else found, path, content, stream=streams, url=url)
    call.reserved = call.estimate()
    return call


def _limited(call: Call, body: Any, cap: int | None) -> Any:
    call.attempts = 1
    limits = call.limits(cap)
    return with_limits(body, limits) if limits else body


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""


class _Watched:
    """The chunks of a stream; its end, or its loss, settles the call. A subclass iterates."""

    def __init__(self, call: Call, chunks: Any) -> None:
        self._call = call
        self._chunks = chunks
        weakref.finalize(self, end_dropped, call)

    def _seen(self, chunk: Any) -> Any:
        self._call.chunk(json.loads(chunk.body) if chunk.body else None)
        return chunk

    def _ended(self, error: BaseException) -> tuple[Call, Outcome, BaseException | None]:
        """Return how the call ended, as `end_call` takes it."""
        if isinstance(error, StopIteration | StopAsyncIteration):
            return self._call, self._call.chunks_outcome, None
        return self._call, broken(error), None if self._call.responded else error


class _Chunks(_Watched):
    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._seen(next(self._chunks))
        except BaseException as error:
            end_call(*self._ended(error))
            raise


class _AsyncChunks(_Watched):
    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._seen(await anext(self._chunks))
        except BaseException as error:
            await end_call_async(*self._ended(error))
            raise
