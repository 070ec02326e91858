"""The proxy as an ASGI application: check a request, decide what it is, and relay it.

Metered requests go through `cycles.providers`: plan, reserve, limit, settle. This file has no prices and no counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from cycles import Cycles
from cycles._core.amounts import Amount, SignedAmount
from cycles._errors import (
    CyclesError,
    InvalidRequestError,
    ProtocolError,
    ReservationDeniedError,
    TransportError,
    UnitMismatchError,
    UnknownModelError,
)
from cycles._flows.run_limit import RUN_LIMIT, limits_around
from cycles.providers._admission import units_of_budgets
from cycles.providers._background import retrieval_of
from cycles.providers._bodies import check_limits, with_limits
from cycles.providers._call import PROJECT_HEADER, UNLIMITED_REQUEST_TOKENS, Call
from cycles.providers._endpoints import find
from cycles.providers._held import HeldResponses
from cycles.providers._hosts import is_free
from cycles.providers._meter import Meter, behind_proxy, make_meter
from cycles.providers._provider import Endpoint
from cycles.providers._queue import pays
from cycles.providers._settle import TASK
from cycles.proxy._agent_tree import AGENT_HEADER, checked_path
from cycles.proxy._asking import Asking
from cycles.proxy._bodies import Body, read_body, rejected_body
from cycles.proxy._denials import Payer, remedies, tightest
from cycles.proxy._environment import share_variables
from cycles.proxy._errors import DENIED, denial_text, error_response, json_response, no_decision_line, reason_of
from cycles.proxy._exchange import Exchange, Message, Receive, Send
from cycles.proxy._relay import Relay
from cycles.proxy._routes import Route
from cycles.proxy._settings import ProxySettings
from cycles.proxy._shares import Share, ShareError, Shares, current_share
from cycles.proxy._targets import KEY_HEADER, RejectedError, Target, check_caller, check_headers, target_of
from cycles.proxy._totals import Totals

SHARES_PATH: Final = "/shares"
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,256}")


class App:
    """The application.

    Args:
        settings: How requests are treated.
        client: Where they are reserved.
        upstream: Sends them.
        on_denied: Called after each denial, with its message.
        on_no_decision: Called with the first error of the ledger, if it has not decided any call.
        on_settled: Called after each call that is settled.
        forwarding: In place of `client` for calls that another proxy of Cycles charges.
        shares: The shares of the run; None: there can be none.
        has_budget: Whether the ledger of the run has a budget for a subject.
    """

    def __init__(
        self,
        settings: ProxySettings,
        client: Cycles,
        upstream: httpx.AsyncClient,
        *,
        on_denied: Callable[[str], None],
        on_no_decision: Callable[[str], None],
        on_settled: Callable[[], None],
        forwarding: Cycles | None,
        shares: Shares | None = None,
        has_budget: Callable[[Mapping[str, Any]], bool] = lambda _: False,
    ) -> None:
        self._settings = settings
        self._client = client
        self._forwarding = forwarding
        self.totals = Totals(settings.unit)
        self._relay = Relay(upstream, self.totals, on_settled)
        self.whole = self._relay.whole
        self._on_denied = on_denied
        self._on_no_decision = on_no_decision
        self._shares = shares
        self._has_budget = has_budget
        self._held: HeldResponses[Call] = HeldResponses()
        self._meters: dict[tuple[str, str, Share | None], Meter] = {}

    def _meter(self, target: Target) -> Meter:
        """Return the meter of a route, a wire format and a share; it is made at the first request."""
        key = target.route.name, target.provider, current_share()
        if key not in self._meters:
            self._meters[key] = self._new_meter(target, key[2])
        return self._meters[key]

    def _subject(self, share: Share | None) -> dict[str, Any] | None:
        given = self._settings.subject
        return dict(given) or None if share is None else share.subject(given)

    def _new_meter(self, target: Target, share: Share | None) -> Meter:
        settings = self._settings
        client, subject = self._client, self._subject(share)
        if self._forwarding is not None and behind_proxy(target.base_url):
            client, subject = self._forwarding, None
        options = {
            "client": client,
            "prices": settings.prices,
            "unit": settings.unit,
            "max_output_tokens": settings.max_output_tokens,
            "lost_attempt": settings.lost_attempt,
            "wait": settings.wait,
            "min_output_tokens": settings.min_output_tokens,
            "free_hosts": settings.free_hosts,
            "subject": subject,
        }
        # The summary and a header report lowered limits.
        return make_meter(target.provider, target.route.pricing, options, lowered_level=logging.INFO)

    async def settle_open(self) -> None:
        """Settle the estimates of the background responses that the run has not retrieved."""
        await self._relay.settle_open(self._held)

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
                self.totals.count_denied(exchange.share, rejected.reason or "denied", rejected.detail)
            elif rejected.failure is not None:
                self.totals.failed_by[rejected.failure] += 1
            await exchange.respond(error_response(rejected.name, rejected.status, rejected.message, rejected.reason))
            if rejected.status == DENIED:
                self._on_denied(rejected.message)
        except asyncio.CancelledError:
            pass  # the program has left or the proxy stops; the call is settled
        finally:
            exchange.close()

    async def _handle(self, exchange: Exchange) -> None:
        check_headers(exchange.raw_path, exchange.scope["headers"], exchange.headers)
        path = self._path(exchange)
        if path == SHARES_PATH and self._shares is not None:
            await self._share(exchange, self._shares)
        elif exchange.share is None:
            await self._serve(exchange, path)
        else:
            context = exchange.share.context.copy()
            await asyncio.get_running_loop().create_task(self._serve(exchange, path), context=context)

    def _path(self, exchange: Exchange) -> str:
        """Check who sends a request, and return its path without the key; the key may be that of a share."""
        captured = exchange.captured_host is not None
        key = self._settings.key
        if self._shares:
            first, _, rest = exchange.raw_path.removeprefix("/").partition("/")
            if (share := self._shares.of_key(unquote(first))) is not None:
                exchange.share = share
                check_caller(exchange.raw_path, exchange.headers, share.key, captured=captured)
                return f"/{rest}"
            exchange.share = self._shares.of_key(exchange.headers.get(KEY_HEADER, ""))
            if exchange.share is not None:
                key = exchange.share.key
        return check_caller(exchange.raw_path, exchange.headers, key, captured=captured)

    async def _share(self, exchange: Exchange, shares: Shares) -> None:
        """Make a share, or report what the shares have used and what is left."""
        if exchange.method == "GET":
            await exchange.respond(json_response(200, self._state(exchange.share, shares)))
            return
        if exchange.method != "POST":
            raise RejectedError(405, "shares are made with POST and read with GET")
        try:
            share = shares.make(exchange.share, await exchange.body())
        except ShareError as error:
            raise RejectedError(error.status, str(error)) from None
        url = _address_of(exchange)
        variables = share_variables(url, share.key, os.environ, self._settings)
        document = {"name": share.name, "proxy_url": variables["CYCLES_PROXY_URL"], "environment": variables}
        await exchange.respond(json_response(200, document))

    def _state(self, share: Share | None, shares: Shares) -> dict[str, Any]:
        left = shares.left(share)
        remaining = None if left is None else {"unit": str(left.unit), "amount": left.amount}
        if share is None:
            return {"remaining": remaining, "shares": shares.document()}
        return {"remaining": remaining, **share.document()}

    async def _serve(self, exchange: Exchange, path: str) -> None:
        settings = self._settings
        target = target_of(path, exchange.query, settings.upstreams, settings.mounts, exchange.host_url)
        if "websocket" in exchange.headers.get("upgrade", "").lower():
            message = "WebSocket connections are not metered and not relayed: send the request over HTTP"
            raise RejectedError(426, message, target.provider)
        found = find(target.provider, exchange.method, target.path)
        if found == "free" or (found == "unmetered" and is_free(target.base_url, self._settings.free_hosts)):
            _agent_of(exchange, target)  # checks it
            self.totals.passed += 1
            retrieval = retrieval_of(self._held, target.provider, exchange.method, target.path)
            if retrieval is None:
                await self._relay.untouched(exchange, target)
            else:
                await self._relay.retrieved(exchange, target, retrieval)
        elif found == "unmetered":
            await self._unmetered(exchange, target)
        else:
            await self._metered(exchange, target, found)

    async def _unmetered(self, exchange: Exchange, target: Target) -> None:
        _agent_of(exchange, target)  # checks it
        path = f"{urlsplit(target.url).path:.80}"
        if self._settings.unmetered == "refuse":
            message = f"a request to {path} may cost money and cannot be metered"
            raise _denied(target, message, "unmetered", f"{exchange.method} {path}")
        self.totals.unmetered += 1
        self.totals.paths[path] += 1
        await self._relay.untouched(exchange, target)

    async def _metered(self, exchange: Exchange, target: Target, endpoint: Endpoint) -> None:
        try:
            await self._send(exchange, target, endpoint, _agent_of(exchange, target))
        except RejectedError as rejected:
            if rejected.status == 400:
                rejected.failure = "invalid request"
            raise

    async def _send(self, exchange: Exchange, target: Target, endpoint: Endpoint, agent: str | None) -> None:
        raw = await exchange.body()
        try:
            body = read_body(raw, exchange.headers, endpoint)
            check_limits(endpoint, body.content, least=1)
        except ValueError as error:
            raise rejected_body(target.provider, error) from None
        call = self._planned(target, endpoint, body)
        if project := exchange.headers.get(PROJECT_HEADER):
            call.notes["project"] = project
        if self._settings.run_id is not None:
            call.notes["run"] = self._settings.run_id
        self._name_agent(call, exchange.share, agent)
        cap = await self._reserve(call, target)
        try:
            content = body.changed(_limited(call, body.content, cap, target.route))
        except BaseException as error:
            is_invalid = isinstance(error, InvalidRequestError)
            await self._relay.failed(call, error, is_sent=not is_invalid)
            if is_invalid:
                raise RejectedError(400, str(error), target.provider) from None
            raise
        call.attempts = 1
        if exchange.captured_host is not None:
            self.totals.captured[exchange.captured_host] += 1
        if await self._relay.metered(exchange, target, call, content):
            self._on_denied("the proxy of the run around this one denied a call")

    def _name_agent(self, call: Call, share: Share | None, agent: str | None) -> None:
        """Note whose call it is. It is in the subject too, unless that would choose another budget."""
        names = [*([share.path] if share is not None else []), *([agent] if agent is not None else [])]
        if names:
            call.notes["agent_path"] = "/".join(names)
        if agent is None:
            return
        self.totals.agents.is_named = True
        name = agent.rpartition("/")[2]
        is_unset = share is None and "agent" not in self._settings.subject and self._client.config.agent is None
        if is_unset and not self._has_budget({**self._settings.subject, "agent": name}):
            call.agent = name

    def _planned(self, target: Target, endpoint: Endpoint, body: Body) -> Call:
        streams = target.streams or body.content.get("stream") is True or "streamGenerateContent" in target.path
        call = Call(
            self._meter(target), endpoint, target.path, _priced(body, target), stream=streams, url=target.base_url
        )
        call.held_in = self._held
        call.files = body.files
        if call.request.model is None:
            raise RejectedError(400, "the request names no model; nothing was sent", target.provider)
        call.reserved = self._estimate(call, target)
        return call

    def _estimate(self, call: Call, target: Target) -> Amount:
        try:
            return call.estimate()
        except UnknownModelError:
            if self._settings.unknown_model is not None:
                call.flat = True
                return self._settings.unknown_model
            near = self._settings.prices._near(call.request.model or "")
            message = f"no price is known for the model {call.request.model!r:.120}{near}"
            raise _denied(target, message, "unknown_model", f"{call.request.model:.80}") from None
        except InvalidRequestError as error:
            raise RejectedError(400, str(error), target.provider) from None

    async def _reserve(self, call: Call, target: Target) -> int | None:
        try:
            cap = await self._opened(call)
        except ReservationDeniedError as error:
            self.totals.decided = True
            message, remedy = await self._explained(call, error)
            raise _denied(target, message, reason_of(error), remedy=remedy) from None
        except UnitMismatchError as error:
            self.totals.decided = True
            units = units_of_budgets(error)
            message = f"it is counted in {call.reserved.unit}, and its budgets are in {units or 'another unit'}"
            raise _denied(target, message, "unit_mismatch", units and f"its budgets are in {units}") from None
        except InvalidRequestError as error:
            raise RejectedError(400, str(error), target.provider) from None
        except CyclesError as error:
            final = isinstance(error, ProtocolError) and not error.retryable
            if call.admissions is not None and call.admissions.is_closed:
                message = "the proxy stops while the call waits for its budget, and nothing was sent"
                raise _failed(target, message, "the proxy stopped") from None
            self._note_undecided(error)
            message = f"the budget server gave no decision, and nothing was sent: {error}"
            failure = f"no decision of the budget server: {_word_of(error)}"
            raise _failed(target, message, failure, "no_decision" if final else None) from None
        self.totals.decided = True
        if self._settings.asking is not None:
            await self._ask(self._settings.asking, call, target)
        return cap

    async def _ask(self, asking: Asking, call: Call, target: Target) -> None:
        """Ask before a reserved call is sent, if so much of its budget is used; after a no it is released."""
        try:
            payers = [*_limits_of(current_share(), str(call.reserved.unit)), *await self._budgets_of(call)]
            why = await asking.denial(call.request.model or call.request.endpoint, call.reserved, payers)
            if why is not None:
                raise _denied(target, f"it may cost up to {call.reserved}; {why}", "approval_denied")
        except BaseException as error:
            await self._relay.failed(call, error, is_sent=False)
            raise

    def _note_undecided(self, error: CyclesError) -> None:
        totals = self.totals
        if totals.decided or totals.undecided is not None:
            return
        totals.undecided = f"{error}"
        self._on_no_decision(no_decision_line(totals.undecided))

    async def _opened(self, call: Call) -> int | None:
        try:
            return await TASK.open(call)
        finally:
            self.totals.admitted(call)

    async def _explained(self, call: Call, error: ReservationDeniedError) -> tuple[str, str | None]:
        """Return what the call may cost at its lowest limit and what is left, and what would let it pass."""
        share = current_share()
        cost = f"it may cost up to {call.lowest_cost}"
        cost = cost if share is None else f"share {share.path}: {cost}"
        code = error.reason_code or error.code
        if code not in (RUN_LIMIT, "BUDGET_EXCEEDED"):
            return f"{cost}; {error.message}", None
        need, unit = call.need, str(call.reserved.unit)
        limits = _limits_of(share, unit)
        payers = [*limits, *await self._budgets_of(call)]
        least = call.reserved.amount if need is None else need.least
        lowest = call.planned_limit() or UNLIMITED_REQUEST_TOKENS
        lowest = lowest if need is None or need.bound is None else need.lowest
        remedy = remedies(payers, unit, least=least, bound=call.bound, lowest=lowest, wait=self._settings.wait)
        least_left = tightest(limits if code == RUN_LIMIT else payers)
        if least_left is None:
            return f"{cost}; {error.message}", None
        left = SignedAmount(unit, least_left.left)
        if code == RUN_LIMIT:
            limit = f"the limit of {least_left.name} is {Amount(unit, least_left.whole)}"
            return f"{cost}; {limit}, and {left} of it is left", remedy
        return f"{cost}, and {left} is left in {least_left.scope} ({code})", remedy

    async def _budgets_of(self, call: Call) -> list[Payer]:
        """Return the budgets of the ledger that pay for a call; empty if the ledger does not respond."""
        request = call.client.reserve(call.reserved, **call.reserve_options())._request
        own = self._settings.own_scope
        found = []
        with contextlib.suppress(CyclesError):
            async for balance in call.client.aio.balances(subject=request.subject):
                left, held = balance.remaining, balance.reserved
                if left.unit != call.reserved.unit or not pays(balance.scope_path, request):
                    continue
                if own not in (None, balance.scope_path):
                    continue  # a share: its limit is one of those around the request
                name, whole = balance.scope_path if own is None else "this run", balance.allocated
                held_now, limit = (0 if each is None else each.amount for each in (held, whole))
                found.append(Payer(name, balance.scope_path, left.amount, held_now, limit, is_scope=own is None))
        return found


def _limits_of(share: Share | None, unit: str) -> list[Payer]:
    """Return the limits around a request: that of the run, and those of its share and the shares around it."""
    names = {} if share is None else {each.limit: f"share {each.path}" for each in share.with_parents()}
    return [
        Payer(
            name := names.get(limit, "this run"),
            name,
            limit.amount.amount - limit.spent.amount - limit.held.amount,
            limit.held.amount,
            limit.amount.amount,
        )
        for limit in limits_around()
        if limit.amount.unit == unit
    ]


def _agent_of(exchange: Exchange, target: Target) -> str | None:
    """Return the path of the agent whose request it is."""
    path = exchange.headers.get(AGENT_HEADER)
    if path is None:
        return None
    try:
        return checked_path(path)
    except ValueError as wrong:
        raise RejectedError(400, f"{wrong}; nothing was sent", target.provider) from None


def _address_of(exchange: Exchange) -> str:
    """Return the address of the proxy under which the request has reached it."""
    host = exchange.headers.get("host", "")
    if _HOST.fullmatch(host) is None:
        server = exchange.scope["server"]
        host = f"[{server[0]}]:{server[1]}" if ":" in server[0] else f"{server[0]}:{server[1]}"
    return f"http://{host}"


def _denied(
    target: Target, message: str, reason: str, detail: str | None = None, *, remedy: str | None = None
) -> RejectedError:
    rejected = RejectedError(DENIED, denial_text(message, reason, remedy), target.provider, reason)
    rejected.detail = detail
    return rejected


def _failed(target: Target, message: str, failure: str, reason: str | None = None) -> RejectedError:
    rejected = RejectedError(503, message, target.provider, reason)
    rejected.failure = failure
    return rejected


def _word_of(error: CyclesError) -> str:
    """Return a short name of an error, the same for all calls that fail for its reason."""
    if isinstance(error, ProtocolError):
        return error.code or f"status {error.status}"
    return "no response" if isinstance(error, TransportError) else type(error).__name__


def _priced(body: Body, target: Target) -> Mapping[str, Any]:
    """Return a body with the model that the path names, if that decides or if the body has none."""
    if target.model is None or (not target.is_model_fixed and isinstance(body.content.get("model"), str)):
        return body.content
    return {**body.content, "model": target.model}


def _limited(call: Call, body: Mapping[str, Any], cap: int | None, route: Route) -> Mapping[str, Any] | None:
    """Return the body with its output limit and with the usage event of a stream; None if nothing changes."""
    changes: dict[str, Any] = dict(call.limits(cap))
    if route.old_limit and "max_completion_tokens" in changes and "max_completion_tokens" not in body:
        changes["max_tokens"] = changes.pop("max_completion_tokens")
    changed = with_limits(body, changes) if changes else None
    asked = {} if route.reports_usage else call.with_usage_event()
    return {**(body if changed is None else changed), **asked} if asked else changed
