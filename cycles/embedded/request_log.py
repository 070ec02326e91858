"""The log of received requests, for tests."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, overload

from attrs import field, frozen

# Bounded, because a development server may run for weeks; a test reads the last few.
MAX_ENTRIES: Final = 10_000


@frozen(kw_only=True)
class ReceivedRequest:
    """One request and the status of its response.

    Attributes:
        operation: The server's short name of the operation (reserve, commit, ...), None for an unknown path.
        target: Raw path and query.
        headers: Names in lower case. They include the API key; the repr does not.
        status: HTTP status of the ledger's response, None if a fault kept the request from the ledger.
    """

    operation: str | None
    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    status: int | None

    @property
    def json(self) -> Any:
        """Return the body as a JSON value.

        Raises:
            ValueError: if the body is not JSON.
        """
        return json.loads(self.body)

    @property
    def idempotency_key(self) -> str | None:
        """Return the idempotency key of the body, or None."""
        found = self.json if self.body else None
        return found.get("idempotency_key") if isinstance(found, dict) else None


class RequestLog(Sequence[ReceivedRequest]):
    """`server.requests`: the last 10,000 requests, in the order of their responses."""

    def __init__(self) -> None:
        self._entries: deque[ReceivedRequest] = deque(maxlen=MAX_ENTRIES)

    def of(self, operation: str) -> list[ReceivedRequest]:
        """Return the requests of one operation (reserve, commit, release, extend, event, decide, ...)."""
        return [request for request in list(self._entries) if request.operation == operation]

    def clear(self) -> None:
        """Delete all entries."""
        self._entries.clear()

    def add(self, request: ReceivedRequest) -> None:
        """Append one request."""
        self._entries.append(request)

    @overload
    def __getitem__(self, index: int) -> ReceivedRequest: ...
    @overload
    def __getitem__(self, index: slice) -> list[ReceivedRequest]: ...
    def __getitem__(self, index: int | slice) -> ReceivedRequest | list[ReceivedRequest]:
        return list(self._entries)[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[ReceivedRequest]:
        return iter(list(self._entries))

    def __repr__(self) -> str:
        return f"<RequestLog {list(self._entries)!r}>"
