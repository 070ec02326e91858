"""Hooks of SDKs that Stainless generates: a subclass of the client class, and one of each class of responses.

Planning and settling are in `_call` and `_settle`; this file only connects them to the SDKs.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from cycles._usage.estimating import Files
from cycles.providers._attempts import Attempts
from cycles.providers._background import Retrieval, retrieval_of
from cycles.providers._bodies import with_limits, with_other_limits
from cycles.providers._call import PROJECT_HEADER, Call
from cycles.providers._classes import subclass, without_hooks
from cycles.providers._held import HeldResponses
from cycles.providers._meter import Meter
from cycles.providers._pump import receive
from cycles.providers._settle import TASK, THREAD, Caller, end_all_open

T = TypeVar("T")

_HOOKS: Final = ("request", "copy", "_prepare_options", "_prepare_request", "_process_response", "_sleep_for_retry")
_CLOUDS: Final = {"Azure": "azure", "Vertex": "google", "Bedrock": "aws"}
"""Words in the names of clients of a cloud, and the provider of its prices."""
_GUARDRAIL: Final = "x-amzn-bedrock-guardrailidentifier"
_ABSENT: Final = ("NotGiven", "Omit")
"""Classes of the SDKs that mark parameters without a value."""
_current: Final[ContextVar[Attempts | Retrieval | None]] = ContextVar("cycles_provider_attempts", default=None)
"""The attempts of the request in progress, or what it retrieves; its hooks share them."""


def pricing_of(llm: object, prices: str) -> str:
    """Return the provider whose prices a client has, as `genai-prices` names it: that of its cloud, or its own."""
    names = " ".join(base.__name__ for base in type(llm).__mro__)
    return next((provider for cloud, provider in _CLOUDS.items() if cloud in names), prices)


def guarded_copy(llm: T, meter: Meter) -> T:
    """Return a guarded copy of a client.

    Raises:
        ConfigurationError: if its class has no known hooks.
    """
    cls: Any = type(llm)
    missing = [name for name in _HOOKS if not callable(getattr(cls, name, None))]
    if missing:
        raise without_hooks(meter, meter.provider, f"{cls.__name__} has no {', '.join(missing)}")
    copied = _copy(llm, cls)
    copied.__class__ = _guarded_class(cls, meter)
    return copied  # type: ignore[no-any-return]


def _copy(llm: Any, cls: Any) -> Any:
    """Return a copy of a client that shares its connection pool.

    Copies of clients for Bedrock have a pool of their own, if they get none. Some versions of anthropic cannot copy
    their Foundry clients. Then the attributes are copied, without the resources,
    which refer to the original.
    """
    try:
        return llm.copy(http_client=llm._client)
    except TypeError:
        copied = object.__new__(cls)
        for name, value in vars(llm).items():
            if not isinstance(inspect.getattr_static(cls, name, None), functools.cached_property):
                copied.__dict__[name] = value
        return copied


def _guarded_class(cls: Any, meter: Meter) -> type[Any]:
    """Return a subclass for a client and its copies. When the last of them is dropped, so is the class."""
    if (made := meter.classes.get(cls)) is not None:
        return made
    held: HeldResponses[Call] = HeldResponses()
    caller = TASK if inspect.iscoroutinefunction(cls.request) else THREAD
    members = {
        "__slots__": (),
        "_cycles_meter": meter,
        "request": _request_hook(cls, meter, held, caller),
        **_attempt_hooks(cls, meter, caller),
        **_connections(cls, meter),
    }
    made = subclass(cls, **members)
    if meter.only_paid:  # it is shared by the clients of frameworks, whose responses are not held
        return meter.classes.setdefault(cls, made)
    weakref.finalize(made, end_all_open, held).atexit = False  # the Cycles client ends open calls then
    return made


def _request_hook(cls: Any, meter: Meter, held: HeldResponses[Call], caller: Caller) -> Callable[..., Any]:
    """Return the method that sends a request with all its attempts."""

    async def request(self: Any, cast_to: Any, options: Any, **how: Any) -> Any:
        call = _planned(self, meter, held, options, how)
        if call is None:
            return await caller.result(cls.request(self, cast_to, options, **how))
        current, before = call if isinstance(call, Retrieval) else Attempts(call), _current.get()
        try:  # around all of it: a signal handler may raise at any point
            if isinstance(call, Call):
                options = _limited(options, call, await caller.open(call))
            _current.set(current)
            result = await caller.result(cls.request(self, cast_to, options, **how))
            if not _last(current).streams:
                await caller.end(_last(current))
        except BaseException as error:
            await caller.end(_last(current), None, error)
            raise
        finally:
            _current.set(before)
        return result

    return caller.method(request)


def _attempt_hooks(cls: Any, meter: Meter, caller: Caller) -> dict[str, Any]:
    """Return the methods that the SDK calls in each attempt of a request."""

    async def prepare_again(self: Any, options: Any, attempts: Attempts) -> Any:
        cap = await attempts.reserve_next(caller)
        return await caller.result(cls._prepare_options(self, _limited_again(options, attempts.call, cap)))

    async def sleep(self: Any, **how: Any) -> None:
        attempts = _mine(meter)
        if attempts is not None:
            await attempts.failed(caller, how.get("response"), sys.exc_info()[1])
        await caller.result(cls._sleep_for_retry(self, **how))

    # What these return is awaited by the SDK, if it is awaitable.
    again = caller.method(prepare_again)

    def prepare_options(self: Any, options: Any) -> Any:
        attempts = _mine(meter)
        lost = attempts is not None and attempts.is_lost
        return again(self, options, attempts) if lost else cls._prepare_options(self, options)

    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (attempts := _mine(meter)) is not None:
            attempts.call.attempts += 1
        return cls._prepare_request(self, *args, **kwargs)

    def process(self: Any, *, response: Any, **how: Any) -> Any:
        current = _current.get()
        if current is not None and (call := _last(current)).meter is meter:
            receive(call, response)
        return cls._process_response(self, response=response, **how)

    return {
        "_prepare_options": prepare_options,
        "_prepare_request": prepare,
        "_process_response": process,
        "_sleep_for_retry": caller.method(sleep),
    }


def _last(current: Attempts | Retrieval) -> Call | Retrieval:
    """Return what the next response belongs to: a retrieval, or the call of the last attempt."""
    return current.call if isinstance(current, Attempts) else current


def _mine(meter: Meter) -> Attempts | None:
    attempts = _current.get()
    return attempts if isinstance(attempts, Attempts) and attempts.call.meter is meter else None


def _planned(
    client: Any, meter: Meter, held: HeldResponses[Call], options: Any, how: Mapping[str, Any]
) -> Call | Retrieval | None:
    """Return the call of a request, with its estimate, or what it retrieves; None if it passes untouched."""
    base_url = str(client.base_url)
    path = _relative(options.url, base_url, meter)
    found = meter.endpoint(options.method, path, base_url)
    if found is None:
        return retrieval_of(held, meter.provider, options.method, path)
    body, headers = _merged(options), _headers(client, options)
    if (guardrail := headers.get(_GUARDRAIL)) is not None:
        body["guardrailIdentifier"] = guardrail
    streams = bool(how.get("stream")) or body.get("stream") is True
    call = Call(meter, None if found == "unmetered" else found, path, body, stream=streams, url=base_url)
    if meter.background_wait_s:
        call.held_in = held
    if call.payer is not None and call.is_background:
        return None  # its response reports no usage; the framework reports that of the response that ends it
    call.files = _files_of(options.files)
    if PROJECT_HEADER in headers:
        call.notes["project"] = headers[PROJECT_HEADER]
    call.reserved = call.estimate()
    return call


def _headers(client: Any, options: Any) -> dict[str, str]:
    """Return the headers of a request that say who pays, or what costs something: its own, or those of the client."""
    found: dict[str, str] = {}
    for headers in (getattr(client, "default_headers", None), options.headers):
        for name, value in headers.items() if isinstance(headers, Mapping) else ():
            if (known := name.lower()) in (PROJECT_HEADER, _GUARDRAIL) and isinstance(value, str) and value:
                found[known] = value
    return found


def _relative(url: str, base_url: str, meter: Meter) -> str:
    """Return a path as the endpoint tables have it, also for an absolute address."""
    path = url
    if "://" in url:
        path = urlsplit(url).path
        path = path.removeprefix(urlsplit(base_url).path.rstrip("/"))
    path = path if path.startswith("/") else f"/{path}"
    return meter.api.path(path)


def _merged(options: Any) -> dict[str, Any]:
    body = dict(options.json_data) if isinstance(options.json_data, Mapping) else {}
    if isinstance(options.extra_json, Mapping):
        body.update(options.extra_json)
    return {name: value for name, value in body.items() if type(value).__name__ not in _ABSENT}


def _limited(options: Any, call: Call, cap: int | None) -> Any:
    """Return a copy of the options with the output limit, and with the usage event of a stream."""
    changes: dict[str, Any] = {**call.limits(cap), **call.with_usage_event()}
    if not changes:
        return options
    extra = options.extra_json if isinstance(options.extra_json, Mapping) else {}
    changed = copy.copy(options)
    in_extra = {name: value for name, value in changes.items() if name in extra}
    in_body = {name: value for name, value in changes.items() if name not in extra}
    if in_extra:
        changed.extra_json = with_limits(extra, in_extra)
    if in_body:
        changed.json_data = with_limits(options.json_data or {}, in_body)
    return changed


def _limited_again(options: Any, call: Call, cap: int | None) -> Any:
    """Return a copy of the options of a lost attempt with the output limits that the next one has reserved."""
    limits, names = call.limits(cap), call.endpoint.limits
    call.with_usage_event()  # its member is in the body already
    extra = options.extra_json if isinstance(options.extra_json, Mapping) else {}
    in_extra, in_body = [n for n in names if n in extra], [n for n in names if n not in extra]
    changed, original = copy.copy(options), call.request.body
    if in_extra:
        changed.extra_json = with_other_limits(extra, in_extra, limits, original)
    if in_body:
        changed.json_data = with_other_limits(options.json_data or {}, in_body, limits, original)
    return changed


def _files_of(files: Any) -> Files:
    """Return how many files are uploaded and their size, as far as it is known without reading them."""
    if files is None:
        return Files()
    items = list(files.items() if isinstance(files, Mapping) else files)
    sizes = [_size_of_content(item[1]) for item in items if isinstance(item, tuple | list) and len(item) > 1]
    return Files(len(items), sum(sizes))


def _size_of_content(value: Any) -> int:
    if isinstance(value, tuple | list):
        return _size_of_content(value[1]) if len(value) > 1 else 0
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    try:
        position = value.tell()
        size = value.seek(0, 2)
        value.seek(position)
    except (AttributeError, OSError, ValueError):
        return 0
    return int(size)


def _connections(cls: Any, meter: Meter) -> dict[str, Any]:
    """Return properties whose websocket connections are rejected, because no hook sees what they cost."""
    if meter.unmetered == "allow":
        return {}
    return {
        name: _without_connect(cls, name, meter)
        for name in ("realtime", "live", "responses", "beta")
        if hasattr(cls, name)
    }


def _without_connect(cls: Any, name: str, meter: Meter) -> property:
    original = inspect.getattr_static(cls, name)

    def resource(self: Any) -> Any:
        found = original.__get__(self, cls)
        _reject_connect(found, name, meter)
        return found

    return property(resource)


def _reject_connect(resource: Any, name: str, meter: Meter) -> None:
    """Let `connect` of a resource, and of those inside it, raise. The SDK keeps each resource once it is made."""
    if "_cycles_rejects" in vars(resource):
        return
    resource._cycles_rejects = True

    def connect(*args: Any, **kwargs: Any) -> Any:
        meter.reject_unmetered(f"{name}.connect")

    if callable(getattr(resource, "connect", None)):
        resource.connect = connect
    for inner, value in inspect.getmembers_static(type(resource)):
        if isinstance(value, functools.cached_property) and not inner.startswith(("_", "with_")):
            _reject_connect(getattr(resource, inner), f"{name}.{inner}", meter)
