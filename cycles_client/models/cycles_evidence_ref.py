from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="CyclesEvidenceRef")


@_attrs_define
class CyclesEvidenceRef:
    """Where the signed record of a response can be read.

    Attributes:
        evidence_id (str): Content hash of the envelope.
        cycles_evidence_url (str): Address of the envelope.
    """

    evidence_id: str
    cycles_evidence_url: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        evidence_id = self.evidence_id

        cycles_evidence_url = self.cycles_evidence_url

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "evidence_id": evidence_id,
                "cycles_evidence_url": cycles_evidence_url,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        evidence_id = d.pop("evidence_id")

        cycles_evidence_url = d.pop("cycles_evidence_url")

        cycles_evidence_ref = cls(
            evidence_id=evidence_id,
            cycles_evidence_url=cycles_evidence_url,
        )

        cycles_evidence_ref.additional_properties = d
        return cycles_evidence_ref

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
