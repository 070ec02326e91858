"""Which page has the rule behind each public name. The reference shows it below the docstring.

A name that is not here has the rule of its page in the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from website.errors import BuildError

DOCS: Final = Path(__file__).parents[1] / "docs"

# Page of the reference -> where its rules are.
OF_PAGES: Final = {
    "client": "protocol.md#operations",
    "guards": "protocol/guards.md#states",
    "amounts": "protocol/amounts-and-subjects.md",
    "results": "protocol/responses.md#success",
    "errors": "protocol/responses.md#error-responses",
    "webhooks": "webhooks.md",
    "evidence": "evidence.md",
    "admin": "admin.md",
    "embedded": "protocol/server.md",
    "more": "protocol.md",
}

# Heading -> the names and members that follow it, without `cycles.`; "Guard" stands for `AsyncGuard` too.
OF_NAMES: Final = {
    "client.md": "Config ConfigurationError Cycles.with_options Cycles.describe",
    "evidence.md": (
        "Cycles.evidence Cycles.evidence_keys Cycles.evidence_verdict EvidenceEnvelope EvidenceKey EvidenceKeys "
        "EvidenceRef ReservationEvidence EvidenceError EvidenceRejectedError"
    ),
    "events.md": "Cycles.on_event",
    "pools.md": "Cycles.pool LeaseSeries Series AsyncSeries Cycles.lease_series",
    "prices.md": "Price PriceBook UnknownModelError",
    "soft-limits.md": "Cycles.on_threshold ApprovalRequest ApprovalDeniedError",
    "streaming.md": "GuardedStream AsyncGuardedStream Guard.wrap",
    "admin.md": "DuplicateResourceError InsufficientPermissionsError BulkActionError",
    "webhooks.md": "WebhookError WebhookPayloadError WebhookReplayError WebhookSignatureError",
    "fleets.md": "StoreError",
    "protocol.md#action-kinds-and-quotas": (
        "ActionKind PolicyKeys DenyDetail QuotaViolation ActionNotPermittedError ActionQuotaExceededError "
        "Cycles.action_kinds Cycles.action_kind run"
    ),
    "protocol/amounts-and-subjects.md#units": "Unit usd usd_microcents to_usd tokens credits risk_points",
    "protocol/amounts-and-subjects.md#one-unit-per-reservation": "UnitMismatchError",
    "protocol/amounts-and-subjects.md#negative-amounts": "SignedAmount",
    "protocol/amounts-and-subjects.md#subject-levels": "Subject subject current_subject Guard.subject",
    "protocol/amounts-and-subjects.md#scopes": "Balance Cycles.balances Guard.affected_scopes Guard.scope_path",
    "protocol/amounts-and-subjects.md#actions": "Action",
    "protocol/decisions-and-caps.md#decisions": (
        "DecisionResponse ReservationCreateResponse Cycles.decide Cycles.preview Guard.decision"
    ),
    "protocol/decisions-and-caps.md#reason-codes": (
        "ReservationDeniedError BudgetExceededError BudgetFrozenError BudgetClosedError DebtOutstandingError "
        "OverdraftLimitExceededError TenantClosedError Guard.reason_code"
    ),
    "protocol/decisions-and-caps.md#observe-mode": "ObservedReservationError",
    "protocol/decisions-and-caps.md#conflicts-on-create": (
        "ReservationNotActiveError ReservationKeyReusedError ReservationFinalizedError"
    ),
    "protocol/decisions-and-caps.md#caps": (
        "Caps StepsExhaustedError Guard.caps Guard.is_capped Guard.max_tokens Guard.step Guard.cooldown"
    ),
    "protocol/decisions-and-caps.md#tool-lists": (
        "ToolNotAllowedError Guard.allows_tool Guard.filter_tools Guard.require_tool"
    ),
    "protocol/guards.md#lost-leases": "LeaseLostError Guard.raise_if_lost Guard.lease_error",
    "protocol/guards.md#how-a-block-ends": "Cycles.guarded guarded Guard.spend Guard.spent",
    "protocol/guards.md#dropped-guards": "UncommittedGuardWarning",
    "protocol/guards.md#guards-without-a-block": "Cycles.attach Guard.detach Reservation.acquire",
    "protocol/guards.md#states": "Cycles.reserve GuardFinalizedError Guard.state",
    "protocol/heartbeat.md#primary-algorithm": (
        "ReservationExtendResponse Cycles.extend_reservation Guard.extend Guard.expires_at Guard.expires_at_ms"
    ),
    "protocol/heartbeat.md#permanent-codes": "MaxExtensionsExceededError",
    "protocol/idempotency.md#keys": "Cycles.find Guard.idempotency_key",
    "protocol/idempotency.md#same-key-other-payload": "IdempotencyMismatchError",
    "protocol/responses.md#ambiguous-responses": "AmbiguousResponseError",
    "protocol/responses.md#final-and-temporary-error-responses": "ServerError TransportError",
    "protocol/responses.md#expired-reservations": "ReservationExpiredError",
    "protocol/responses.md#retry-after": "RateLimitedError",
    "protocol/responses.md#correlation-ids": (
        "Tracing GuardTrace TracedGuard SentAttempt AttemptResult HttpResponse Cycles.trace_with Guard.trace_id "
        "Guard.request_id"
    ),
    "protocol/settlement.md#saved-before-it-is-sent": "Cycles.record EventCreateResponse JournalUnavailableError",
    "protocol/settlement.md#one-attempt-then-the-background": ("Cycles.commit_reservation CommitResponse Guard.commit"),
    "protocol/settlement.md#commits-that-do-not-wait": "Guard.settled",
    "protocol/settlement.md#success": "Settlement Guard.settlement",
    "protocol/settlement.md#release": "Cycles.release_reservation ReleaseResponse Guard.release",
    "protocol/settlement.md#flush": "FlushReport Cycles.flush Cycles.close Cycles.aclose",
    "protocol/settlement.md#pending-settlements": "PendingSettlement Cycles.pending",
}


def by_name() -> dict[str, str]:
    """Return the heading of each name and member of `OF_NAMES`.

    Raises:
        BuildError: A page or a heading does not exist.
    """
    found: dict[str, str] = {}
    for target, names in OF_NAMES.items():
        title(target)
        for name in names.split():
            found[name] = target
            if name.startswith("Guard."):
                found[f"Async{name}"] = target
    return found


def sentence(target: str) -> str:
    """Return the line below a docstring, with a link from a page of the reference."""
    page, hash_, anchor = target.partition("#")
    return f"Rule: [{title(target)}](../{page.removesuffix('.md')}.html{hash_}{anchor})."


def title(target: str) -> str:
    """Return the title of a page, and the heading on it.

    Raises:
        BuildError: The page or the heading does not exist.
    """
    page, _, anchor = target.partition("#")
    path = DOCS / page
    headings = list(_headings(path)) if path.exists() else []
    titles = [text for text, slug in headings if slug == anchor] if anchor else [headings[0][0]] if headings else []
    if not titles:
        raise BuildError(f"website/rules.py names {target}, which does not exist: correct it")
    return f"{headings[0][0]}: {titles[0]}" if anchor else titles[0]


def _headings(path: Path) -> Iterator[tuple[str, str]]:
    for heading in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        text = heading.replace("`", "")
        yield text, re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
