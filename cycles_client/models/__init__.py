"""Contains all the data models used in inputs and outputs; each loads when it is first asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .action import Action
    from .action_kind import ActionKind
    from .action_kind_registry import ActionKindRegistry
    from .action_policy_keys import ActionPolicyKeys
    from .amount import Amount
    from .balance import Balance
    from .balance_response import BalanceResponse
    from .caps import Caps
    from .commit_overage_policy import CommitOveragePolicy
    from .commit_request import CommitRequest
    from .commit_response import CommitResponse
    from .commit_response_status import CommitResponseStatus
    from .cycles_evidence_envelope import CyclesEvidenceEnvelope
    from .cycles_evidence_envelope_artifact_type import CyclesEvidenceEnvelopeArtifactType
    from .cycles_evidence_jwk import CyclesEvidenceJwk
    from .cycles_evidence_jwk_status import CyclesEvidenceJwkStatus
    from .cycles_evidence_jwks import CyclesEvidenceJwks
    from .cycles_evidence_ref import CyclesEvidenceRef
    from .decision_enum import DecisionEnum
    from .decision_request import DecisionRequest
    from .decision_response import DecisionResponse
    from .error_code import ErrorCode
    from .error_response import ErrorResponse
    from .event_create_request import EventCreateRequest
    from .event_create_response import EventCreateResponse
    from .event_create_response_status import EventCreateResponseStatus
    from .list_reservations_sort_by import ListReservationsSortBy
    from .release_request import ReleaseRequest
    from .release_response import ReleaseResponse
    from .release_response_status import ReleaseResponseStatus
    from .reservation_create_request import ReservationCreateRequest
    from .reservation_create_request_observe_mode import ReservationCreateRequestObserveMode
    from .reservation_create_response import ReservationCreateResponse
    from .reservation_detail import ReservationDetail
    from .reservation_evidence import ReservationEvidence
    from .reservation_extend_request import ReservationExtendRequest
    from .reservation_extend_response import ReservationExtendResponse
    from .reservation_extend_response_status import ReservationExtendResponseStatus
    from .reservation_list_response import ReservationListResponse
    from .reservation_status import ReservationStatus
    from .reservation_summary import ReservationSummary
    from .risk_class import RiskClass
    from .signed_amount import SignedAmount
    from .sort_direction import SortDirection
    from .standard_metrics import StandardMetrics
    from .subject import Subject
    from .unit_enum import UnitEnum

__all__ = (
    "Action",
    "ActionKind",
    "ActionKindRegistry",
    "ActionPolicyKeys",
    "Amount",
    "Balance",
    "BalanceResponse",
    "Caps",
    "CommitOveragePolicy",
    "CommitRequest",
    "CommitResponse",
    "CommitResponseStatus",
    "CyclesEvidenceEnvelope",
    "CyclesEvidenceEnvelopeArtifactType",
    "CyclesEvidenceJwk",
    "CyclesEvidenceJwks",
    "CyclesEvidenceJwkStatus",
    "CyclesEvidenceRef",
    "DecisionEnum",
    "DecisionRequest",
    "DecisionResponse",
    "ErrorCode",
    "ErrorResponse",
    "EventCreateRequest",
    "EventCreateResponse",
    "EventCreateResponseStatus",
    "ListReservationsSortBy",
    "ReleaseRequest",
    "ReleaseResponse",
    "ReleaseResponseStatus",
    "ReservationCreateRequest",
    "ReservationCreateRequestObserveMode",
    "ReservationCreateResponse",
    "ReservationDetail",
    "ReservationEvidence",
    "ReservationExtendRequest",
    "ReservationExtendResponse",
    "ReservationExtendResponseStatus",
    "ReservationListResponse",
    "ReservationStatus",
    "ReservationSummary",
    "RiskClass",
    "SignedAmount",
    "SortDirection",
    "StandardMetrics",
    "Subject",
    "UnitEnum",
)

_MODULES = {
    "Action": ".action",
    "ActionKind": ".action_kind",
    "ActionKindRegistry": ".action_kind_registry",
    "ActionPolicyKeys": ".action_policy_keys",
    "Amount": ".amount",
    "Balance": ".balance",
    "BalanceResponse": ".balance_response",
    "Caps": ".caps",
    "CommitOveragePolicy": ".commit_overage_policy",
    "CommitRequest": ".commit_request",
    "CommitResponse": ".commit_response",
    "CommitResponseStatus": ".commit_response_status",
    "CyclesEvidenceEnvelope": ".cycles_evidence_envelope",
    "CyclesEvidenceEnvelopeArtifactType": ".cycles_evidence_envelope_artifact_type",
    "CyclesEvidenceJwk": ".cycles_evidence_jwk",
    "CyclesEvidenceJwkStatus": ".cycles_evidence_jwk_status",
    "CyclesEvidenceJwks": ".cycles_evidence_jwks",
    "CyclesEvidenceRef": ".cycles_evidence_ref",
    "DecisionEnum": ".decision_enum",
    "DecisionRequest": ".decision_request",
    "DecisionResponse": ".decision_response",
    "ErrorCode": ".error_code",
    "ErrorResponse": ".error_response",
    "EventCreateRequest": ".event_create_request",
    "EventCreateResponse": ".event_create_response",
    "EventCreateResponseStatus": ".event_create_response_status",
    "ListReservationsSortBy": ".list_reservations_sort_by",
    "ReleaseRequest": ".release_request",
    "ReleaseResponse": ".release_response",
    "ReleaseResponseStatus": ".release_response_status",
    "ReservationCreateRequest": ".reservation_create_request",
    "ReservationCreateRequestObserveMode": ".reservation_create_request_observe_mode",
    "ReservationCreateResponse": ".reservation_create_response",
    "ReservationDetail": ".reservation_detail",
    "ReservationEvidence": ".reservation_evidence",
    "ReservationExtendRequest": ".reservation_extend_request",
    "ReservationExtendResponse": ".reservation_extend_response",
    "ReservationExtendResponseStatus": ".reservation_extend_response_status",
    "ReservationListResponse": ".reservation_list_response",
    "ReservationStatus": ".reservation_status",
    "ReservationSummary": ".reservation_summary",
    "RiskClass": ".risk_class",
    "SignedAmount": ".signed_amount",
    "SortDirection": ".sort_direction",
    "StandardMetrics": ".standard_metrics",
    "Subject": ".subject",
    "UnitEnum": ".unit_enum",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_MODULES[name], __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
