"""Every "no" of the server, as one exception that the HTTP layer turns into an error body (error catalogue)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

STATUS_OF: Final = {
    "INVALID_REQUEST": 400,
    "UNIT_MISMATCH": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "BUDGET_EXCEEDED": 409,
    "BUDGET_FROZEN": 409,
    "BUDGET_CLOSED": 409,
    "OVERDRAFT_LIMIT_EXCEEDED": 409,
    "DEBT_OUTSTANDING": 409,
    "RESERVATION_FINALIZED": 409,
    "IDEMPOTENCY_MISMATCH": 409,
    "MAX_EXTENSIONS_EXCEEDED": 409,
    "TENANT_CLOSED": 409,
    "RESERVATION_EXPIRED": 410,
    "LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
}


class Refusal(Exception):
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
        self.status = status if status is not None else STATUS_OF[code]
        self.details = details
        self.headers = headers or {}
