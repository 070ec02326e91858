"""Read the head of a CONNECT request, and write the responses to it. No I/O."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from attrs import field, frozen

from cycles.proxy._hosts import normalized_host

MAX_HEAD_BYTES: Final = 64 * 1024
METHOD: Final = b"CONNECT "
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


@frozen
class Connect:
    """The target of a CONNECT request.

    Attributes:
        host: The host, in the form in which hosts are compared.
        port: The port.
        key: The password of `Proxy-Authorization`; None if there is none.
    """

    host: str
    port: int
    key: str | None = field(repr=False)


def read_connect(head: bytes) -> Connect:
    """Read the head of a CONNECT request.

    Raises:
        ValueError: if it is malformed, or announces a body.
    """
    request, *lines = head.decode("latin-1").split("\r\n")
    parts = request.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise ValueError("the request line is not CONNECT HOST:PORT HTTP/1.1")
    headers = dict(_header(line) for line in lines)
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise ValueError("CONNECT has no body; send it without Content-Length and Transfer-Encoding")
    host, colon, port = parts[1].rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or not 0 < int(port) < 65536:
        raise ValueError(f"{parts[1]!r:.80} is not HOST:PORT")
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{parts[1]!r:.80} is not HOST:PORT; write an IPv6 address as [ADDRESS]:PORT")
    return Connect(normalized_host(host), int(port), _password(headers.get("proxy-authorization", "")))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise ValueError(f"{line!r:.80} is not a header")
    return name.lower(), value.strip()


def _password(value: str) -> str | None:
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    _, colon, password = pair.partition(":")
    return password if colon else None


def response(status: int, phrase: str, message: str, *headers: str) -> bytes:
    """Return a whole response that ends the connection, with a message as its body."""
    body = f"{message}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
