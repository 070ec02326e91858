"""One HTTP exchange as everything here speaks of it: where it goes, what comes back, how it fails.

No socket and no judgement: what an answer means to the protocol is decided elsewhere.
"""

from __future__ import annotations

import zlib
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from attrs import frozen

if TYPE_CHECKING:
    import ssl

MAX_BODY = 4 * 1024 * 1024
"""Bytes of an answer that are read before it is given up: a full page of balances is well under 1 MiB."""


class FailureKind(StrEnum):
    """Why an exchange has no reply."""

    INVALID = "invalid"
    """The request can't be written as HTTP (a line break in a header, say). Nothing was sent."""
    CONNECT = "connect"
    """No connection could be had: refused, no such host, a certificate that does not fit. Nothing was sent."""
    TIMEOUT = "timeout"
    """The deadline of the attempt passed; `ExchangeError.request_sent` says whether the request was under way."""
    BROKEN = "broken"
    """The connection ended, or what came over it was not HTTP."""
    TOO_LARGE = "too_large"
    """The answer is larger than `MAX_BODY`."""
    CLOSED = "closed"
    """The client was closed. Nothing was sent."""


class ExchangeError(Exception):
    """An exchange without a reply; `__cause__` is what the library below said, if it said anything.

    With `request_sent` the outcome at the server is unknown; without, it is certain that nothing happened there.
    """

    def __init__(self, kind: FailureKind, message: str, *, request_sent: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.request_sent = request_sent


@frozen
class Reply:
    """A complete answer, not yet judged. Times are monotonic seconds.

    `sent` was taken with a connection in hand, just before the first byte was written, and `received` with the last
    byte of the body: waiting for a connection or opening one is not part of the round trip (semantics 10.2).
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    sent: float
    received: float

    def header(self, name: str) -> str | None:
        """The first value of the header `name` (any case), or None."""
        wanted = name.lower().encode("latin-1")
        for key, value in self.headers:
            if key == wanted:
                return value.decode("latin-1")
        return None


class Endpoint:
    """Where requests go. Parsed once, and shared by everything that talks to one server, with its TLS settings.

    Raises ValueError for a `base_url` that is not http(s) or names no host.
    """

    def __init__(self, base_url: str) -> None:
        try:
            url = urlsplit(base_url if base_url.isascii() else _in_ascii(base_url))
            port = url.port
        except ValueError as error:
            raise ValueError(f"base_url {base_url!r} is not a URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url {base_url!r} must look like https://cycles.example.com")
        self.secure = url.scheme == "https"
        self.scheme = url.scheme
        self.host = url.hostname
        default = 443 if self.secure else 80
        self.port = port or default
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = (shown if self.port == default else f"{shown}:{self.port}").encode("ascii")
        self.prefix = quote(url.path.rstrip("/"), safe="/%:@!$&'()*+,;=~").encode("ascii")

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context, made when a connection first needs it: it costs milliseconds."""
        if not self.secure:
            return None
        import httpx  # which knows where certificates are; for plain HTTP it is never loaded

        context = httpx.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    @property
    def name(self) -> str:
        """The server for a person to read, without credentials."""
        return f"{self.scheme}://{self.authority.decode('ascii')}"

    def url(self, target: str) -> str:
        """The whole URL of `target`, for clients that need one."""
        return f"{self.name}{self.prefix.decode('ascii')}{target}"


def _in_ascii(base_url: str) -> str:
    """The same URL with its host in IDNA form."""
    import httpx

    try:
        url = httpx.URL(base_url)
        return str(url.copy_with(host=url.raw_host.decode("ascii")))
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error


def decoded(body: bytes, encoding: str | None, limit: int) -> bytes:
    """`body` without its gzip or deflate coding; one that grows past `limit` is refused, not unpacked to the end.

    We never ask for a coding; some proxies apply one all the same. An unknown coding is left as it is.
    """
    if encoding is None or encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    gzip_or_zlib = zlib.decompressobj(wbits=47)
    try:
        plain = gzip_or_zlib.decompress(body, limit + 1)
    except zlib.error as error:
        raise ExchangeError(FailureKind.BROKEN, "the compressed answer is damaged", request_sent=True) from error
    if len(plain) > limit:
        raise too_large(limit)
    if not gzip_or_zlib.eof:
        raise ExchangeError(FailureKind.BROKEN, "the compressed answer is cut short", request_sent=True)
    return plain


def too_large(limit: int) -> ExchangeError:
    return ExchangeError(FailureKind.TOO_LARGE, f"the answer is larger than {limit} bytes", request_sent=True)


def timed_out(phase: str, *, request_sent: bool) -> ExchangeError:
    return ExchangeError(FailureKind.TIMEOUT, f"timed out {phase}", request_sent=request_sent)


def closed() -> ExchangeError:
    return ExchangeError(FailureKind.CLOSED, "this client is closed: make a new one", request_sent=False)


def not_connected(endpoint: Endpoint, error: BaseException) -> ExchangeError:
    reason = str(error) or type(error).__name__
    message = f"can't connect to {endpoint.name} ({reason})"
    return ExchangeError(FailureKind.CONNECT, message, request_sent=False)


def broken(error: BaseException | None, *, request_sent: bool) -> ExchangeError:
    reason = f" ({str(error) or type(error).__name__})" if error is not None else ""
    return ExchangeError(
        FailureKind.BROKEN, f"the connection broke before the answer{reason}", request_sent=request_sent
    )
