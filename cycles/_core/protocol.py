"""The vocabulary of the protocol: operation ids, error codes, decisions. One table each.

Every other module takes these words from here. A word that only one module needs is here too.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cycles import _errors as errors

CREATE_RESERVATION: Final = "createReservation"
GET_RESERVATION: Final = "getReservation"
LIST_RESERVATIONS: Final = "listReservations"
COMMIT_RESERVATION: Final = "commitReservation"
RELEASE_RESERVATION: Final = "releaseReservation"
EXTEND_RESERVATION: Final = "extendReservation"
CREATE_EVENT: Final = "createEvent"
GET_BALANCES: Final = "getBalances"
GET_EVIDENCE: Final = "getEvidence"
GET_EVIDENCE_KEYS: Final = "getEvidenceJwks"
LIST_ACTION_KINDS: Final = "listActionKinds"
GET_ACTION_KIND: Final = "getActionKind"

SPENDING: Final = frozenset({CREATE_RESERVATION, CREATE_EVENT})
"""Operations that need a budget for their subject."""

DENY: Final = "DENY"
ALLOWING: Final = frozenset({"ALLOW", "ALLOW_WITH_CAPS"})
"""Decisions under which the action runs. Every other decision is a denial, also one that this SDK does not know."""

ALLOW_IF_AVAILABLE: Final = "ALLOW_IF_AVAILABLE"
ALLOW_WITH_OVERDRAFT: Final = "ALLOW_WITH_OVERDRAFT"
FORGIVING_POLICIES: Final = frozenset({ALLOW_IF_AVAILABLE, ALLOW_WITH_OVERDRAFT})
"""Overage policies under which an actual above the estimate is charged without an error."""

INVALID_REQUEST: Final = "INVALID_REQUEST"
NOT_FOUND: Final = "NOT_FOUND"
BUDGET_EXCEEDED: Final = "BUDGET_EXCEEDED"
OVERDRAFT_LIMIT_EXCEEDED: Final = "OVERDRAFT_LIMIT_EXCEEDED"
RESERVATION_FINALIZED: Final = "RESERVATION_FINALIZED"
IDEMPOTENCY_MISMATCH: Final = "IDEMPOTENCY_MISMATCH"
MAX_EXTENSIONS_EXCEEDED: Final = "MAX_EXTENSIONS_EXCEEDED"
RESERVATION_EXPIRED: Final = "RESERVATION_EXPIRED"
INTERNAL_ERROR: Final = "INTERNAL_ERROR"
ACTION_QUOTA_EXCEEDED: Final = "ACTION_QUOTA_EXCEEDED"
ACTION_KIND_DENIED: Final = "ACTION_KIND_DENIED"
ACTION_KIND_NOT_ALLOWED: Final = "ACTION_KIND_NOT_ALLOWED"


class ErrorCode(NamedTuple):
    """What one error code means.

    Attributes:
        status: The HTTP status that belongs to the code; 0 in the default rows.
        error: The exception that the caller gets.
        ends_settlement: Repeating the request would change nothing, if the status is the code's own.
        stops_heartbeat: The next extend attempt cannot succeed.
        stop_reason: Why the heartbeat stops permanently: a value of `StopReason`. None if it is none of those.
    """

    status: int
    error: type[errors.ProtocolError]
    ends_settlement: bool
    stops_heartbeat: bool
    stop_reason: str | None = None


ERROR_CODES: Final[dict[str, ErrorCode]] = {
    INVALID_REQUEST: ErrorCode(400, errors.ProtocolError, True, True),
    "UNIT_MISMATCH": ErrorCode(400, errors.UnitMismatchError, True, True),
    "UNAUTHORIZED": ErrorCode(401, errors.UnauthorizedError, False, False),
    "FORBIDDEN": ErrorCode(403, errors.ForbiddenError, False, False),
    NOT_FOUND: ErrorCode(404, errors.NotFoundError, True, True, "not_found"),
    BUDGET_EXCEEDED: ErrorCode(409, errors.BudgetExceededError, True, True),
    "BUDGET_FROZEN": ErrorCode(409, errors.BudgetFrozenError, True, True),
    "BUDGET_CLOSED": ErrorCode(409, errors.BudgetClosedError, True, True),
    OVERDRAFT_LIMIT_EXCEEDED: ErrorCode(409, errors.OverdraftLimitExceededError, True, True),
    "DEBT_OUTSTANDING": ErrorCode(409, errors.DebtOutstandingError, True, True),
    "TENANT_CLOSED": ErrorCode(409, errors.TenantClosedError, True, True, "tenant_closed"),
    RESERVATION_FINALIZED: ErrorCode(409, errors.ReservationFinalizedError, True, True, "finalized"),
    IDEMPOTENCY_MISMATCH: ErrorCode(409, errors.IdempotencyMismatchError, True, True),
    MAX_EXTENSIONS_EXCEEDED: ErrorCode(409, errors.MaxExtensionsExceededError, True, True, "max_extensions"),
    ACTION_QUOTA_EXCEEDED: ErrorCode(409, errors.ActionQuotaExceededError, True, True),
    ACTION_KIND_DENIED: ErrorCode(409, errors.ActionNotPermittedError, True, True),
    ACTION_KIND_NOT_ALLOWED: ErrorCode(409, errors.ActionNotPermittedError, True, True),
    RESERVATION_EXPIRED: ErrorCode(410, errors.ReservationExpiredError, False, True, "expired"),
    "LIMIT_EXCEEDED": ErrorCode(429, errors.RateLimitedError, False, False),
    INTERNAL_ERROR: ErrorCode(500, errors.ServerError, False, False),
}
"""The codes of the protocol. `docs/protocol/responses.md#error-responses` prints this table."""

KEY_REJECTED: Final = frozenset({401, 403})
"""Statuses, with any code, of a rejected key. A heartbeat is retried after them while the lease lasts."""

UNLISTED_LONGEST_PAUSE_S: Final = 3_600.0
STUCK_AFTER_MS: Final = 86_400_000
"""Such a settlement is reported once more when it has been pending for this long."""

UNLISTED_4XX: Final = ErrorCode(0, errors.ProtocolError, False, True)
"""A 4xx with another code or none. A settlement is tried again, with pauses that grow to an hour, and never dropped."""

UNLISTED_5XX: Final = ErrorCode(0, errors.ServerError, False, False)
"""A 5xx with another code or none: a temporary failure of the server."""

ERROR_OF_STATUS: Final[dict[int, type[errors.ProtocolError]]] = {
    401: errors.UnauthorizedError,
    404: errors.NotFoundError,
    410: errors.ReservationExpiredError,
    429: errors.RateLimitedError,
}
"""The exception for an error response without a code; any other status is in the default rows.

A 403 without a code is of a proxy or a web framework, so it says nothing about the tenant.
"""


def error_code(code: str | None, status: int) -> ErrorCode:
    """Return the row of a code, or the default row of the status if the code is not listed."""
    default = UNLISTED_5XX if status >= 500 else UNLISTED_4XX
    return default if code is None else ERROR_CODES.get(code, default)


def is_allowed(decision: str | None) -> bool:
    """Return whether the action runs under this decision."""
    return decision in ALLOWING
