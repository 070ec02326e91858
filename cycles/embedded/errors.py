"""Every "no" of the server, as one exception that the HTTP layer turns into an error body (error catalogue)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.outcome import CODE_STATUS


class ApiError(Exception):
    """The server answers with an error; nothing in the ledger has changed.

    Attributes:
        code: The protocol's error code.
        status: HTTP status, from the catalogue unless given.
        details: What `details` of the error body holds, or None for none.
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
        self.status = status if status is not None else CODE_STATUS[code]
        self.details = details
        self.headers = headers or {}
