"""Tunnels: a CONNECT request is rejected, captured, or connected to its host; then bytes are copied, never parsed.

`FirstBytes` is the HTTP protocol of the server. It looks at the first bytes of a connection only: with ``CONNECT `` the
connection becomes a `Near`, everything else is HTTP as before. `Near` is the program's side of a tunnel and `Far` the
target's. Reading from the program stops while its target is being connected, so that only what came with the head has
to be kept. `Near` is in the server's set of connections, so that a server that stops also ends its tunnels.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Literal, TypeAlias

from uvicorn.protocols.http.h11_impl import H11Protocol

from cycles._http.exchange import tls_context
from cycles.proxy._caller_proxy import CallerProxy
from cycles.proxy._connect import ESTABLISHED, MAX_HEAD_BYTES, METHOD, Connect, read_connect, response
from cycles.proxy._hosts import address_of, is_own, is_public
from cycles.proxy._routes import is_provider, route_of_host
from cycles.proxy._totals import Totals

Decision: TypeAlias = Literal["tunnel", "capture", "reject"]
Capture: TypeAlias = Callable[["Near", Connect, bytes], Awaitable[None]]

HEAD_S: Final = 30.0
"""How long a CONNECT request may take to arrive."""
CONNECT_S: Final = 30.0
"""How long connecting to a target may take."""
LINGER_S: Final = 1.0
"""How long a connection is read after its error response: closing it earlier would discard the response."""
_END: Final = b"\r\n\r\n"


class UnreachableError(Exception):
    """The target cannot be connected; the message says why."""


class ForbiddenError(Exception):
    """The target is this machine, or on its link."""


class Tunnels:
    """Decides about tunnels, and connects them.

    Args:
        totals: Counts rejected and allowed hosts.
        keys: Returns whether a key is accepted; None: no key is needed.
        allowed: Hosts that are tunnelled although a call to them is not charged.
        caller: The proxy that tunnels go through; None: they are direct.
        local: Ports of this machine that may be reached; None: all.
        ledger: Host and port of the configured server: it may be this machine, or a public address.
        capture: Serves a captured connection; None: nothing is captured.
        captures: Returns whether a host is captured.
    """

    def __init__(
        self,
        totals: Totals,
        *,
        keys: Callable[[str], bool] | None,
        allowed: Collection[str] = (),
        caller: CallerProxy | None = None,
        local: Collection[int] | None = None,
        ledger: tuple[str, int] | None = None,
        capture: Capture | None = None,
        captures: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.totals = totals
        self.capture = capture
        self._keys = keys
        self._allowed = frozenset(allowed)
        self._caller = caller
        self._local = local
        self._ledger = ledger
        self._captures = captures

    def accepts(self, key: str | None) -> bool:
        """Return whether the key of a request is right."""
        return self._keys is None or (key is not None and self._keys(key))

    def decide(self, target: Connect) -> Decision:
        """Return what happens with a connection to a host, and count it if it is not charged."""
        if (target.host, target.port) == self._ledger:
            return "tunnel"
        host = target.host
        address = address_of(host)
        outside = is_public(address) if address is not None else is_provider(host)
        if host in self._allowed:
            if outside:
                self.totals.allowed_hosts[host] += 1
            return "tunnel"
        if self._captures(host):
            return "capture"
        if outside:
            self.totals.rejected_hosts[host] += 1
            return "reject"
        return "tunnel"

    async def connect(self, near: Near, target: Connect, *, trusted: bool = False) -> None:
        """Connect a target. `Near.established` is called before its first byte arrives.

        Args:
            near: The program's side.
            target: What the program has named, or `cycles run` if it is trusted.
            trusted: Whether it may be this machine.

        Raises:
            UnreachableError: if it cannot be connected.
            ForbiddenError: if it is this machine and that is not allowed.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connect(near, target, None if trusted else await self._checked_addresses(target))
        except TimeoutError:
            raise UnreachableError(f"{target.host}:{target.port} did not accept within {CONNECT_S:g} s") from None
        except OSError as error:
            raise UnreachableError(f"{target.host}:{target.port} cannot be connected: {_reason(error)}") from error

    async def _connect(self, near: Near, target: Connect, checked: list[str] | None) -> None:
        loop = asyncio.get_running_loop()
        proxy = self._caller
        if proxy is not None and proxy.serves(target.host) and not _is_loopback(target.host):
            context = tls_context() if proxy.encrypted else None
            named = proxy.host if proxy.encrypted else None
            far = Far(near, _connect_head(target, proxy))
            await loop.create_connection(lambda: far, proxy.host, proxy.port, ssl=context, server_hostname=named)
            await far.opened
            return
        last: OSError | None = None
        for host in checked or [target.host]:
            try:
                await loop.create_connection(lambda: Far(near, None), host, target.port, happy_eyeballs_delay=0.25)
            except OSError as error:
                last = error
            else:
                return
        assert last is not None
        raise last

    async def _checked_addresses(self, target: Connect) -> list[str] | None:
        """Return the addresses of a target that are not this machine; None if all are allowed."""
        if (
            self._local is None
            or (target.host, target.port) == self._ledger
            or (_is_loopback(target.host) and target.port in self._local)
        ):
            return None
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError:
            if self._caller is not None and self._caller.serves(target.host):
                return None  # only the caller's proxy can resolve it
            raise
        addresses = [str(info[4][0]).partition("%")[0] for info in found]
        kept = [text for text in addresses if not is_own(address_of(text) or ipaddress.ip_address(text))]
        if not kept:
            raise ForbiddenError(f"{target.host}:{target.port} is this machine; --share-port reaches a port of it")
        return kept


def _reason(error: OSError) -> str:
    # asyncio replaces the text of an error by one that repeats the address.
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def _is_loopback(host: str) -> bool:
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def _connect_head(target: Connect, proxy: CallerProxy) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    return "\r\n".join([*lines, "", ""]).encode()


def key_matches(given: str, key: str) -> bool:
    """Compare keys in constant time."""
    return hmac.compare_digest(given.encode(), key.encode())


class FirstBytes(H11Protocol):
    """HTTP, unless the first bytes of a connection are those of CONNECT."""

    def __init__(self, tunnels: Tunnels, **options: Any) -> None:
        super().__init__(**options)
        self._tunnels = tunnels
        self._first: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        """Decide at the first bytes what the connection is."""
        if self._first is None:
            super().data_received(data)
            return
        data = self._first + data
        if len(data) < len(METHOD) and METHOD.startswith(data):
            self._first = data
            return
        self._first = None
        if not data.startswith(METHOD):
            super().data_received(data)
            return
        self.connections.discard(self)
        options = {"config": self.config, "server_state": self.server_state, "app_state": self.app_state}
        near = Near(self._tunnels, self.connections, options)
        self.transport.set_protocol(near)
        near.connection_made(self.transport)
        near.data_received(data)


class Near(asyncio.Protocol):
    """The program's side of a tunnel.

    Attributes:
        transport: Its connection.
        http_options: What a protocol of the server is made of.
    """

    transport: asyncio.Transport
    greeting = ESTABLISHED
    """What the program is sent when its target is connected."""
    trusted = False
    """Whether `cycles run` has named the target."""

    def __init__(self, tunnels: Tunnels, connections: set[Any], http_options: dict[str, Any]) -> None:
        self.http_options = http_options
        self._tunnels = tunnels
        self._connections = connections
        self._head: bytes | None = b""
        self._early = b""
        self._far: Far | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read the head."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read the head, or pass bytes on."""
        if self._far is not None:
            self._far.transport.write(data)
        elif self._head is not None:
            self._read_head(self._head + data)
        elif not self._ended:
            self._early += data

    def _read_head(self, data: bytes) -> None:
        head, end, rest = data.partition(_END)
        self._head = data if not end else None
        if len(head) > MAX_HEAD_BYTES:
            self._head = None
            self.respond(response(400, "Bad Request", f"the head is larger than {MAX_HEAD_BYTES} bytes"))
        elif end:
            self._early = rest
            self.transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._open(head))

    async def _open(self, head: bytes) -> None:
        self._stop_timer()
        try:
            target = read_connect(head)
        except ValueError as error:
            self.respond(response(400, "Bad Request", str(error)))
            return
        if not self._tunnels.accepts(target.key):
            message = "the key of this proxy is missing or wrong: it is the password of HTTPS_PROXY"
            authenticate = 'Proxy-Authenticate: Basic realm="cycles"'
            self.respond(response(407, "Proxy Authentication Required", message, authenticate))
            return
        decision = self._tunnels.decide(target)
        if decision == "reject":
            self.respond(_rejection(target.host))
        elif decision == "capture":
            assert self._tunnels.capture is not None
            early, self._early = self._early, b""
            await self._tunnels.capture(self, target, early)
        else:
            await self._connect(target)

    async def _connect(self, target: Connect) -> None:
        try:
            await self._tunnels.connect(self, target, trusted=self.trusted)
        except ForbiddenError as error:
            self.respond(response(403, f"Cycles rejected a connection to {target.host}", str(error)))
        except UnreachableError as error:
            self.respond(response(502, "Bad Gateway", str(error)))

    def established(self, far: Far) -> None:
        """Tell the program that its target is connected, and copy bytes from now on."""
        if self._ended or self.transport.is_closing():
            far.transport.abort()
            return
        self._far = far
        if self.greeting:
            self.transport.write(self.greeting)
        if self._early:
            far.transport.write(self._early)
            self._early = b""
        self.transport.resume_reading()

    def respond(self, content: bytes) -> None:
        """Send an error response, and close the connection once the program has read it."""
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        self._stop_timer()
        self.transport.write(content)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)

    def handed_over(self) -> None:
        """Leave the connection to another protocol."""
        self._stop_timer()
        self._connections.discard(self)

    def eof_received(self) -> bool:
        """Pass the end of what the program sends on; what it receives continues."""
        self._at_end = True
        return self._far is not None and self._far.end()

    def end(self) -> bool:
        """Send the end of what the target has sent; return whether the other direction is still open."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
        return not self._at_end

    def pause_writing(self) -> None:
        """Read no more from the target until the program has read."""
        if self._far is not None:
            self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the target again."""
        if self._far is not None:
            self._far.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the target's connection, after what was sent to it."""
        self._ended = True
        self._stop_timer()
        self._connections.discard(self)
        if self._far is not None:
            self._far.transport.close()
        elif self._task is not None:
            self._task.cancel()

    def shutdown(self) -> None:
        """End the tunnel, because the server stops."""
        self.transport.abort()
        if self._far is not None:
            self._far.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Relayed(Near):
    """A connection that is copied to one target, without CONNECT: of a sealed program to a port outside."""

    greeting = b""
    trusted = True

    def __init__(self, tunnels: Tunnels, connections: set[Any], target: Connect) -> None:
        super().__init__(tunnels, connections, {})
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect the target."""
        super().connection_made(transport)
        self._stop_timer()
        self._head = None
        self.transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._connect(self._target))

    def respond(self, content: bytes) -> None:
        """Break the connection, as a port without a server does."""
        self.transport.abort()


def _rejection(host: str) -> bytes:
    route = route_of_host(host)
    if address_of(host) is not None:
        remedy = f"use a host name, or pass --allow-host {host}"
    elif route is None:
        remedy = f"pass --allow-host {host}"
    else:
        remedy = f"set {next(iter(route.variables))}, or pass --capture or --allow-host {host}"
    message = f"calls to {host} would not be charged; {remedy}"
    return response(403, f"Cycles rejected a connection to {host}", message)


class Far(asyncio.Protocol):
    """The target's side of a tunnel.

    Attributes:
        transport: Its connection.
        opened: Done when the caller's proxy has connected the target.
    """

    transport: asyncio.Transport

    def __init__(self, near: Near, head: bytes | None) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._near = near
        self._head = head
        self._answer: bytes | None = None if head is None else b""
        self._at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to copy bytes, or send CONNECT to the caller's proxy."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._head is None:
            self._near.established(self)
        else:
            transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to the program."""
        if self._answer is None:
            self._near.transport.write(data)
        else:
            self._read_answer(self._answer + data)

    def _read_answer(self, data: bytes) -> None:
        head, end, rest = data.partition(_END)
        self._answer = data
        status = head.split(b" ", 2)[1:2]
        if len(head) > MAX_HEAD_BYTES or (end and (not status or not status[0].startswith(b"2"))):
            line = head.partition(b"\r\n")[0].decode("latin-1")
            self._fail(f"the proxy of the caller did not connect it: {line!r:.120}")
        elif end:
            self._answer = None
            self._near.established(self)
            if rest:
                self._near.transport.write(rest)
            if not self.opened.done():
                self.opened.set_result(None)

    def _fail(self, message: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(UnreachableError(message))
        self.transport.abort()

    def end(self) -> bool:
        """Send the end of what the program has sent; return whether the other direction is still open."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
        return not self._at_end

    def eof_received(self) -> bool:
        """Pass the end of what the target sends on; what the program sends continues."""
        self._at_end = True
        return self._answer is None and self._near.end()

    def pause_writing(self) -> None:
        """Read no more from the program until the target has read."""
        self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the program again."""
        self._near.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the program's connection, after what was sent to it."""
        if self._answer is not None:
            self._fail("the proxy of the caller closed the connection")
        elif not self._near.transport.is_closing():
            self._near.transport.close()
