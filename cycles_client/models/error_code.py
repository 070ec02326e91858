from enum import StrEnum

from ..types import is_known_member, unknown_member


class ErrorCode(StrEnum):
    """Why a request was rejected; newer servers may return further codes.

    A value newer than this client is kept: it equals its text, and `is_known` is False.
    """

    BUDGET_CLOSED = "BUDGET_CLOSED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    BUDGET_FROZEN = "BUDGET_FROZEN"
    DEBT_OUTSTANDING = "DEBT_OUTSTANDING"
    FORBIDDEN = "FORBIDDEN"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    INVALID_REQUEST = "INVALID_REQUEST"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    MAX_EXTENSIONS_EXCEEDED = "MAX_EXTENSIONS_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    OVERDRAFT_LIMIT_EXCEEDED = "OVERDRAFT_LIMIT_EXCEEDED"
    RESERVATION_EXPIRED = "RESERVATION_EXPIRED"
    RESERVATION_FINALIZED = "RESERVATION_FINALIZED"
    TENANT_CLOSED = "TENANT_CLOSED"
    UNAUTHORIZED = "UNAUTHORIZED"
    UNIT_MISMATCH = "UNIT_MISMATCH"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_known(self) -> bool:
        """Whether this client was generated from a document that has this value."""
        return is_known_member(self)

    @classmethod
    def _missing_(cls, value: object) -> "ErrorCode | None":
        return unknown_member(cls, str, value)
