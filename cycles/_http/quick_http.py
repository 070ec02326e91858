"""The plain case of HTTP/1.1 without h11, which costs half of an exchange: strict, and everything else goes to h11.

A quick response has the status 200, 201 or 409, one Content-Length, no header that changes how it is read, and no byte
after its body. `Http11` gives h11 the same bytes otherwise, so both read every response alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MAX_HEAD: Final = 64 * 1024
"""Bytes of status line and headers, or of one chunk header, that are read at most."""

MAX_BODY: Final = 256 * 1024
"""Bytes of a body that is put together from its parts; h11 reads larger ones."""

_STATUS: Final = re.compile(rb"HTTP/1\.1 (200|201|409)(?: [\t \x21-\x7e]*)?")
_HEADER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*)?[ \t]*")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_OF_H11: Final = frozenset(
    (b"connection", b"transfer-encoding", b"content-encoding", b"trailer", b"upgrade", b"proxy-connection")
)


class Head(NamedTuple):
    """The head of a quick response: where the body begins and ends in the bytes that were read."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    start: int
    end: int


def request_bytes(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes | None:
    """Return a request as bytes; None if h11 has to check it."""
    if not _TARGET.fullmatch(target):
        return None
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target)]
    for name, value in headers:
        header = b"%b: %b" % (name, value)
        if not _HEADER.fullmatch(header):
            return None
        lines.append(header)
    return b"\r\n".join((*lines, b"", body))


def read_head(data: bytes, limit: int) -> Head | None:
    """Return the head of a quick response, whose end was read; None if h11 has to read it."""
    end = data.find(b"\r\n\r\n")
    first, *lines = data[:end].split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        return None
    headers: list[tuple[bytes, bytes]] = []
    length = -1
    for header in lines:
        matched = _HEADER.fullmatch(header)
        if matched is None:
            return None
        name, value = matched.group(1).lower(), matched.group(2) or b""
        if name in _OF_H11:
            return None
        if name == b"content-length":
            if length >= 0 or not _CONTENT_LENGTH.fullmatch(value):
                return None
            length = int(value)
        headers.append((name, value))
    start = end + 4
    if end < 0 or length < 0 or length > min(limit, MAX_BODY) or len(data) > start + length:
        return None
    return Head(int(status.group(1)), tuple(headers), start, start + length)
