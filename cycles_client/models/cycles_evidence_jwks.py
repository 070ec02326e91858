from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.cycles_evidence_jwk import CyclesEvidenceJwk


T = TypeVar("T", bound="CyclesEvidenceJwks")


@_attrs_define
class CyclesEvidenceJwks:
    """The public keys that evidence is signed with, present and past.

    Attributes:
        keys (list[CyclesEvidenceJwk]): One entry per key; a reader skips entries of a kind it does not know.
    """

    keys: list[CyclesEvidenceJwk]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        keys = []
        for keys_item_data in self.keys:
            keys_item = keys_item_data.to_dict()
            keys.append(keys_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "keys": keys,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.cycles_evidence_jwk import CyclesEvidenceJwk  # noqa: PLC0415

        d = dict(src_dict)
        keys = []
        _keys = d.pop("keys")
        for keys_item_data in _keys:
            keys_item = CyclesEvidenceJwk.from_dict(keys_item_data)

            keys.append(keys_item)

        cycles_evidence_jwks = cls(
            keys=keys,
        )

        cycles_evidence_jwks.additional_properties = d
        return cycles_evidence_jwks

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
