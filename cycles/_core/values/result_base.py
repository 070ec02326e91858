"""The base of responses as values: `Result`, and the raw HTTP response behind a result or an error.

A result is read from a body that satisfies its schema (`schema.py`); absent members are None. A member that is newer
than this SDK is in `extra`; the parsed body is in `raw`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

from attrs import define, field, fields_dict, frozen

from cycles._version import public

R = TypeVar("R", bound="Result")
Readers: TypeAlias = dict[str, Callable[..., Any]]


class ResponseHeaders(Mapping[str, str]):
    """Headers of a response. Names are compared in any case; values of a repeated header are joined with a comma."""

    __slots__ = ("_values",)

    def __init__(self, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
        self._values: dict[str, str] = {}
        for raw_name, raw_value in pairs:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __repr__(self) -> str:
        return f"<ResponseHeaders {self._values}>"


@define(init=False, unsafe_hash=True)
class HttpResponse:
    """The raw response of one request. It cannot be changed."""

    _status: int
    _pairs: tuple[tuple[bytes, bytes], ...]
    _elapsed_s: float

    # One is made for each response: `frozen` would take five times as long.
    def __init__(self, status: int, pairs: tuple[tuple[bytes, bytes], ...], elapsed_s: float) -> None:
        self._status = status
        self._pairs = pairs
        self._elapsed_s = elapsed_s

    def __repr__(self) -> str:
        return f"HttpResponse(status={self._status})"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response, by their names in lower case."""
        return ResponseHeaders(self._pairs)

    @property
    def elapsed(self) -> timedelta:
        """The time from the first byte of the request to the last byte of the response."""
        return timedelta(seconds=self._elapsed_s)


@frozen(kw_only=True)
class Result:
    """Base of every response.

    Attributes:
        request_id: The server's id of the request, for its logs.
        trace_id: Trace id of the request (32 hex digits).
        raw: The JSON object of the response, unchanged.
        http: Status, headers and elapsed time of the response; None for a result that came without one.
    """

    request_id: str | None = field(default=None, eq=False, repr=False)
    trace_id: str | None = field(default=None, eq=False, repr=False)
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)
    http: HttpResponse | None = field(default=None, eq=False, repr=False)

    _read: ClassVar[Readers] = {}

    @property
    def extra(self) -> dict[str, Any]:
        """Members of the response that this SDK does not know yet."""
        known = fields_dict(type(self))
        return {name: value for name, value in self.raw.items() if name not in known}

    @property
    def additional_properties(self) -> dict[str, Any]:
        """The same as `extra`, under the name that the generated models use."""
        return self.extra

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the response, unchanged."""
        return dict(self.raw)

    @classmethod
    def read(
        cls,
        body: Mapping[str, Any],
        *,
        request_id: str | None = None,
        trace_id: str | None = None,
        http: HttpResponse | None = None,
    ) -> Self:
        """Return the response in a body that satisfies its schema; null members count as absent."""
        known = _MEMBERS.get(cls) or _members(cls)
        members: dict[str, Any] = {}
        for name, value in body.items():
            if value is not None and name in known:
                reader = known[name]
                members[name] = value if reader is None else reader(value)
        return cls(**members, request_id=request_id, trace_id=trace_id, raw=body, http=http)


_MEMBERS: dict[type[Result], dict[str, Callable[..., Any] | None]] = {}
_OURS = frozenset({"request_id", "trace_id", "raw", "http"})


def _members(cls: type[Result]) -> dict[str, Callable[..., Any] | None]:
    _MEMBERS[cls] = {name: cls._read.get(name) for name in fields_dict(cls) if name not in _OURS}
    return _MEMBERS[cls]


def many(cls: type[R]) -> Callable[[list[Mapping[str, Any]]], list[R]]:
    """Return a reader of a list of results of one class."""
    return lambda items: list(map(cls.read, items))


public(HttpResponse)
