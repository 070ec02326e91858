from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.reservation_status import ReservationStatus
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action import Action
    from ..models.amount import Amount
    from ..models.reservation_evidence import ReservationEvidence
    from ..models.subject import Subject


T = TypeVar("T", bound="ReservationSummary")


@_attrs_define
class ReservationSummary:
    """One reservation, as a list returns it.

    Attributes:
        reservation_id (str): Id of the reservation.
        status (ReservationStatus): State of the reservation.
        subject (Subject): Who spends.
        action (Action): The action that spends.
        reserved (Amount): The reserved amount, also after its end.
        created_at_ms (int): When it was created, in milliseconds since the epoch.
        expires_at_ms (int): When it expires, in milliseconds since the epoch.
        scope_path (str): The innermost scope with everything above it.
        affected_scopes (list[str]): The scopes whose budgets are used, outermost first.
        idempotency_key (str | Unset): Key that makes a repeat of this request safe.
        finalized_at_ms (int | Unset): When it was committed or released, in milliseconds since the epoch.
        committed (Amount | Unset): Charged amount, after a commit.
        metadata (Any | Unset): Free-form data that is stored with the record.
        committed_metadata (Any | Unset): Free-form data of the commit.
        evidence (ReservationEvidence | Unset): Signed records of its steps.
    """

    reservation_id: str
    status: ReservationStatus
    subject: Subject
    action: Action
    reserved: Amount
    created_at_ms: int
    expires_at_ms: int
    scope_path: str
    affected_scopes: list[str]
    idempotency_key: str | Unset = UNSET
    finalized_at_ms: int | Unset = UNSET
    committed: Amount | Unset = UNSET
    metadata: Any | Unset = UNSET
    committed_metadata: Any | Unset = UNSET
    evidence: ReservationEvidence | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        reservation_id = self.reservation_id

        status = ReservationStatus(self.status).value

        subject = self.subject.to_dict()

        action = self.action.to_dict()

        reserved = self.reserved.to_dict()

        created_at_ms = self.created_at_ms

        expires_at_ms = self.expires_at_ms

        scope_path = self.scope_path

        affected_scopes = self.affected_scopes

        idempotency_key = self.idempotency_key

        finalized_at_ms = self.finalized_at_ms

        committed: dict[str, Any] | Unset = UNSET
        if not isinstance(self.committed, Unset):
            committed = self.committed.to_dict()

        metadata = self.metadata

        committed_metadata = self.committed_metadata

        evidence: dict[str, Any] | Unset = UNSET
        if not isinstance(self.evidence, Unset):
            evidence = self.evidence.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "reservation_id": reservation_id,
                "status": status,
                "subject": subject,
                "action": action,
                "reserved": reserved,
                "created_at_ms": created_at_ms,
                "expires_at_ms": expires_at_ms,
                "scope_path": scope_path,
                "affected_scopes": affected_scopes,
            }
        )
        if idempotency_key is not UNSET:
            field_dict["idempotency_key"] = idempotency_key
        if finalized_at_ms is not UNSET:
            field_dict["finalized_at_ms"] = finalized_at_ms
        if committed is not UNSET:
            field_dict["committed"] = committed
        if metadata is not UNSET:
            field_dict["metadata"] = metadata
        if committed_metadata is not UNSET:
            field_dict["committed_metadata"] = committed_metadata
        if evidence is not UNSET:
            field_dict["evidence"] = evidence

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.action import Action  # noqa: PLC0415
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.reservation_evidence import ReservationEvidence  # noqa: PLC0415
        from ..models.subject import Subject  # noqa: PLC0415

        d = dict(src_dict)
        reservation_id = d.pop("reservation_id")

        status = ReservationStatus(d.pop("status"))

        subject = Subject.from_dict(d.pop("subject"))

        action = Action.from_dict(d.pop("action"))

        reserved = Amount.from_dict(d.pop("reserved"))

        created_at_ms = d.pop("created_at_ms")

        expires_at_ms = d.pop("expires_at_ms")

        scope_path = d.pop("scope_path")

        affected_scopes = cast(list[str], d.pop("affected_scopes"))

        idempotency_key = present(d.pop("idempotency_key", UNSET))

        finalized_at_ms = present(d.pop("finalized_at_ms", UNSET))

        _committed = present(d.pop("committed", UNSET))
        committed: Amount | Unset
        if isinstance(_committed, Unset):
            committed = UNSET
        else:
            committed = Amount.from_dict(_committed)

        metadata = present(d.pop("metadata", UNSET))

        committed_metadata = present(d.pop("committed_metadata", UNSET))

        _evidence = present(d.pop("evidence", UNSET))
        evidence: ReservationEvidence | Unset
        if isinstance(_evidence, Unset):
            evidence = UNSET
        else:
            evidence = ReservationEvidence.from_dict(_evidence)

        reservation_summary = cls(
            reservation_id=reservation_id,
            status=status,
            subject=subject,
            action=action,
            reserved=reserved,
            created_at_ms=created_at_ms,
            expires_at_ms=expires_at_ms,
            scope_path=scope_path,
            affected_scopes=affected_scopes,
            idempotency_key=idempotency_key,
            finalized_at_ms=finalized_at_ms,
            committed=committed,
            metadata=metadata,
            committed_metadata=committed_metadata,
            evidence=evidence,
        )

        reservation_summary.additional_properties = d
        return reservation_summary

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
