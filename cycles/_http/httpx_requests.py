"""Build requests of httpx cheaply: its URL and headers cost more than sending them, and hardly change between calls."""

from __future__ import annotations

import re
from collections.abc import KeysView, Sequence
from typing import TYPE_CHECKING, Any, Final

import httpx

from cycles._http.exchange import Endpoint

Headers = Sequence[tuple[bytes, bytes]]
Pairs = list[tuple[bytes, bytes]]
Positions = dict[str, int]

_SIMPLE: Final = re.compile(r"[A-Za-z0-9/_.~-]+")  # a target without query or quoting: parsing would change nothing
_MOST: Final = 64  # sets of header names; there is one for each operation
_ENCODING: Final = b"accept-encoding"
_LENGTH: Final = b"Content-Length"
_IMPLIED: Final = ((b"accept", b"*/*"), (b"connection", b"keep-alive"))  # httpx adds them; HTTP/1.1 means them anyway

if TYPE_CHECKING:
    _Base = httpx.Headers
else:
    _Base = object


class _KnownHeaders(_Base):
    """Headers whose names are known, and that are parsed only if auth or an event hook does more than read them.

    A mixin for the class `Headers` of httpx or httpx2: its own attributes do not exist until one of them is looked up.
    """

    def __init__(self, pairs: Pairs, positions: Positions) -> None:
        self._pairs: Pairs | None = pairs
        self._positions = positions

    def __getattr__(self, name: str) -> Any:
        pairs = self.__dict__.get("_pairs")
        if pairs is None:
            raise AttributeError(name)
        self._pairs = None
        super().__init__(pairs, self.__dict__.get("_encoding"))
        return getattr(self, name)

    def __reduce__(self) -> Any:
        """Copies, also pickled ones, are plain."""
        return type(self).__bases__[1], (self.raw,)

    @property
    def raw(self) -> Pairs:
        return super().raw if self._pairs is None else list(self._pairs)

    def keys(self) -> KeysView[str]:
        return super().keys() if self._pairs is None else self._positions.keys()

    def __getitem__(self, key: str) -> str:
        try:
            if self._pairs is not None:
                return self._pairs[self._positions[key.lower()]][1].decode("ascii")
        except (KeyError, UnicodeDecodeError):
            pass  # the library knows the error, or the encoding
        return super().__getitem__(key)


class _Known:
    """What the headers of one operation have in common: those of the client, and the position of each name."""

    def __init__(self, of_client: Pairs, names: Sequence[bytes]) -> None:
        self.of_client = of_client
        every = [name.lower() for name in (*[name for name, _ in of_client], *names)]
        self.positions: Positions | None = None  # None: a name is there twice, or not ASCII
        if len(set(every)) == len(every) and all(name.isascii() for name in every):
            self.positions = {name.decode("ascii"): position for position, name in enumerate(every)}


class Requests:
    """The requests to one server through one client.

    Args:
        endpoint: The server.
        client: The client of httpx or httpx2; its headers are those of each request, but for ours.
        library: The module of the client: httpx or httpx2.
    """

    def __init__(self, endpoint: Endpoint, client: Any, library: Any) -> None:
        self._endpoint = endpoint
        self._client = client
        self._kind = library.Request
        self._url_kind = library.URL
        self._stream_kind = library.ByteStream
        self._plain_headers = library.Headers
        self._known_headers: Any = type("Headers", (_KnownHeaders, library.Headers), {})
        self._prefix = endpoint.prefix.decode("ascii")
        self._sample: Any = None
        self._is_known: bool | None = None  # whether the inside of `URL` is the one that this module knows
        self._raw: Pairs = []
        self._known: dict[tuple[bytes, ...], _Known] = {}

    def make(self, method: str, target: str, headers: Headers, content: bytes | None, extensions: Any) -> Any:
        """Return a request, whose body is read: `auth` and event hooks of the user may look at it.

        Its stream is given, so the library adds no headers: finding out what is missing costs as much as all the rest.
        """
        if content is not None:
            headers = [*headers, (_LENGTH, b"%d" % len(content))]
        known = self._known_for(headers)
        pairs = [*known.of_client, *headers]
        request = self._kind(method, self._url(target), stream=self._stream_kind(content or b""))
        request.extensions = extensions  # not a copy: the trace is taken out of it
        if known.positions is None:
            request.headers = self._plain_headers(pairs)
        else:
            request.headers = self._known_headers(pairs, known.positions)
        request.read()
        return request

    def _known_for(self, headers: Headers) -> _Known:
        """Return what is common to the requests with these names. The user may change the client's at any time."""
        raw = self._client.headers.raw
        if raw != self._raw:
            self._raw, self._known = list(raw), {}
        names = tuple([name for name, _ in headers])
        known = self._known.get(names)
        if known is None:
            known = _Known(self._of_client(names), names)
            if len(self._known) < _MOST:
                self._known[names] = known
        return known

    def _of_client(self, names: Sequence[bytes]) -> Pairs:
        """Return Host, and the client's own headers that ours do not replace."""
        ours = {name.lower() for name in names}
        replaced = ours | {_ENCODING, b"content-length"}
        merged = [(name, value) for name, value in self._raw if name.lower() not in replaced]
        merged = [(name, value) for name, value in merged if (name.lower(), value) not in _IMPLIED]
        if _ENCODING not in ours:
            merged.append((b"Accept-Encoding", b"identity"))  # the size limit counts what is read
        if b"host" not in ours and not any(name.lower() == b"host" for name, _ in merged):
            merged.insert(0, (b"Host", self._endpoint.authority))
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
        parts = self._sample._uri_reference
        url._uri_reference = parts._make((*parts[:4], self._prefix + target, *parts[5:]))
        return url
