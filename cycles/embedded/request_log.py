"""What arrived: the requests a server has answered, for tests to look at."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, overload

from attrs import field, frozen

# A development server may run for weeks; a test looks at the last few.
KEPT: Final = 10_000


@frozen(kw_only=True)
class ReceivedRequest:
    """One request, and the status it was answered with.

    Attributes:
        operation: The server's short name of it (reserve, commit, ...), None where nothing answers.
        target: Path and query as they came.
        headers: Names in lower case. The API key is among them, but not in the repr.
        status: HTTP status of the answer the ledger gave, None if a fault kept the request from it.
    """

    operation: str | None
    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    status: int | None

    @property
    def json(self) -> Any:
        """The body as a JSON value.

        Raises:
            ValueError: if it is none.
        """
        return json.loads(self.body)

    @property
    def idempotency_key(self) -> str | None:
        """The key in the body, if there is one."""
        found = self.json if self.body else None
        return found.get("idempotency_key") if isinstance(found, dict) else None


class RequestLog(Sequence[ReceivedRequest]):
    """`server.requests`: the requests in the order in which they were answered, the last 10,000."""

    def __init__(self) -> None:
        self._kept: deque[ReceivedRequest] = deque(maxlen=KEPT)

    def of(self, operation: str) -> list[ReceivedRequest]:
        """Those of one operation (reserve, commit, release, extend, event, decide, ...)."""
        return [request for request in list(self._kept) if request.operation == operation]

    def clear(self) -> None:
        """Forget them."""
        self._kept.clear()

    def add(self, request: ReceivedRequest) -> None:
        """Note one more."""
        self._kept.append(request)

    @overload
    def __getitem__(self, index: int) -> ReceivedRequest: ...
    @overload
    def __getitem__(self, index: slice) -> list[ReceivedRequest]: ...
    def __getitem__(self, index: int | slice) -> ReceivedRequest | list[ReceivedRequest]:
        return list(self._kept)[index]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[ReceivedRequest]:
        return iter(list(self._kept))

    def __repr__(self) -> str:
        return f"<RequestLog {list(self._kept)!r}>"
