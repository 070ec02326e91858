"""The public names for type checkers. `__init__.py` loads the same names when they are first used."""

from cycles import (
    admin as admin,
    events as events,
    evidence as evidence,
    journal as journal,
    kinds as kinds,
    prices as prices,
    providers as providers,
    testing as testing,
    usage as usage,
    webhooks as webhooks,
)
from cycles._client.client import Cycles as Cycles
from cycles._client.context import (
    copy_context_to as copy_context_to,
    current_subject as current_subject,
    limit as limit,
    run as run,
    subject as subject,
)
from cycles._client.default import (
    get_default_client as get_default_client,
    guarded as guarded,
    set_default_client as set_default_client,
)
from cycles._client.guard import AsyncGuard as AsyncGuard, Guard as Guard
from cycles._client.reservation import Reservation as Reservation
from cycles._client.series import AsyncSeries as AsyncSeries, LeaseSeries as LeaseSeries, Series as Series
from cycles._client.streams import (
    AsyncGuardedStream as AsyncGuardedStream,
    GuardedStream as GuardedStream,
)
from cycles._client.tracing import (
    AttemptResult as AttemptResult,
    GuardTrace as GuardTrace,
    SentAttempt as SentAttempt,
    TracedGuard as TracedGuard,
    Tracing as Tracing,
)
from cycles._config import Config as Config
from cycles._core.amounts import (
    Amount as Amount,
    SignedAmount as SignedAmount,
    Unit as Unit,
    credits as credits,  # noqa: A004 - the protocol's word
    risk_points as risk_points,
    to_usd as to_usd,
    tokens as tokens,
    usd as usd,
    usd_microcents as usd_microcents,
)
from cycles._core.messages.approval import ApprovalRequest as ApprovalRequest
from cycles._core.results import (
    Balance as Balance,
    Caps as Caps,
    CommitResponse as CommitResponse,
    DecisionResponse as DecisionResponse,
    EventCreateResponse as EventCreateResponse,
    EvidenceEnvelope as EvidenceEnvelope,
    EvidenceKey as EvidenceKey,
    EvidenceKeys as EvidenceKeys,
    EvidenceRef as EvidenceRef,
    ReleaseResponse as ReleaseResponse,
    ReservationCreateResponse as ReservationCreateResponse,
    ReservationDetail as ReservationDetail,
    ReservationEvidence as ReservationEvidence,
    ReservationExtendResponse as ReservationExtendResponse,
    ReservationSummary as ReservationSummary,
)
from cycles._core.settlement.settlement import (
    FlushReport as FlushReport,
    PendingSettlement as PendingSettlement,
    Settlement as Settlement,
)
from cycles._core.subjects import (
    Action as Action,
    Subject as Subject,
)
from cycles._core.values.action_kinds import ActionKind as ActionKind, PolicyKeys as PolicyKeys
from cycles._core.values.deny_detail import DenyDetail as DenyDetail, QuotaViolation as QuotaViolation
from cycles._core.values.result_base import HttpResponse as HttpResponse
from cycles._core.values.usage import (
    Metrics as Metrics,
    Usage as Usage,
)
from cycles._errors import (
    ActionNotPermittedError as ActionNotPermittedError,
    ActionQuotaExceededError as ActionQuotaExceededError,
    AmbiguousResponseError as AmbiguousResponseError,
    ApprovalDeniedError as ApprovalDeniedError,
    BudgetClosedError as BudgetClosedError,
    BudgetExceededError as BudgetExceededError,
    BudgetFrozenError as BudgetFrozenError,
    BulkActionError as BulkActionError,
    ConfigurationError as ConfigurationError,
    CyclesError as CyclesError,
    DebtOutstandingError as DebtOutstandingError,
    DuplicateResourceError as DuplicateResourceError,
    EvidenceError as EvidenceError,
    EvidenceRejectedError as EvidenceRejectedError,
    ForbiddenError as ForbiddenError,
    GuardFinalizedError as GuardFinalizedError,
    IdempotencyMismatchError as IdempotencyMismatchError,
    InsufficientPermissionsError as InsufficientPermissionsError,
    InvalidRequestError as InvalidRequestError,
    JournalUnavailableError as JournalUnavailableError,
    LeaseLostError as LeaseLostError,
    MaxExtensionsExceededError as MaxExtensionsExceededError,
    NotFoundError as NotFoundError,
    ObservedReservationError as ObservedReservationError,
    OverdraftLimitExceededError as OverdraftLimitExceededError,
    ProtocolError as ProtocolError,
    RateLimitedError as RateLimitedError,
    ReservationDeniedError as ReservationDeniedError,
    ReservationExpiredError as ReservationExpiredError,
    ReservationFinalizedError as ReservationFinalizedError,
    ReservationKeyReusedError as ReservationKeyReusedError,
    ReservationNotActiveError as ReservationNotActiveError,
    ServerError as ServerError,
    StepsExhaustedError as StepsExhaustedError,
    StoreError as StoreError,
    TenantClosedError as TenantClosedError,
    ToolNotAllowedError as ToolNotAllowedError,
    TransportError as TransportError,
    UnauthorizedError as UnauthorizedError,
    UncommittedGuardWarning as UncommittedGuardWarning,
    UnitMismatchError as UnitMismatchError,
    UnknownModelError as UnknownModelError,
    WebhookError as WebhookError,
    WebhookPayloadError as WebhookPayloadError,
    WebhookReplayError as WebhookReplayError,
    WebhookSignatureError as WebhookSignatureError,
)
from cycles._version import __version__ as __version__
from cycles.admin import RUNTIME_PERMISSIONS as RUNTIME_PERMISSIONS, Admin as Admin
from cycles.embedded import (
    EmbeddedServer as EmbeddedServer,
    ManualClock as ManualClock,
    Window as Window,
    window as window,
)
from cycles.evidence import (
    KEYS_UNAVAILABLE as KEYS_UNAVAILABLE,
    EvidenceDisposition as EvidenceDisposition,
    EvidenceVerdict as EvidenceVerdict,
    verify_evidence as verify_evidence,
)
from cycles.prices import (
    Price as Price,
    PriceBook as PriceBook,
)
from cycles.proxy._delegate import Share as Share, delegate as delegate
from cycles.webhooks import (
    SeenEvents as SeenEvents,
    WebhookEvent as WebhookEvent,
    WebhookReceiver as WebhookReceiver,
    sign_webhook as sign_webhook,
    verify_webhook as verify_webhook,
)

def current_guard() -> Guard | AsyncGuard | None: ...

_HOME_OF: dict[str, str]
_MODULES: dict[str, str]
__all__: list[str]
