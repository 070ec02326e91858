"""Turn outcomes of admin operations into typed errors. The codes of this plane are in `docs/admin.md`."""

from __future__ import annotations

from typing import Final

from cycles import _errors as errors
from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import NoSuccess, RejectedResponse

_BY_CODE: Final[dict[str, type[errors.ProtocolError]]] = {
    "DUPLICATE_RESOURCE": errors.DuplicateResourceError,
    "INSUFFICIENT_PERMISSIONS": errors.InsufficientPermissionsError,
    "UNIT_MISMATCH": errors.UnitMismatchError,
    "BUDGET_EXCEEDED": errors.BudgetExceededError,
    "BUDGET_FROZEN": errors.BudgetFrozenError,
    "BUDGET_CLOSED": errors.BudgetClosedError,
    "TENANT_CLOSED": errors.TenantClosedError,
    "IDEMPOTENCY_MISMATCH": errors.IdempotencyMismatchError,
}
_BY_STATUS: Final[dict[int, type[errors.ProtocolError]]] = {
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
}
_HINTS: Final[dict[type[errors.ProtocolError], str]] = {
    errors.UnauthorizedError: "the server rejected the admin key; check api_key / CYCLES_ADMIN_API_KEY",
    errors.InsufficientPermissionsError: "pass the admin key instead of a tenant's key",
    errors.BudgetExceededError: "the remaining amount is smaller; admin.budget(scope, unit=...) returns it",
    errors.BudgetFrozenError: "unfreeze the budget first: admin.unfreeze(scope, unit=...)",
    errors.IdempotencyMismatchError: "the key was used for another change; pass another idempotency_key or period",
}


def admin_error(outcome: NoSuccess, operation: str) -> errors.CyclesError:
    """Return the error for an outcome of an admin operation that is no success."""
    if not isinstance(outcome, RejectedResponse):
        return error_of(outcome, operation)
    if outcome.transient:
        return error_of(outcome, operation)
    kind = _BY_CODE.get(outcome.code or "") or _BY_STATUS.get(outcome.status, errors.ProtocolError)
    error = kind(
        outcome.message,
        hint=_HINTS.get(kind),
        status=outcome.status,
        code=outcome.code,
        request_id=outcome.request_id,
        trace_id=outcome.trace_id,
        details=outcome.details,
        retry_after_ms=outcome.retry_after_ms,
        retryable=outcome.transient,
    )
    error.http = outcome.http
    return error
