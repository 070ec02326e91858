"""Hooks of the package google-genai: a subclass of its API client, and new modules around it.

A request is planned above the SDK's own retries, and `_request_once` is one of its attempts. With aiohttp the SDK may
send a second one inside `_async_request_once`: it gets the session again before it does.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from cycles.providers._attempts import Attempts
from cycles.providers._bodies import with_limits, with_other_limits
from cycles.providers._call import Call, Outcome
from cycles.providers._classes import subclass, without_hooks
from cycles.providers._meter import Meter
from cycles.providers._pump import broken
from cycles.providers._settle import TASK, THREAD, Caller, end_call, end_dropped

T = TypeVar("T")

_HOOKS: Final = (
    "request",
    "request_streamed",
    "async_request",
    "async_request_streamed",
    "_request_once",
    "_async_request_once",
)
_SESSION: Final = "_get_aiohttp_session"
_LIVE: Final = {"AsyncLive": "aio.live.connect", "AsyncLiveMusic": "aio.live.music.connect"}
"""Classes that connect over a websocket."""
_UNMETERED: Final = ("interactions", "agents", "triggers", "environments", "voices", "decisions")
"""Families that use the HTTP client directly: no hook sees their requests."""
_current: Final[ContextVar[Attempts | None]] = ContextVar("cycles_google_attempts", default=None)
"""The attempts of the request in progress; its hooks share them."""


def guarded_copy(llm: T, meter: Meter) -> T:
    """Return a guarded copy of a client.

    Raises:
        ConfigurationError: if its API client has no known hooks.
    """
    original: Any = llm
    api = getattr(original, "_api_client", None)
    missing = [name for name in _HOOKS if not callable(getattr(type(api), name, None))]
    if api is None or missing:
        raise without_hooks(meter, "google-genai", f"its API client has no {', '.join(missing)}")
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
    members: dict[str, Any] = {"_cycles_meter": meter}
    if hasattr(cls, "__del__"):
        members["__del__"] = lambda self: None
    if meter.unmetered != "allow":
        for name in _UNMETERED:
            if isinstance(getattr(cls, name, None), property):
                members[name] = _rejected_property(name, meter)
        if (live := _LIVE.get(cls.__name__)) is not None:
            members["connect"] = lambda self, *args, **how: meter.reject_unmetered(live)
    return meter.classes.setdefault(cls, subclass(cls, **members))


def _rejected_property(name: str, meter: Meter) -> property:
    return property(lambda self: meter.reject_unmetered(name))


def _guarded_api(cls: Any, meter: Meter) -> type[Any]:
    if (made := meter.classes.get(cls)) is not None:
        return made
    members = {
        "__del__": lambda self: None,
        **_request_hooks(cls, meter, THREAD),
        **_request_hooks(cls, meter, TASK),
        **_attempt_hook(cls, meter, THREAD),
        **_attempt_hook(cls, meter, TASK),
        **_session_hook(cls, meter),
    }
    return meter.classes.setdefault(cls, subclass(cls, **members))


def _request_hooks(cls: Any, meter: Meter, caller: Caller) -> dict[str, Any]:
    """Return the methods that send a request with all its attempts."""
    name = "async_request" if caller is TASK else "request"
    send, send_streamed = getattr(cls, name), getattr(cls, f"{name}_streamed")

    async def request(self: Any, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        call = _planned(self, meter, http_method, path, request_dict)
        if call is None:
            return await caller.result(send(self, http_method, path, request_dict, http_options))
        attempts = Attempts(call)
        try:  # around all of it: a signal handler may raise at any point
            body = _limited(call, request_dict, await caller.open(call))
            with _sends(attempts):
                response = await caller.result(send(self, http_method, path, body, http_options))
            attempts.call.whole(_bytes(response.body))
            await caller.end(attempts.call)
        except BaseException as error:
            await caller.end(attempts.call, None, error)
            raise
        return response

    async def streamed(self: Any, http_method: str, path: str, request_dict: Any, http_options: Any = None) -> Any:
        call = _planned(self, meter, http_method, path, request_dict)
        if call is None:
            return await caller.result(send_streamed(self, http_method, path, request_dict, http_options))
        attempts = Attempts(call)
        try:
            body = _limited(call, request_dict, await caller.open(call))
            with _sends(attempts):  # a task sends the request here, a thread at the first chunk
                chunks = await caller.result(send_streamed(self, http_method, path, body, http_options))
            attempts.call.responded = caller is TASK
            return _AsyncChunks(attempts, chunks) if caller is TASK else _Chunks(attempts, chunks)
        except BaseException as error:
            await caller.end(attempts.call, None, error)
            raise

    return {name: caller.method(request), f"{name}_streamed": caller.method(streamed)}


def _attempt_hook(cls: Any, meter: Meter, caller: Caller) -> dict[str, Any]:
    """Return the method that sends one attempt."""
    name = "_async_request_once" if caller is TASK else "_request_once"
    send = getattr(cls, name)

    async def once(self: Any, http_request: Any, *args: Any, **how: Any) -> Any:
        attempts = _mine(meter)
        if attempts is None:
            return await caller.result(send(self, http_request, *args, **how))
        if attempts.is_lost:
            cap = await attempts.reserve_next(caller)
            http_request = _limited_again(http_request, attempts.call, cap)
        attempts.begin()
        try:
            return await caller.result(send(self, http_request, *args, **how))
        except Exception as error:
            await attempts.failed(caller, None, error)
            raise

    return {name: caller.method(once)}


def _session_hook(cls: Any, meter: Meter) -> dict[str, Any]:
    """Return the hook that sees a second request inside of an attempt, if the SDK can send one."""

    async def session(self: Any) -> Any:
        attempts = _mine(meter)
        if attempts is not None and attempts.is_second_session():
            await attempts.failed(TASK, None, sys.exc_info()[1])
            if attempts.is_lost:
                await attempts.reserve_next(TASK, is_fixed=True)
            attempts.call.attempts += 1
        return await cls._get_aiohttp_session(self)

    return {_SESSION: session} if hasattr(cls, _SESSION) else {}


def _mine(meter: Meter) -> Attempts | None:
    attempts = _current.get()
    return attempts if attempts is not None and attempts.call.meter is meter else None


@contextlib.contextmanager
def _sends(attempts: Attempts) -> Iterator[None]:
    """Let the hooks of the SDK see which request its attempts belong to."""
    token = _current.set(attempts)
    try:
        yield
    finally:
        _current.reset(token)


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
    limits = call.limits(cap)
    return with_limits(body, limits) if limits else body


def _limited_again(http_request: Any, call: Call, cap: int | None) -> Any:
    """Return a copy of the request of a lost attempt with the output limits that the next one has reserved."""
    limits = call.limits(cap)
    if not call.endpoint.limits or not isinstance(http_request.data, Mapping):
        return http_request
    changed = copy.copy(http_request)
    changed.data = with_other_limits(http_request.data, call.endpoint.limits, limits, call.request.body)
    return changed


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""


class _Watched:
    """The chunks of a stream; its end, or its loss, settles the call. A subclass iterates."""

    def __init__(self, attempts: Attempts, chunks: Any) -> None:
        self._attempts = attempts
        self._chunks = chunks
        weakref.finalize(self, _dropped, attempts)

    def _seen(self, chunk: Any) -> Any:
        self._attempts.call.chunk(json.loads(chunk.body) if chunk.body else None)
        return chunk

    def _ended(self, error: BaseException) -> tuple[Call, Outcome, BaseException | None]:
        """Return how the call ended, as `end_call` takes it."""
        call = self._attempts.call
        if isinstance(error, StopIteration | StopAsyncIteration):
            return call, call.chunks_outcome, None
        return call, broken(error), None if call.responded else error


def _dropped(attempts: Attempts) -> None:
    end_dropped(attempts.call)


class _Chunks(_Watched):
    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        before = _current.get()
        try:
            _current.set(self._attempts)  # the request is sent at the first chunk
            return self._seen(next(self._chunks))
        except BaseException as error:
            end_call(*self._ended(error))
            raise
        finally:
            _current.set(before)


class _AsyncChunks(_Watched):
    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._seen(await anext(self._chunks))
        except BaseException as error:
            await TASK.end(*self._ended(error))
            raise
