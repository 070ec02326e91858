"""Cycles: budget authority for AI agents. Reserve before you act, commit what it really cost.

```python
import cycles

client = cycles.Cycles()
with client.reserve(cycles.usd("0.05"), action=("llm.completion", "gpt-4o")) as guard:
    ...
    guard.commit(cycles.usd("0.032"))
```

The public names, and nothing else. Each is loaded when it is first used, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cycles._version import __version__

if TYPE_CHECKING:
    from cycles import _events as events
    from cycles import usage
    from cycles._config import Config
    from cycles._context import subject
    from cycles._core.amounts import (
        Amount,
        SignedAmount,
        Unit,
        credits,  # noqa: A004 - the protocol's word
        risk_points,
        to_usd,
        tokens,
        usd,
        usd_microcents,
    )
    from cycles._core.pricing import Price, PriceBook
    from cycles._core.results import (
        Balance,
        Caps,
        CommitResponse,
        DecisionResponse,
        EventCreateResponse,
        EvidenceEnvelope,
        EvidenceKey,
        EvidenceKeys,
        EvidenceRef,
        ReleaseResponse,
        ReservationCreateResponse,
        ReservationDetail,
        ReservationEvidence,
        ReservationExtendResponse,
        ReservationSummary,
    )
    from cycles._core.settlement import FlushReport, PendingSettlement, Settlement
    from cycles._core.subjects import Action, Subject
    from cycles._core.usage import Metrics, Usage
    from cycles._default import get_default_client, guarded, set_default_client
    from cycles._errors import (
        AmbiguousResponseError,
        BudgetClosedError,
        BudgetExceededError,
        BudgetFrozenError,
        ConfigurationError,
        CyclesError,
        DebtOutstandingError,
        ForbiddenError,
        GuardFinalizedError,
        IdempotencyMismatchError,
        InvalidRequestError,
        LeaseLostError,
        MaxExtensionsExceededError,
        NotFoundError,
        OverdraftLimitExceededError,
        ProtocolError,
        RateLimitedError,
        ReservationDeniedError,
        ReservationExpiredError,
        ReservationFinalizedError,
        ReservationKeyReusedError,
        ReservationNotActiveError,
        ServerError,
        StepsExhaustedError,
        TenantClosedError,
        ToolNotAllowedError,
        TransportError,
        UnauthorizedError,
        UncommittedGuardWarning,
        UnitMismatchError,
    )
    from cycles._facade import Cycles
    from cycles._guard import AsyncGuard, Guard, Reservation, current_guard
    from cycles._pools import copy_context_to
    from cycles._series import AsyncSeries, LeaseSeries, Series
    from cycles._streams import AsyncGuardedStream, GuardedStream
    from cycles.embedded import EmbeddedServer, ManualClock

_HOMES = {
    "cycles._config": ("Config",),
    "cycles._context": ("subject",),
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
    "cycles._core.pricing": ("Price", "PriceBook"),
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
    "cycles._core.settlement": ("FlushReport", "PendingSettlement", "Settlement"),
    "cycles._core.subjects": ("Action", "Subject"),
    "cycles._core.usage": ("Metrics", "Usage"),
    "cycles._errors": (
        "AmbiguousResponseError",
        "BudgetClosedError",
        "BudgetExceededError",
        "BudgetFrozenError",
        "ConfigurationError",
        "CyclesError",
        "DebtOutstandingError",
        "ForbiddenError",
        "GuardFinalizedError",
        "IdempotencyMismatchError",
        "InvalidRequestError",
        "LeaseLostError",
        "MaxExtensionsExceededError",
        "NotFoundError",
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
        "TenantClosedError",
        "ToolNotAllowedError",
        "TransportError",
        "UnauthorizedError",
        "UncommittedGuardWarning",
        "UnitMismatchError",
    ),
    "cycles._default": ("get_default_client", "guarded", "set_default_client"),
    "cycles._facade": ("Cycles",),
    "cycles._guard": ("AsyncGuard", "Guard", "Reservation", "current_guard"),
    "cycles._pools": ("copy_context_to",),
    "cycles._series": ("AsyncSeries", "LeaseSeries", "Series"),
    "cycles._streams": ("AsyncGuardedStream", "GuardedStream"),
    "cycles.embedded": ("EmbeddedServer", "ManualClock"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {"events": "cycles._events", "usage": "cycles.usage"}

# Spelled out, because type checkers read it: it is what makes the names public to them.
__all__ = [
    "Action",
    "AmbiguousResponseError",
    "Amount",
    "AsyncGuard",
    "AsyncGuardedStream",
    "AsyncSeries",
    "Balance",
    "BudgetClosedError",
    "BudgetExceededError",
    "BudgetFrozenError",
    "Caps",
    "CommitResponse",
    "Config",
    "ConfigurationError",
    "Cycles",
    "CyclesError",
    "DebtOutstandingError",
    "DecisionResponse",
    "EmbeddedServer",
    "EventCreateResponse",
    "EvidenceEnvelope",
    "EvidenceKey",
    "EvidenceKeys",
    "EvidenceRef",
    "FlushReport",
    "ForbiddenError",
    "Guard",
    "GuardFinalizedError",
    "GuardedStream",
    "IdempotencyMismatchError",
    "InvalidRequestError",
    "LeaseLostError",
    "LeaseSeries",
    "ManualClock",
    "MaxExtensionsExceededError",
    "Metrics",
    "NotFoundError",
    "OverdraftLimitExceededError",
    "PendingSettlement",
    "Price",
    "PriceBook",
    "ProtocolError",
    "RateLimitedError",
    "ReleaseResponse",
    "Reservation",
    "ReservationCreateResponse",
    "ReservationDeniedError",
    "ReservationDetail",
    "ReservationEvidence",
    "ReservationExpiredError",
    "ReservationExtendResponse",
    "ReservationFinalizedError",
    "ReservationNotActiveError",
    "ReservationSummary",
    "Series",
    "ServerError",
    "Settlement",
    "SignedAmount",
    "StepsExhaustedError",
    "Subject",
    "TenantClosedError",
    "ToolNotAllowedError",
    "TransportError",
    "UnauthorizedError",
    "UncommittedGuardWarning",
    "Unit",
    "UnitMismatchError",
    "Usage",
    "__version__",
    "copy_context_to",
    "credits",
    "current_guard",
    "events",
    "get_default_client",
    "guarded",
    "risk_points",
    "set_default_client",
    "subject",
    "to_usd",
    "tokens",
    "usage",
    "usd",
    "usd_microcents",
]


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
