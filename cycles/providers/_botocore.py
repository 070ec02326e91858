"""Hooks of boto3: a subclass of the client's class, and a copy of its endpoint that sees each attempt.

The hook is above botocore's retries, so one reservation covers all attempts. Responses are read where they arrive, as
bytes: older versions of botocore leave out members that they do not know, such as the counts of a cache.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import weakref
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from io import BytesIO
from typing import Any, Final, TypeVar

from attrs import define

from cycles.providers._attempts import Attempts
from cycles.providers._background import Retrieval
from cycles.providers._bodies import parsed_json, with_limits, with_other_limits
from cycles.providers._call import Call
from cycles.providers._classes import subclass, without_hooks
from cycles.providers._meter import Meter
from cycles.providers._pump import Pump, close_response, forwarded
from cycles.providers._settle import THREAD, end_dropped

T = TypeVar("T")

_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"
_COUNTS: Final = {
    "input": "inputTokenCount",
    "output": "outputTokenCount",
    "cache-read-input": "cacheReadInputTokenCount",
    "cache-write-input": "cacheWriteInputTokenCount",
}
"""Counts in the headers of InvokeModel, and how a stream names them."""
_BESIDE_BODY: Final = ("guardrailIdentifier", "serviceTier")
"""Parameters of InvokeModel that are headers and have a price."""
_NAMED: Final = re.compile(r"\{(\w+)\+?\}")


@define(eq=False)
class _Exchange:
    """The attempts of a request in progress, and how the last one failed."""

    attempts: Attempts
    failed: BaseException | None = None


_current: Final[ContextVar[_Exchange | None]] = ContextVar("cycles_boto3_call", default=None)


def guarded_copy(llm: T, meter: Meter) -> T:
    """Return a guarded copy of a client.

    Raises:
        ConfigurationError: if it has no known hooks.
    """
    client: Any = llm
    cls, endpoint = type(client), getattr(client, "_endpoint", None)
    hooks = {"_make_api_call": client, "_endpoint": client, "create_request": endpoint, "_send": endpoint}
    missing = [name for name, owner in hooks.items() if getattr(owner, name, None) is None]
    if missing:
        raise without_hooks(meter, "botocore", f"{cls.__name__} has no {', '.join(missing)}")
    copied = object.__new__(_subclass(cls, meter, _make_api_call(cls, meter)))
    copied.__dict__.update(vars(client))
    copied._endpoint = copy.copy(endpoint)
    of_endpoint = type(endpoint)
    copied._endpoint.__class__ = _subclass(of_endpoint, meter, _create(of_endpoint, meter), _send(of_endpoint, meter))
    return copied  # type: ignore[no-any-return]


def _subclass(cls: Any, meter: Meter, *hooks: Any) -> type[Any]:
    return subclass(cls, _cycles_meter=meter, **{hook.__name__: hook for hook in hooks})


def _make_api_call(cls: Any, meter: Meter) -> Any:
    @THREAD.method
    async def _make_api_call(self: Any, operation_name: str, api_params: Any) -> Any:
        operation = self.meta.service_model.operation_model(operation_name)
        params = _with_bytes(api_params)
        call = _planned(self, meter, operation, params)
        if call is None:
            return cls._make_api_call(self, operation_name, params)
        attempts, before = Attempts(call), _current.get()
        try:  # around all of it: a signal handler may raise at any point
            cap = await THREAD.open(call)
            _current.set(_Exchange(attempts))
            result = cls._make_api_call(self, operation_name, _limited(call, params, cap))
            if not attempts.call.streams:
                await THREAD.end(attempts.call)
        except BaseException as error:
            await THREAD.end(attempts.call, None, error)
            raise
        finally:
            _current.set(before)
        return result

    return _make_api_call


def _mine(meter: Meter) -> _Exchange | None:
    exchange = _current.get()
    return exchange if exchange is not None and exchange.attempts.call.meter is meter else None


def _create(cls: Any, meter: Meter) -> Any:
    @THREAD.method
    async def create_request(self: Any, params: Any, *args: Any, **how: Any) -> Any:
        """Reserve the attempt after a lost one, before its request is signed."""
        exchange = _mine(meter)
        if exchange is not None and exchange.failed is not None:
            attempts, error, exchange.failed = exchange.attempts, exchange.failed, None
            await attempts.failed(THREAD, None, error)
            if attempts.is_lost:
                cap = await attempts.reserve_next(THREAD)
                params = _limited_again(params, attempts.call, cap)
        return cls.create_request(self, params, *args, **how)

    return create_request


def _send(cls: Any, meter: Meter) -> Any:
    def _send(self: Any, request: Any) -> Any:
        exchange = _mine(meter)
        if exchange is None:
            return cls._send(self, request)
        exchange.attempts.begin()
        call = exchange.attempts.call
        is_read_later, request.stream_output = request.stream_output, call.request.stream
        try:
            response = cls._send(self, request)
        except BaseException as error:
            exchange.failed = error
            raise
        if response.status_code < 300:
            _receive(call, response, is_read_later)
        return response

    return _send


def _receive(call: Call, response: Any, is_read_later: bool) -> None:
    """Read a whole response, or watch a stream; a body that the user reads later stays readable."""
    if not call.request.stream:
        call.whole(response.content, _counts(response.headers))
        if is_read_later:
            response.raw = BytesIO(response.content)
        return
    call.in_headers = _counts(response.headers)
    pump = Pump(call, _EVENT_STREAM)
    call.streams = True
    response.raw = _Watched(pump, response.raw)


def _counts(headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the counts and the tier that a response has in its headers, as streams and Converse have them."""
    found = {member: headers.get(f"x-amzn-bedrock-{name}-token-count", "") for name, member in _COUNTS.items()}
    counts = {member: int(count) for member, count in found.items() if count.isdecimal()}
    found_here: dict[str, Any] = {"amazon-bedrock-invocationMetrics": counts} if counts else {}
    if tier := headers.get("x-amzn-bedrock-service-tier"):
        found_here["serviceTier"] = {"type": tier}
    return found_here or None


class _Watched:
    """The body of a stream, as botocore uses that of urllib3. Its end, or its loss, settles the call."""

    def __init__(self, pump: Pump, raw: Any) -> None:
        self._pump = pump
        self._raw = raw
        weakref.finalize(self, _dropped, raw, pump.call)

    def stream(self, *args: Any, **how: Any) -> Iterator[bytes]:
        return forwarded(self._pump, self._raw.stream(*args, **how))

    def close(self) -> None:
        close_response(self._pump, self._raw.close, self._socket)

    def _socket(self) -> Any:
        return getattr(self._raw.connection, "sock", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _dropped(raw: Any, call: Call | Retrieval) -> None:
    """Close the connection of a stream that was dropped: Bedrock stops, and no other call gets it."""
    with contextlib.suppress(Exception):
        raw.close()
    end_dropped(call)


def _planned(client: Any, meter: Meter, operation: Any, params: Mapping[str, Any]) -> Call | None:
    """Return the call of an operation, with its estimate; None if it passes untouched."""
    uri = operation.http["requestUri"].partition("?")[0]
    path = _NAMED.sub(lambda named: str(params.get(named[1], named[0])), uri)
    url = str(client.meta.endpoint_url)
    found = meter.endpoint(operation.http["method"], path, url)
    if found is None:
        return None
    beside = {name: params[name] for name in _BESIDE_BODY if name in params}
    body = {**_content(params), **beside, "model": params.get("modelId")}
    streams = bool(operation.has_event_stream_output)
    call = Call(meter, None if found == "unmetered" else found, path, body, stream=streams, url=url)
    call.reserved = call.estimate()
    return call


def _limited(call: Call, params: Any, cap: int | None) -> Any:
    """Return a copy of the parameters with the output limit."""
    limits = call.limits(cap)
    if not limits:
        return params
    changed = with_limits(_content(params), limits)
    return {**params, "body": json.dumps(changed).encode()} if "body" in params else changed


def _limited_again(request: Any, call: Call, cap: int | None) -> Any:
    """Return a copy of the request of a lost attempt with the output limits that the next one has reserved."""
    limits, body = call.limits(cap), parsed_json(request["body"])
    if not call.endpoint.limits or not isinstance(body, Mapping):
        return request
    changed = with_other_limits(body, call.endpoint.limits, limits, call.request.body)
    return {**request, "body": json.dumps(changed).encode()}


def _with_bytes(params: Any) -> Any:
    """Return parameters whose body can be read more than once."""
    body = params.get("body")
    return {**params, "body": body.read()} if hasattr(body, "read") else params


def _content(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members of a request: those of the JSON in its body, or else its parameters."""
    if "body" not in params:
        return params
    body = params["body"]
    content = parsed_json(body) if isinstance(body, str | bytes | bytearray) else None
    return content if isinstance(content, Mapping) else {}
