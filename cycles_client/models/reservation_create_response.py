from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.decision_enum import DecisionEnum
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount
    from ..models.balance import Balance
    from ..models.caps import Caps
    from ..models.cycles_evidence_ref import CyclesEvidenceRef


T = TypeVar("T", bound="ReservationCreateResponse")


@_attrs_define
class ReservationCreateResponse:
    """The decision, and the lease if there is one.

    Attributes:
        decision (DecisionEnum): Whether the action may run.
        affected_scopes (list[str]): The scopes whose budgets are used, outermost first.
        reservation_id (str | Unset): Id of the lease; absent on a dry run.
        reserved (Amount | Unset): The reserved amount.
        expires_at_ms (int | Unset): When the lease ends, in milliseconds of the server's epoch clock.
        remaining_ttl_ms (int | Unset): Remaining lease time, in milliseconds; zero after its end.
        scope_path (str | Unset): The innermost scope with everything above it.
        caps (Caps | Unset): Present exactly when the decision is ALLOW_WITH_CAPS.
        balances (list[Balance] | Unset): Current balances of the budgets that were used.
        reason_code (str | Unset): Why the decision was DENY.
        retry_after_ms (int | Unset): After how many milliseconds a retry may succeed.
        cycles_evidence (CyclesEvidenceRef | Unset): Signed record of this response.
    """

    decision: DecisionEnum
    affected_scopes: list[str]
    reservation_id: str | Unset = UNSET
    reserved: Amount | Unset = UNSET
    expires_at_ms: int | Unset = UNSET
    remaining_ttl_ms: int | Unset = UNSET
    scope_path: str | Unset = UNSET
    caps: Caps | Unset = UNSET
    balances: list[Balance] | Unset = UNSET
    reason_code: str | Unset = UNSET
    retry_after_ms: int | Unset = UNSET
    cycles_evidence: CyclesEvidenceRef | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        decision = DecisionEnum(self.decision).value

        affected_scopes = self.affected_scopes

        reservation_id = self.reservation_id

        reserved: dict[str, Any] | Unset = UNSET
        if not isinstance(self.reserved, Unset):
            reserved = self.reserved.to_dict()

        expires_at_ms = self.expires_at_ms

        remaining_ttl_ms = self.remaining_ttl_ms

        scope_path = self.scope_path

        caps: dict[str, Any] | Unset = UNSET
        if not isinstance(self.caps, Unset):
            caps = self.caps.to_dict()

        balances: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.balances, Unset):
            balances = []
            for balances_item_data in self.balances:
                balances_item = balances_item_data.to_dict()
                balances.append(balances_item)

        reason_code = self.reason_code

        retry_after_ms = self.retry_after_ms

        cycles_evidence: dict[str, Any] | Unset = UNSET
        if not isinstance(self.cycles_evidence, Unset):
            cycles_evidence = self.cycles_evidence.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "decision": decision,
                "affected_scopes": affected_scopes,
            }
        )
        if reservation_id is not UNSET:
            field_dict["reservation_id"] = reservation_id
        if reserved is not UNSET:
            field_dict["reserved"] = reserved
        if expires_at_ms is not UNSET:
            field_dict["expires_at_ms"] = expires_at_ms
        if remaining_ttl_ms is not UNSET:
            field_dict["remaining_ttl_ms"] = remaining_ttl_ms
        if scope_path is not UNSET:
            field_dict["scope_path"] = scope_path
        if caps is not UNSET:
            field_dict["caps"] = caps
        if balances is not UNSET:
            field_dict["balances"] = balances
        if reason_code is not UNSET:
            field_dict["reason_code"] = reason_code
        if retry_after_ms is not UNSET:
            field_dict["retry_after_ms"] = retry_after_ms
        if cycles_evidence is not UNSET:
            field_dict["cycles_evidence"] = cycles_evidence

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.balance import Balance  # noqa: PLC0415
        from ..models.caps import Caps  # noqa: PLC0415
        from ..models.cycles_evidence_ref import CyclesEvidenceRef  # noqa: PLC0415

        d = dict(src_dict)
        decision = DecisionEnum(d.pop("decision"))

        affected_scopes = cast(list[str], d.pop("affected_scopes"))

        reservation_id = present(d.pop("reservation_id", UNSET))

        _reserved = present(d.pop("reserved", UNSET))
        reserved: Amount | Unset
        if isinstance(_reserved, Unset):
            reserved = UNSET
        else:
            reserved = Amount.from_dict(_reserved)

        expires_at_ms = present(d.pop("expires_at_ms", UNSET))

        remaining_ttl_ms = present(d.pop("remaining_ttl_ms", UNSET))

        scope_path = present(d.pop("scope_path", UNSET))

        _caps = present(d.pop("caps", UNSET))
        caps: Caps | Unset
        if isinstance(_caps, Unset):
            caps = UNSET
        else:
            caps = Caps.from_dict(_caps)

        _balances = present(d.pop("balances", UNSET))
        balances: list[Balance] | Unset = UNSET
        if _balances is not UNSET:
            balances = []
            for balances_item_data in _balances:
                balances_item = Balance.from_dict(balances_item_data)

                balances.append(balances_item)

        reason_code = present(d.pop("reason_code", UNSET))

        retry_after_ms = present(d.pop("retry_after_ms", UNSET))

        _cycles_evidence = present(d.pop("cycles_evidence", UNSET))
        cycles_evidence: CyclesEvidenceRef | Unset
        if isinstance(_cycles_evidence, Unset):
            cycles_evidence = UNSET
        else:
            cycles_evidence = CyclesEvidenceRef.from_dict(_cycles_evidence)

        reservation_create_response = cls(
            decision=decision,
            affected_scopes=affected_scopes,
            reservation_id=reservation_id,
            reserved=reserved,
            expires_at_ms=expires_at_ms,
            remaining_ttl_ms=remaining_ttl_ms,
            scope_path=scope_path,
            caps=caps,
            balances=balances,
            reason_code=reason_code,
            retry_after_ms=retry_after_ms,
            cycles_evidence=cycles_evidence,
        )

        reservation_create_response.additional_properties = d
        return reservation_create_response

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
