"""Check the headers that callers add to requests. Their values may be secrets, so no message contains one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cycles._errors import InvalidRequestError

OWN_HEADERS: Final = frozenset(
    ("connection", "content-length", "content-type", "host", "traceparent", "transfer-encoding", "user-agent")
)
"""Headers that the client sends itself, with that of its key. A second one would be ambiguous."""
KEY_HEADER: Final = "X-Cycles-API-Key"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")


def checked_header(where: str, name: Any, value: Any, key_header: str = KEY_HEADER) -> tuple[str, str]:
    """Return one header that can be sent.

    Args:
        where: The argument that contains it, for the message.
        name: Its name.
        value: Its value.
        key_header: The name of the header with the API key.

    Raises:
        InvalidRequestError: if it cannot be sent, or if the client sends it itself.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError(f"{where}: {name!r:.80} is not the name of an HTTP header")
    # Two headers of one name are read differently by servers and proxies.
    if name.lower() in OWN_HEADERS or name.lower() == key_header.lower():
        raise InvalidRequestError(f"{where}: the client sends {name} itself; remove it")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):  # the value may be a secret
        raise InvalidRequestError(f"{where}: the value of {name} must be ASCII text without line breaks")
    return name, value


def checked_headers(where: str, given: Any) -> dict[str, str]:
    """Return headers that can be sent; None is none.

    Raises:
        InvalidRequestError: if it is no mapping, or a header of it cannot be sent.
    """
    # A list of pairs would be accepted by `dict`, and could have a name twice.
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequestError(f"{where} must be a mapping of header names to values, got {type(given).__name__}")
    return dict(checked_header(where, name, value) for name, value in (given or {}).items())


def merged_headers(base: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of both; `over` replaces headers of the same name, in any case."""
    # Names have no case: both spellings would be sent otherwise.
    names = {name.lower() for name in over}
    return {**{name: value for name, value in base.items() if name.lower() not in names}, **over}
