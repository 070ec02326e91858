"""Build requests of httpx cheaply: its URL and headers cost more than sending them, and hardly change between calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from cycles._http.exchange import Endpoint

Headers = Sequence[tuple[bytes, bytes]]

_SIMPLE: Final = re.compile(r"[A-Za-z0-9/_.~-]+")  # a target without query or quoting: parsing would change nothing
_MOST: Final = 64  # sets of header names; there is one for each operation
_ENCODING: Final = b"accept-encoding"


class Requests:
    """The requests to one server through one client.

    Args:
        endpoint: The server.
        client: The client of httpx or httpx2; its headers are those of each request, but for ours.
        kind: The class `Request` of its library.
        url: The class `URL` of its library.
        stream: The class `ByteStream` of its library.
    """

    def __init__(self, endpoint: Endpoint, client: Any, kind: Any, url: Any, stream: Any) -> None:
        self._endpoint = endpoint
        self._client = client
        self._kind = kind
        self._url_kind = url
        self._stream_kind = stream
        self._prefix = endpoint.prefix.decode("ascii")
        self._sample: Any = None
        self._is_known: bool | None = None  # whether the inside of `URL` is the one that this module knows
        self._raw: list[tuple[bytes, bytes]] = []
        self._merged: dict[tuple[bytes, ...], list[tuple[bytes, bytes]]] = {}

    def make(self, method: str, target: str, headers: Headers, content: bytes | None, extensions: Any) -> Any:
        """Return a request, whose body is read: `auth` and event hooks of the user may look at it.

        Its stream is given, so the library adds no headers: finding out what is missing costs as much as all the rest.
        """
        merged = [*self._of_client(headers), *headers]
        if content is not None:
            merged.append((b"Content-Length", b"%d" % len(content)))
        stream = self._stream_kind(content or b"")
        request = self._kind(method, self._url(target), headers=merged, stream=stream, extensions=extensions)
        request.read()
        return request

    def _of_client(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return Host, and the client's own headers that ours do not replace. The user may change them at any time."""
        raw = list(self._client.headers.raw)
        if raw != self._raw:
            self._raw, self._merged = raw, {}
        names = tuple([name for name, _ in headers])
        merged = self._merged.get(names)
        if merged is None:
            ours = {name.lower() for name in names}
            replaced = ours | {_ENCODING, b"content-length"}
            merged = [(name, value) for name, value in raw if name.lower() not in replaced]
            if _ENCODING not in ours:
                merged.append((b"Accept-Encoding", b"identity"))  # the size limit counts what is read
            if b"host" not in ours and not any(name.lower() == b"host" for name, _ in merged):
                merged.insert(0, (b"Host", self._endpoint.authority))
            if len(self._merged) < _MOST:
                self._merged[names] = merged
        return merged

    def _url(self, target: str) -> Any:
        """Return the URL of a target. A plain one only replaces the path of a URL that was parsed before."""
        if self._is_known is False or not _SIMPLE.fullmatch(target):
            return self._endpoint.url(target)
        try:
            if self._is_known is None:
                self._sample = self._url_kind(self._endpoint.url("/"))
                self._is_known = self._replaced("/v1/x") == self._url_kind(self._endpoint.url("/v1/x"))
                return self._url(target)
            return self._replaced(target)
        except (AttributeError, TypeError, ValueError):  # another release of the library
            self._is_known = False
            return self._endpoint.url(target)

    def _replaced(self, target: str) -> Any:
        url = object.__new__(self._url_kind)
        url._uri_reference = self._sample._uri_reference._replace(path=self._prefix + target)
        return url
