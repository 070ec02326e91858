"""The proxy as an ASGI application: check a request, decide what it is, and relay it.

Metered requests go through `cycles.providers`: plan, reserve, limit, settle. This file has no prices and no counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from cycles import Balance, Cycles
from cycles._core.amounts import Amount
from cycles._errors import CyclesError, InvalidRequestError, ProtocolError, ReservationDeniedError, UnknownModelError
from cycles.providers._bodies import check_limits, with_limits
from cycles.providers._call import Call
from cycles.providers._endpoints import Endpoint, Provider, find
from cycles.providers._meter import Meter, behind_proxy, make_meter
from cycles.providers._settle import open_call_async
from cycles.proxy._bodies import Body, read_body, rejected_body
from cycles.proxy._errors import DENIED, denial_text, error_response, reason_of
from cycles.proxy._exchange import Exchange, Message, Receive, Send
from cycles.proxy._relay import Relay
from cycles.proxy._routes import Route
from cycles.proxy._settings import ProxySettings
from cycles.proxy._targets import RejectedError, Target, check_caller, target_of
from cycles.proxy._totals import Totals


class App:
    """The application.

    Args:
        settings: How requests are treated.
        client: Where they are reserved.
        upstream: Sends them.
        on_denied: Called after each denial.
        on_settled: Called after each call that is settled.
        forwarding: In place of `client` for calls that another proxy of Cycles charges.
    """

    def __init__(
        self,
        settings: ProxySettings,
        client: Cycles,
        upstream: httpx.AsyncClient,
        *,
        on_denied: Callable[[], None],
        on_settled: Callable[[], None],
        forwarding: Cycles | None,
    ) -> None:
        self._settings = settings
        self._client = client
        self._forwarding = forwarding
        self.totals = Totals()
        self._relay = Relay(upstream, self.totals, on_settled)
        self._on_denied = on_denied
        self._meters: dict[tuple[str, Provider], Meter] = {}

    def _meter(self, target: Target) -> Meter:
        """Return the meter of a route and a wire format; it is made at the first request."""
        key = target.route.name, target.provider
        if key not in self._meters:
            self._meters[key] = self._new_meter(target)
        return self._meters[key]

    def _new_meter(self, target: Target) -> Meter:
        settings = self._settings
        client, subject = self._client, dict(settings.subject) or None
        if self._forwarding is not None and behind_proxy(target.base_url):
            client, subject = self._forwarding, None
        return make_meter(
            target.provider,
            target.route.pricing,
            client=client,
            prices=settings.prices,
            estimate=None,
            max_output_tokens=settings.max_output_tokens,
            within="own",
            unmetered="refuse",
            wait=settings.wait,
            min_output_tokens=settings.min_output_tokens,
            options={},
            subject=subject,
            action=None,
            metadata=None,
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        self.totals.requests += 1
        exchange = Exchange(scope, receive, send)
        try:
            await self._handle(exchange)
        except RejectedError as rejected:
            if rejected.status == DENIED:
                self.totals.denied += 1
            await exchange.respond(error_response(rejected.name, rejected.status, rejected.message, rejected.reason))
            if rejected.status == DENIED:
                self._on_denied()
        except asyncio.CancelledError:
            pass  # the program has left or the proxy stops; the call is settled
        finally:
            exchange.close()

    async def _handle(self, exchange: Exchange) -> None:
        settings = self._settings
        captured = exchange.captured_host is not None
        path = check_caller(exchange.raw_path, exchange.headers, settings.key, captured=captured)
        target = target_of(path, exchange.query, settings.upstreams, settings.mounts, exchange.host_url)
        if "websocket" in exchange.headers.get("upgrade", "").lower():
            message = "WebSocket connections are not metered and not relayed: send the request over HTTP"
            raise RejectedError(426, message, target.name)
        found = find(target.provider, exchange.method, target.path)
        if found == "free":
            self.totals.passed += 1
            await self._relay.untouched(exchange, target)
        elif found == "unmetered":
            await self._unmetered(exchange, target)
        else:
            await self._metered(exchange, target, found)

    async def _unmetered(self, exchange: Exchange, target: Target) -> None:
        if self._settings.unmetered == "refuse":
            message = f"a request to {target.path} may cost money and cannot be metered"
            raise _denied(target, message, "unmetered")
        self.totals.unmetered += 1
        self.totals.paths[target.path] += 1
        await self._relay.untouched(exchange, target)

    async def _metered(self, exchange: Exchange, target: Target, endpoint: Endpoint) -> None:
        raw = await exchange.body()
        try:
            body = read_body(raw, exchange.headers, target.provider)
            check_limits(endpoint, body.content, least=1)
        except ValueError as error:
            raise rejected_body(target.name, error) from None
        call = self._planned(target, endpoint, body)
        cap = await self._reserve(call, target)
        try:
            content = body.changed(_limited(call, body.content, cap, target.route))
        except BaseException as error:
            await self._relay.failed(call, error)
            if isinstance(error, InvalidRequestError):
                raise RejectedError(400, str(error), target.name) from None
            raise
        call.attempts = 1
        if exchange.captured_host is not None:
            self.totals.captured[exchange.captured_host] += 1
        if await self._relay.metered(exchange, target, call, content):
            self._on_denied()

    def _planned(self, target: Target, endpoint: Endpoint, body: Body) -> Call:
        streams = target.streams or body.content.get("stream") is True or "streamGenerateContent" in target.path
        call = Call(
            self._meter(target), endpoint, target.path, _priced(body, target), stream=streams, url=target.base_url
        )
        call.files = body.files
        if call.request.model is None:
            raise RejectedError(400, "the request names no model; nothing was sent", target.name)
        call.reserved = self._estimate(call, target)
        return call

    def _estimate(self, call: Call, target: Target) -> Amount:
        try:
            return call.estimate()
        except UnknownModelError:
            if self._settings.unknown_model is not None:
                return self._settings.unknown_model
            message = f"no price is known for the model {call.request.model!r:.120}"
            raise _denied(target, message, "unknown_model") from None
        except InvalidRequestError as error:
            raise RejectedError(400, str(error), target.name) from None

    async def _reserve(self, call: Call, target: Target) -> int | None:
        try:
            return await self._opened(call)
        except ReservationDeniedError as error:
            raise _denied(target, await self._explained(call, error), reason_of(error)) from None
        except InvalidRequestError as error:
            raise RejectedError(400, str(error), target.name) from None
        except CyclesError as error:
            final = isinstance(error, ProtocolError) and not error.retryable
            if call.admissions is not None and call.admissions.is_closed:
                message = "the proxy stops while the call waits for its budget, and nothing was sent"
                raise RejectedError(503, message, target.name) from None
            message = f"the budget server gave no decision, and nothing was sent: {error}"
            raise RejectedError(503, message, target.name, "no_decision" if final else None) from None

    async def _opened(self, call: Call) -> int | None:
        try:
            return await open_call_async(call)
        finally:
            self.totals.admitted(call)

    async def _explained(self, call: Call, error: ReservationDeniedError) -> str:
        """Return what the call may cost at its lowest limit, and what is left in the scope with the least."""
        cost = f"it may cost up to {call.lowest_cost}"
        if error.code in ("RUN_LIMIT", "APPROVAL_DENIED"):
            return f"{cost}; {error.message}"
        tightest: Balance | None = None
        with contextlib.suppress(CyclesError):
            async for balance in self._client.aio.balances(subject=dict(self._settings.subject) or None):
                same = balance.remaining.unit == call.reserved.unit
                if same and (tightest is None or balance.remaining.amount < tightest.remaining.amount):
                    tightest = balance
        if tightest is None:
            return f"{cost}; {error.message}"
        code = error.reason_code or error.code
        return f"{cost}, and {tightest.remaining} is left in {tightest.scope_path} ({code})"


def _denied(target: Target, message: str, reason: str) -> RejectedError:
    return RejectedError(DENIED, denial_text(message, reason), target.name, reason)


def _priced(body: Body, target: Target) -> Mapping[str, Any]:
    """Return a body with the model that the path names, if that decides or if the body has none."""
    if target.model is None or (target.provider == "openai" and isinstance(body.content.get("model"), str)):
        return body.content
    return {**body.content, "model": target.model}


def _limited(call: Call, body: Mapping[str, Any], cap: int | None, route: Route) -> Mapping[str, Any] | None:
    """Return the body with its output limit and with the usage event of a stream; None if nothing changes."""
    changes: dict[str, Any] = dict(call.limits(cap))
    if route.old_limit and "max_completion_tokens" in changes and "max_completion_tokens" not in body:
        changes["max_tokens"] = changes.pop("max_completion_tokens")
    changed = with_limits(body, changes) if changes else None
    if route.name != "mistral" and call.wants_usage_event():  # Mistral always reports it, and rejects the option
        given = body.get("stream_options")
        options = {**(given if isinstance(given, Mapping) else {}), "include_usage": True}
        changed = {**(body if changed is None else changed), "stream_options": options}
        call.hide_usage = True
    return changed
