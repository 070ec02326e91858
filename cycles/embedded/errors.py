"""The exception that the HTTP layer turns into an error response.

The codes and their statuses are in `docs/protocol/server.md#error-catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.protocol import ERROR_CODES


class ApiError(Exception):
    """An error response of the server. The ledger has not changed.

    Attributes:
        code: The protocol's error code.
        status: HTTP status; by default the one that belongs to the code.
        details: The member `details` of the error body, or None.
        headers: Further response headers.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status: int = status if status is not None else ERROR_CODES[code].status
        self.details = details
        self.headers: Mapping[str, str] = headers or {}
