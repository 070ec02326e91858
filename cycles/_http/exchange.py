"""One HTTP exchange: where it goes, what its reply is, how it fails.

No socket, and no classification: `_core/messages/outcome.py` decides what a response means to the protocol.
"""

from __future__ import annotations

import errno
import math
import os
import zlib
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from attrs import define

from cycles._errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a response that are read at most: a full page of balances is well under 1 MiB."""
QUEUE_TIMEOUT_S = 30.0
"""Seconds that a call waits for a connection slot, unless it is configured otherwise."""


@define
class Limits:
    """The times of one exchange. Never changed.

    Attributes:
        timeout_s: Seconds that it may take from the moment when it holds a connection slot.
        queue_timeout_s: Seconds that it waits for the slot at most.
        ends_at_s: When all of it ends at the latest (monotonic).
    """

    timeout_s: float
    queue_timeout_s: float = QUEUE_TIMEOUT_S
    ends_at_s: float = math.inf


class FailureKind(StrEnum):
    """Why an exchange has no reply."""

    INVALID = "invalid"
    """The request can't be written as HTTP (a line break in a header, say). Nothing was sent."""
    CONNECT = "connect"
    """No connection was made: not accepted, no such host, a certificate that does not fit. Nothing was sent."""
    QUEUE = "queue"
    """No connection slot was free within the queue timeout. Nothing was sent."""
    TIMEOUT = "timeout"
    """The deadline of the attempt passed; `ExchangeError.request_sent` says whether the request may have been sent."""
    BROKEN = "broken"
    """The connection ended, or what came over it was not HTTP."""
    TOO_LARGE = "too_large"
    """The response is larger than `MAX_BODY`."""
    CLOSED = "closed"
    """The client was closed. Nothing was sent."""


class ExchangeError(Exception):
    """An exchange without a reply; `__cause__` is the exception of the library below, if there was one.

    With `request_sent` the outcome at the server is unknown; without it, the server has received nothing.
    """

    def __init__(self, kind: FailureKind, message: str, *, request_sent: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.request_sent = request_sent


class Endpoint:
    """Where requests go. Parsed once, and shared by all connections to one server, with its TLS settings.

    Raises ValueError for a `base_url` that is not http(s) or names no host.
    """

    def __init__(self, base_url: str) -> None:
        try:
            url = urlsplit(base_url if base_url.isascii() else _in_ascii(base_url))
            port = url.port
        except ValueError as error:
            raise ValueError(f"base_url {base_url!r:.200} is not a URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url {base_url!r:.200} must look like https://cycles.example.com")
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
        """The TLS context, made when a connection first needs it: it costs milliseconds.

        Raises:
            ConfigurationError: The certificates that the environment names cannot be read.
        """
        if not self.secure:
            return None
        context = tls_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    @property
    def name(self) -> str:
        """The server for a person to read, without credentials."""
        return f"{self.scheme}://{self.authority.decode('ascii')}"

    def url(self, target: str) -> str:
        """The whole URL of `target`, for clients that need one."""
        return f"{self.name}{self.prefix.decode('ascii')}{target}"


def tls_context() -> ssl.SSLContext:
    """Return a TLS context with the certificates that the environment names, by default those of httpx.

    Raises:
        ConfigurationError: They cannot be read.
        ExchangeError: The process has no free file descriptor.
    """
    try:
        import httpx  # which knows where certificates are; for plain HTTP it is never loaded

        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        if type(error) is OSError and error.errno in (errno.EMFILE, errno.ENFILE):
            message = f"TLS certificates cannot be read ({error})"
            raise ExchangeError(FailureKind.CONNECT, message, request_sent=False) from error
        named = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
        settings = ", ".join(f"{name}={value!r:.200}" for name, value in named.items()) or "the system's certificates"
        raise ConfigurationError(
            f"TLS certificates cannot be loaded: {settings} ({error}); name a readable PEM file or unset it"
        ) from error


def _in_ascii(base_url: str) -> str:
    """The same URL with its host in IDNA form."""
    import httpx

    try:
        url = httpx.URL(base_url)
        return str(url.copy_with(host=url.raw_host.decode("ascii")))
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error


def decoded(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return `body` without its gzip or deflate coding; one that grows past `limit` is not unpacked to the end.

    No request allows a coding, but some proxies apply one. A body with an unknown coding is returned unchanged.
    """
    if encoding is None or encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    gzip_or_zlib = zlib.decompressobj(wbits=47)
    try:
        unpacked = gzip_or_zlib.decompress(body, limit + 1)
    except zlib.error as error:
        raise ExchangeError(FailureKind.BROKEN, "the compressed response is damaged", request_sent=True) from error
    # A few bytes can unpack to gigabytes: it stops at the limit.
    if len(unpacked) > limit:
        raise too_large(limit)
    if not gzip_or_zlib.eof:
        raise ExchangeError(FailureKind.BROKEN, "the compressed response is incomplete", request_sent=True)
    return unpacked


def too_large(limit: int) -> ExchangeError:
    return ExchangeError(FailureKind.TOO_LARGE, f"the response is larger than {limit} bytes", request_sent=True)


def timed_out(phase: str, *, request_sent: bool) -> ExchangeError:
    return ExchangeError(FailureKind.TIMEOUT, f"timed out {phase}", request_sent=request_sent)


def no_free_connection(queue_timeout_s: float) -> ExchangeError:
    message = (
        f"no connection was free within {queue_timeout_s:g} s, so nothing was sent"
        "; raise max_connections, or start fewer calls at the same time"
    )
    return ExchangeError(FailureKind.QUEUE, message, request_sent=False)


def closed() -> ExchangeError:
    return ExchangeError(FailureKind.CLOSED, "this client is closed: make a new one", request_sent=False)


def not_connected(endpoint: Endpoint, error: BaseException) -> ExchangeError:
    reason = str(error) or type(error).__name__
    message = f"can't connect to {endpoint.name} ({reason})"
    return ExchangeError(FailureKind.CONNECT, message, request_sent=False)


def broken(error: BaseException | None, *, request_sent: bool) -> ExchangeError:
    reason = f" ({str(error) or type(error).__name__})" if error is not None else ""
    return ExchangeError(
        FailureKind.BROKEN, f"the connection broke before the response{reason}", request_sent=request_sent
    )
