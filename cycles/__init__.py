"""Cycles limits what AI agents can spend: reserve an estimate before an action, commit its actual cost afterwards.

```python
import cycles

client = cycles.Cycles()
with client.reserve(cycles.usd("0.05"), action=("llm.completion", "gpt-4o")) as guard:
    ...
    guard.commit(cycles.usd("0.032"))
```

This module contains the public names only. Each is loaded when it is first used, so that importing the package is fast.
Type checkers read the same names in ``__init__.pyi``.
"""

from __future__ import annotations

import importlib
from typing import Any

from cycles._version import __version__ as __version__

_HOMES = {
    "cycles._config": ("Config",),
    "cycles._client.context": ("copy_context_to", "current_guard", "current_subject", "limit", "run", "subject"),
    "cycles.proxy._delegate": ("Share", "delegate"),
    "cycles._core.values.action_kinds": ("ActionKind", "PolicyKeys"),
    "cycles._core.amounts": (
        "Amount",
        "SignedAmount",
        "Unit",
        "credits",
        "risk_points",
        "to_usd",
        "tokens",
        "usd",
        "usd_microcents",
    ),
    "cycles._core.values.deny_detail": ("DenyDetail", "QuotaViolation"),
    "cycles._core.values.result_base": ("HttpResponse",),
    "cycles._core.messages.approval": ("ApprovalRequest",),
    "cycles._core.results": (
        "Balance",
        "Caps",
        "CommitResponse",
        "DecisionResponse",
        "EventCreateResponse",
        "EvidenceEnvelope",
        "EvidenceKey",
        "EvidenceKeys",
        "EvidenceRef",
        "ReleaseResponse",
        "ReservationCreateResponse",
        "ReservationDetail",
        "ReservationEvidence",
        "ReservationExtendResponse",
        "ReservationSummary",
    ),
    "cycles._core.settlement.settlement": ("FlushReport", "PendingSettlement", "Settlement"),
    "cycles._core.subjects": ("Action", "Subject"),
    "cycles._core.values.usage": ("Metrics", "Usage"),
    "cycles._errors": (
        "ActionNotPermittedError",
        "ActionQuotaExceededError",
        "AmbiguousResponseError",
        "BudgetClosedError",
        "ApprovalDeniedError",
        "BudgetExceededError",
        "BudgetFrozenError",
        "BulkActionError",
        "ConfigurationError",
        "CyclesError",
        "DebtOutstandingError",
        "DuplicateResourceError",
        "EvidenceError",
        "EvidenceRejectedError",
        "ForbiddenError",
        "GuardFinalizedError",
        "IdempotencyMismatchError",
        "InsufficientPermissionsError",
        "InvalidRequestError",
        "JournalUnavailableError",
        "LeaseLostError",
        "MaxExtensionsExceededError",
        "NotFoundError",
        "ObservedReservationError",
        "OverdraftLimitExceededError",
        "ProtocolError",
        "RateLimitedError",
        "ReservationDeniedError",
        "ReservationExpiredError",
        "ReservationFinalizedError",
        "ReservationKeyReusedError",
        "ReservationNotActiveError",
        "ServerError",
        "StepsExhaustedError",
        "StoreError",
        "TenantClosedError",
        "ToolNotAllowedError",
        "TransportError",
        "UnauthorizedError",
        "UncommittedGuardWarning",
        "UnitMismatchError",
        "UnknownModelError",
        "WebhookError",
        "WebhookPayloadError",
        "WebhookReplayError",
        "WebhookSignatureError",
    ),
    "cycles.evidence": (
        "KEYS_UNAVAILABLE",
        "EvidenceDisposition",
        "EvidenceVerdict",
        "verify_evidence",
    ),
    "cycles.webhooks": (
        "SeenEvents",
        "WebhookEvent",
        "WebhookReceiver",
        "sign_webhook",
        "verify_webhook",
    ),
    "cycles._client.default": ("get_default_client", "guarded", "set_default_client"),
    "cycles._client.client": ("Cycles",),
    "cycles._client.tracing": ("AttemptResult", "GuardTrace", "SentAttempt", "TracedGuard", "Tracing"),
    "cycles._client.guard": ("AsyncGuard", "Guard"),
    "cycles._client.reservation": ("Reservation",),
    "cycles._client.series": ("AsyncSeries", "LeaseSeries", "Series"),
    "cycles._client.streams": ("AsyncGuardedStream", "GuardedStream"),
    "cycles.admin": ("Admin", "RUNTIME_PERMISSIONS"),
    "cycles.embedded": ("EmbeddedServer", "ManualClock", "Window", "window"),
    "cycles.prices": ("Price", "PriceBook"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {
    "admin": "cycles.admin",
    "events": "cycles.events",
    "evidence": "cycles.evidence",
    "journal": "cycles.journal",
    "kinds": "cycles.kinds",
    "prices": "cycles.prices",
    "providers": "cycles.providers",
    "testing": "cycles.testing",
    "usage": "cycles.usage",
    "webhooks": "cycles.webhooks",
}

__all__ = sorted([*_HOME_OF, *_MODULES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'cycles' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
