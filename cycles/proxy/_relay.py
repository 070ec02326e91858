"""Send a request upstream, forward its response as it arrives, and settle the call when it ends.

A metered response is read as decoded bytes. What is not metered passes as the bytes that the upstream sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import httpx

from cycles.providers._background import Retrieval
from cycles.providers._bodies import was_sent
from cycles.providers._call import Call, End, Outcome
from cycles.providers._held import HeldResponses
from cycles.providers._pump import Pump, media_type
from cycles.providers._settle import TASK
from cycles.proxy._errors import DENIED, REASON_HEADER
from cycles.proxy._exchange import DRAIN_BYTES, Exchange
from cycles.proxy._shares import Share, current_share
from cycles.proxy._targets import RejectedError, Target, client_headers, upstream_headers
from cycles.proxy._totals import Totals

LIMIT_HEADER: Final = b"x-cycles-output-limit"
"""The output limit to which a request was lowered."""


class BrokenUpstreamError(Exception):
    """The upstream broke off a response whose head was sent, so the program's connection must break too."""


class StatusError(Exception):
    """The upstream's response has an error status; nothing is paid for it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class InFlight:
    """Counts the calls with whole responses, for the end of the run. The event loop changes it, other threads wait."""

    def __init__(self) -> None:
        self._count = 0
        self._none = threading.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *raised: object) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()

    def wait(self, seconds: float) -> bool:
        """Wait for at most so many seconds until none is in flight; return whether none is."""
        return self._none.wait(seconds)


class Relay:
    """Sends requests upstream and counts what they cost.

    Args:
        upstream: Sends them.
        totals: The counts.
        on_settled: Called after a call is settled.

    Attributes:
        whole: Calls in flight whose responses are no streams.
    """

    def __init__(self, upstream: httpx.AsyncClient, totals: Totals, on_settled: Callable[[], None]) -> None:
        self._upstream = upstream
        self._totals = totals
        self._on_settled = on_settled
        self.whole: Final = InFlight()
        self._open: dict[Call, Share | None] = {}  # whose responses are made in the background, and who has begun them

    async def untouched(self, exchange: Exchange, target: Target) -> None:
        """Relay a request that is not metered."""
        has_body = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        response = await self._send(exchange, target, exchange.chunks() if has_body else b"")
        exchange.watch()
        await self._pass(exchange, target, response)
        await exchange.finish()

    async def retrieved(self, exchange: Exchange, target: Target, retrieval: Retrieval) -> None:
        """Relay a request that retrieves, cancels or deletes a response which a call of the run has open."""
        has_body = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        response = await self._send(exchange, target, exchange.chunks() if has_body else b"")
        exchange.watch()
        kind = media_type(retrieval, response.headers)
        if response.status_code >= 300:
            await self._pass(exchange, target, response)
            await exchange.finish()
        elif "event-stream" in kind:
            await self._stream(exchange, target, retrieval, response, kind)
        else:
            await self._whole(exchange, target, retrieval, response)

    async def settle_open(self, held: HeldResponses[Call]) -> None:
        """Settle the estimates of the calls whose responses were not retrieved, because the run ends."""
        await asyncio.gather(*(TASK.end_open(call, End(None, None)) for call in held.close()))
        while self._open:
            call, share = self._open.popitem()
            self._totals.settled(call, share)

    async def metered(self, exchange: Exchange, target: Target, call: Call, content: bytes) -> bool:
        """Relay a metered request, settle its call, and return whether the proxy of another run denied it.

        A whole response is read to its end also if the program leaves: the provider makes and bills it anyway.

        Raises:
            RejectedError: 502 if there is no response, or one that redirects.
            BrokenUpstreamError: if the response broke off after its head was sent.
        """
        if call.request.stream:
            return await self._metered(exchange, target, call, content)
        exchange.reads_on = True
        with self.whole:
            return await self._metered(exchange, target, call, content)

    async def _metered(self, exchange: Exchange, target: Target, call: Call, content: bytes) -> bool:
        try:
            response = await self._send(exchange, target, content)
        except RejectedError as rejected:
            is_sent = isinstance(rejected.__cause__, StatusError) or was_sent(rejected.__cause__)
            if not is_sent:
                rejected.failure = f"no connection to {_host(target.url)}"
            await self.failed(call, rejected.__cause__, is_sent=is_sent)
            raise
        except BaseException as error:
            await self.failed(call, error)
            raise
        if response.status_code >= 300:
            reason = response.headers.get(REASON_HEADER, "")[:80] or None if response.status_code == DENIED else None
            denied = reason is not None
            await self.failed(call, StatusError(response.status_code), is_sent=not denied)
            if reason is not None:
                self._totals.count_denied(current_share(), reason)
            await self._pass(exchange, target, response, call)
            await exchange.finish()
            return denied
        kind = media_type(call, response.headers)
        if "json" in kind and not call.request.stream:
            await self._whole(exchange, target, call, response)
        else:
            await self._stream(exchange, target, call, response, kind)
        return False

    async def failed(self, call: Call, error: BaseException | None, *, is_sent: bool = True) -> None:
        """Settle a call that has no response to be paid; only if it was sent to a provider it counts as a call."""
        try:
            await TASK.end(call, None, error)
        finally:
            if is_sent:
                self._totals.settled(call, current_share())
            else:
                self._totals.released(call)

    async def _send(self, exchange: Exchange, target: Target, content: bytes | AsyncIterator[bytes]) -> httpx.Response:
        try:
            response = await self._upstream.send(_request(exchange, target, content), stream=True)
        except httpx.HTTPError as error:
            kind = "gave no response" if was_sent(error) else "cannot be reached"
            message = f"the provider gave no response: {_host(target.url)} {kind} ({_cause(error)})"
            raise RejectedError(502, message, target.provider) from error
        if response.has_redirect_location:
            await response.aclose()
            status = StatusError(response.status_code)
            message = f"the provider redirects, and the proxy does not follow: {_host(target.url)} ({status})"
            raise RejectedError(502, message, target.provider) from status
        return response

    async def _pass(
        self, exchange: Exchange, target: Target, response: httpx.Response, call: Call | None = None
    ) -> None:
        """Send a response on, byte for byte."""
        try:
            await exchange.start(response.status_code, _headers(response, call, changed=False))
            async for chunk in response.aiter_raw():
                await exchange.send(chunk)
        except httpx.HTTPError as error:
            raise BrokenUpstreamError("the provider broke off its response; send the request again") from error
        finally:
            await response.aclose()

    async def _whole(
        self, exchange: Exchange, target: Target, call: Call | Retrieval, response: httpx.Response
    ) -> None:
        """Settle a whole response before it is sent on."""
        call.responded = True
        outcome: Outcome = "closed"
        try:
            content = await response.aread()
            call.whole(content)
            outcome = None
        except httpx.HTTPError as error:
            outcome = "error"
            cause = f"{_host(target.url)}, {_cause(error)}"
            message = f"the provider broke off its response ({cause}); send the request again"
            raise RejectedError(502, message, target.provider) from error
        finally:
            await self._ended(call, response, outcome)
        headers = _headers(response, call, changed=True)
        await exchange.start(response.status_code, [*headers, (b"content-length", str(len(content)).encode())])
        await exchange.finish(content)

    async def _stream(
        self, exchange: Exchange, target: Target, call: Call | Retrieval, response: httpx.Response, kind: str
    ) -> None:
        """Send a stream on as it arrives, and settle it at its end."""
        pump = Pump(call, kind)
        pump.source = response
        exchange.drain_if(lambda: pump.usage_may_follow)
        outcome: Outcome = None
        try:
            await exchange.start(response.status_code, _headers(response, call, changed=True))
            drained = 0
            async for chunk in response.aiter_bytes():
                await exchange.send(pump.feed(chunk))
                if exchange.left and not exchange.reads_on:
                    drained += len(chunk)
                    if drained > DRAIN_BYTES or not pump.usage_may_follow:
                        break
            rest = pump.take(None)
            outcome = call.stream_outcome if exchange.left and not exchange.reads_on else pump.outcome
        except asyncio.CancelledError:
            outcome = call.stream_outcome
            raise
        except httpx.HTTPError as error:
            outcome = "error"
            raise BrokenUpstreamError("the provider broke off its response; send the request again") from error
        finally:
            await self._ended(call, response, outcome)
        await exchange.finish(rest)

    async def _ended(self, call: Call | Retrieval, response: httpx.Response, outcome: Outcome) -> None:
        # The program may leave at each point; if it does so last, the client continues with the settlement.
        try:
            with contextlib.suppress(httpx.HTTPError):
                await response.aclose()
        finally:
            try:
                await TASK.end(call, outcome)
            finally:
                self._count(call)

    def _count(self, ended: Call | Retrieval) -> None:
        """Count a call that has ended, once. One whose response is made in the background is counted at its end."""
        is_begun = isinstance(ended, Call)
        call = ended if isinstance(ended, Call) else ended.call
        if call.end is None:
            self._open.setdefault(call, current_share())
        elif is_begun or call in self._open:
            self._totals.settled(call, current_share() if is_begun else self._open.pop(call))
            self._on_settled()


def _request(exchange: Exchange, target: Target, content: bytes | AsyncIterator[bytes]) -> httpx.Request:
    """Return the request to send upstream."""
    if not isinstance(content, bytes) or not content:
        headers = upstream_headers(exchange.scope["headers"], has_length=not isinstance(content, bytes))
        return httpx.Request(exchange.method, target.url, headers=headers, content=content)
    url, host = _parsed(target.url) if "?" not in target.url else _parsed.__wrapped__(target.url)  # a key may be there
    headers = upstream_headers(exchange.scope["headers"], has_length=False)
    whole = [(b"host", host), *headers, (b"content-length", str(len(content)).encode())]
    return httpx.Request(exchange.method, url, headers=whole, stream=httpx.ByteStream(content))


@lru_cache
def _parsed(url: str) -> tuple[httpx.URL, bytes]:
    """Return an address for httpx, and its header Host; parsing it costs a tenth of the relay."""
    parsed = httpx.URL(url)
    return parsed, parsed.netloc


def _host(url: str) -> str:
    """Return the host of an address, and its port if the address has one; never credentials."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _cause(error: BaseException) -> str:
    """Return why a request failed in the words of the system; those of the client if it has none."""
    current: BaseException | None = error
    for _ in range(8):
        if isinstance(current, ConnectionError) and current.errno:
            return os.strerror(current.errno)
        if isinstance(current, OSError) and current.strerror:
            return str(current.strerror)
        if isinstance(current, BaseExceptionGroup):  # a host with several addresses
            current = current.exceptions[0]
        elif current is not None:
            current = current.__cause__ or current.__context__
    return f"{str(error) or type(error).__name__:.200}"


def _headers(response: httpx.Response, call: Call | Retrieval | None, *, changed: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response for the program, with the output limit if the request was lowered to it."""
    headers = client_headers(response.headers.raw, changed=changed)
    if isinstance(call, Call) and call.output_limit is not None:
        headers.append((LIMIT_HEADER, str(call.sent_limit or call.output_limit).encode()))
    return headers
