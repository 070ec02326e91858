"""Responses that the reference server's web framework gives around the protocol's own.

They have no error body, so a client must not read them as the protocol's errors: an empty 403 is not FORBIDDEN, and an
HTML page is not INVALID_REQUEST. See `docs/protocol/server.md#responses-of-the-web-framework`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# Request line and headers together, as in the reference server's container.
MAX_HEAD_BYTES: Final = 8 * 1024
# Separators, method and version in the request line, and the line ends; an estimate suffices.
_REQUEST_START_BYTES: Final = 16
_HEADER_BYTES: Final = 4

_NOT_A_PATH: Final = re.compile(r"%(?:2f|5c|00)", re.IGNORECASE)
_SUSPICIOUS_PATH: Final = re.compile(r";|//|%3b|%25|/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_ACCEPTS_JSON: Final = re.compile(
    r"(?:^|,)\s*(?:\*/\*|application/(?:\*|json|[\w.+-]*\+json))\s*(?:;|,|$)", re.IGNORECASE
)

BAD_REQUEST_PAGE: Final = b"<!doctype html><html><head><title>400 Bad Request</title></head><body></body></html>"
HTML: Final = "text/html;charset=utf-8"


def is_bad_request(path: str, target: str, headers: Mapping[str, str]) -> bool:
    """Return whether the request gets a 400 with an HTML page: its path or its size is not acceptable."""
    if "%" in path and _NOT_A_PATH.search(path):
        return True
    size = (
        len(target)
        + _REQUEST_START_BYTES
        + sum(len(name) + len(value) + _HEADER_BYTES for name, value in headers.items())
    )
    return size > MAX_HEAD_BYTES


def is_suspicious(path: str) -> bool:
    """Return whether the request gets an empty 403 before authentication because of its path."""
    return _SUSPICIOUS_PATH.search(path) is not None


def accepts_json(headers: Mapping[str, str]) -> bool:
    """Return whether the header Accept allows JSON. If not, the response is an empty 403 after the operation ran."""
    accept = headers.get("accept", "")
    return accept == "*/*" or not accept.strip() or _ACCEPTS_JSON.search(accept) is not None
