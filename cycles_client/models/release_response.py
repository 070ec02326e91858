from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.release_response_status import ReleaseResponseStatus
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount
    from ..models.balance import Balance
    from ..models.cycles_evidence_ref import CyclesEvidenceRef


T = TypeVar("T", bound="ReleaseResponse")


@_attrs_define
class ReleaseResponse:
    """The released amount.

    Attributes:
        status (ReleaseResponseStatus): Always RELEASED.
        released (Amount): Amount released to the budgets.
        balances (list[Balance] | Unset): Current balances of the budgets that were used.
        cycles_evidence (CyclesEvidenceRef | Unset): Signed record of this response.
    """

    status: ReleaseResponseStatus
    released: Amount
    balances: list[Balance] | Unset = UNSET
    cycles_evidence: CyclesEvidenceRef | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = ReleaseResponseStatus(self.status).value

        released = self.released.to_dict()

        balances: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.balances, Unset):
            balances = []
            for balances_item_data in self.balances:
                balances_item = balances_item_data.to_dict()
                balances.append(balances_item)

        cycles_evidence: dict[str, Any] | Unset = UNSET
        if not isinstance(self.cycles_evidence, Unset):
            cycles_evidence = self.cycles_evidence.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "released": released,
            }
        )
        if balances is not UNSET:
            field_dict["balances"] = balances
        if cycles_evidence is not UNSET:
            field_dict["cycles_evidence"] = cycles_evidence

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.balance import Balance  # noqa: PLC0415
        from ..models.cycles_evidence_ref import CyclesEvidenceRef  # noqa: PLC0415

        d = dict(src_dict)
        status = ReleaseResponseStatus(d.pop("status"))

        released = Amount.from_dict(d.pop("released"))

        _balances = present(d.pop("balances", UNSET))
        balances: list[Balance] | Unset = UNSET
        if _balances is not UNSET:
            balances = []
            for balances_item_data in _balances:
                balances_item = Balance.from_dict(balances_item_data)

                balances.append(balances_item)

        _cycles_evidence = present(d.pop("cycles_evidence", UNSET))
        cycles_evidence: CyclesEvidenceRef | Unset
        if isinstance(_cycles_evidence, Unset):
            cycles_evidence = UNSET
        else:
            cycles_evidence = CyclesEvidenceRef.from_dict(_cycles_evidence)

        release_response = cls(
            status=status,
            released=released,
            balances=balances,
            cycles_evidence=cycles_evidence,
        )

        release_response.additional_properties = d
        return release_response

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
