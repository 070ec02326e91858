"""The raw response behind a result or an error: status, headers and elapsed time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from attrs import define

from cycles._version import public


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


public(HttpResponse)
