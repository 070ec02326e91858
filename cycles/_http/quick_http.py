"""The plain case of HTTP/1.1 without h11, which costs half of an exchange: strict, and everything else goes to h11.

A quick response has the status 200, 201 or 409, one Content-Length, no header that changes how it is read, and no byte
after its body. `Http11` gives h11 the same bytes otherwise, so both read every response alike.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

MAX_HEAD: Final = 64 * 1024
"""Bytes of status line and headers, or of one chunk header, that are read at most."""

MAX_BODY: Final = 256 * 1024
"""Bytes of a body that is put together from its parts; h11 reads larger ones."""

_MAX_QUICK_HEAD: Final = 4 * 1024
_KNOWN_LINES: Final = 256
"""Most header lines that are kept. Most lines of a server are the same in all its responses."""

_STATUS: Final = re.compile(r"HTTP/1\.1 (200|201|409)(?: [\t \x21-\x7e]*)?")
_RECEIVED: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*)?[ \t]*")
_SENT: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: (?:[\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*)?[ \t]*\r\n")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_OF_H11: Final = frozenset(
    (b"connection", b"transfer-encoding", b"content-encoding", b"trailer", b"upgrade", b"proxy-connection")
)


class _NeedsH11Error(ValueError):
    """h11 has to read this response."""


class Head:
    """The head of a quick response: where the body begins and ends in the bytes that were read."""

    __slots__ = ("end", "found", "headers", "start", "status")

    def __init__(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], found: dict[bytes, bytes], start: int, end: int
    ) -> None:
        self.status = status
        self.headers = headers
        self.found = found  # the first value of each
        self.start = start
        self.end = end


def header_line(header: tuple[bytes, bytes]) -> bytes | None:
    """Return the line of a header; None if h11 has to check it."""
    name, value = header
    line = b"".join((name, b": ", value, b"\r\n"))
    return line if (_is_alphanumeric(name) and _is_alphanumeric(value)) or _SENT.fullmatch(line) else None


def is_target(target: bytes) -> bool:
    """Return whether this can be the target of a request; otherwise h11 has to check it."""
    return _is_alphanumeric(target.replace(b"/", b"")) or _TARGET.fullmatch(target) is not None


def _is_alphanumeric(text: bytes) -> bool:
    """Return whether this has only letters, digits and hyphens, which is found faster than what else is allowed."""
    return text.replace(b"-", b"").isalnum()


def read_head(data: bytes, limit: int) -> Head | None:
    """Return the head of a quick response, whose end was read; None if h11 has to read it."""
    end = data.find(b"\r\n\r\n")
    if not 0 <= end <= _MAX_QUICK_HEAD:
        return None
    try:
        first, *lines = data[:end].decode().split("\r\n")
        status, headers = _status(first), tuple(map(_header, lines))
    except ValueError:  # from one of the two functions, or not UTF-8
        return None
    found = dict(headers)
    if len(found) < len(headers):
        if sum(name == b"content-length" for name, _ in headers) > 1:
            return None
        found = dict(reversed(headers))
    length = int(found.get(b"content-length", -1))
    start = end + 4
    if length < 0 or length > min(limit, MAX_BODY) or len(data) > start + length:
        return None
    return Head(status, headers, found, start, start + length)


@lru_cache(16)
def _status(line: str) -> int:
    matched = _STATUS.fullmatch(line)
    if matched is None:
        raise _NeedsH11Error
    return int(matched[1])


@lru_cache(_KNOWN_LINES)
def _header(line: str) -> tuple[bytes, bytes]:
    """Return the name, in lower case, and the value of a header that changes nothing in how the response is read."""
    matched = _RECEIVED.fullmatch(line)
    if matched is None:
        raise _NeedsH11Error
    name, value = matched[1].lower().encode("ascii"), (matched[2] or "").encode("ascii")
    if name in _OF_H11 or (name == b"content-length" and not _LENGTH.fullmatch(value)):
        raise _NeedsH11Error
    return name, value
