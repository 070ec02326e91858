from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.decision_enum import DecisionEnum
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.caps import Caps
    from ..models.cycles_evidence_ref import CyclesEvidenceRef


T = TypeVar("T", bound="DecisionResponse")


@_attrs_define
class DecisionResponse:
    """Result of an evaluation without a reservation.

    Attributes:
        decision (DecisionEnum): The decision.
        caps (Caps | Unset): Present exactly when the decision is ALLOW_WITH_CAPS.
        reason_code (str | Unset): Why the decision was DENY.
        retry_after_ms (int | Unset): After how many milliseconds a retry may succeed.
        affected_scopes (list[str] | Unset): The scopes whose budgets are used, outermost first.
        cycles_evidence (CyclesEvidenceRef | Unset): Signed record of this response.
    """

    decision: DecisionEnum
    caps: Caps | Unset = UNSET
    reason_code: str | Unset = UNSET
    retry_after_ms: int | Unset = UNSET
    affected_scopes: list[str] | Unset = UNSET
    cycles_evidence: CyclesEvidenceRef | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        decision = DecisionEnum(self.decision).value

        caps: dict[str, Any] | Unset = UNSET
        if not isinstance(self.caps, Unset):
            caps = self.caps.to_dict()

        reason_code = self.reason_code

        retry_after_ms = self.retry_after_ms

        affected_scopes: list[str] | Unset = UNSET
        if not isinstance(self.affected_scopes, Unset):
            affected_scopes = self.affected_scopes

        cycles_evidence: dict[str, Any] | Unset = UNSET
        if not isinstance(self.cycles_evidence, Unset):
            cycles_evidence = self.cycles_evidence.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "decision": decision,
            }
        )
        if caps is not UNSET:
            field_dict["caps"] = caps
        if reason_code is not UNSET:
            field_dict["reason_code"] = reason_code
        if retry_after_ms is not UNSET:
            field_dict["retry_after_ms"] = retry_after_ms
        if affected_scopes is not UNSET:
            field_dict["affected_scopes"] = affected_scopes
        if cycles_evidence is not UNSET:
            field_dict["cycles_evidence"] = cycles_evidence

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.caps import Caps  # noqa: PLC0415
        from ..models.cycles_evidence_ref import CyclesEvidenceRef  # noqa: PLC0415

        d = dict(src_dict)
        decision = DecisionEnum(d.pop("decision"))

        _caps = present(d.pop("caps", UNSET))
        caps: Caps | Unset
        if isinstance(_caps, Unset):
            caps = UNSET
        else:
            caps = Caps.from_dict(_caps)

        reason_code = present(d.pop("reason_code", UNSET))

        retry_after_ms = present(d.pop("retry_after_ms", UNSET))

        affected_scopes = cast(list[str], present(d.pop("affected_scopes", UNSET)))

        _cycles_evidence = present(d.pop("cycles_evidence", UNSET))
        cycles_evidence: CyclesEvidenceRef | Unset
        if isinstance(_cycles_evidence, Unset):
            cycles_evidence = UNSET
        else:
            cycles_evidence = CyclesEvidenceRef.from_dict(_cycles_evidence)

        decision_response = cls(
            decision=decision,
            caps=caps,
            reason_code=reason_code,
            retry_after_ms=retry_after_ms,
            affected_scopes=affected_scopes,
            cycles_evidence=cycles_evidence,
        )

        decision_response.additional_properties = d
        return decision_response

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
