from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.cycles_evidence_ref import CyclesEvidenceRef


T = TypeVar("T", bound="ReservationEvidence")


@_attrs_define
class ReservationEvidence:
    """Signed records of the steps of a reservation.

    Attributes:
        reserve (CyclesEvidenceRef | Unset): Record of the reserve response.
        commit (CyclesEvidenceRef | Unset): Record of the commit response.
        release (CyclesEvidenceRef | Unset): Record of the release response.
    """

    reserve: CyclesEvidenceRef | Unset = UNSET
    commit: CyclesEvidenceRef | Unset = UNSET
    release: CyclesEvidenceRef | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        reserve: dict[str, Any] | Unset = UNSET
        if not isinstance(self.reserve, Unset):
            reserve = self.reserve.to_dict()

        commit: dict[str, Any] | Unset = UNSET
        if not isinstance(self.commit, Unset):
            commit = self.commit.to_dict()

        release: dict[str, Any] | Unset = UNSET
        if not isinstance(self.release, Unset):
            release = self.release.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if reserve is not UNSET:
            field_dict["reserve"] = reserve
        if commit is not UNSET:
            field_dict["commit"] = commit
        if release is not UNSET:
            field_dict["release"] = release

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.cycles_evidence_ref import CyclesEvidenceRef  # noqa: PLC0415

        d = dict(src_dict)
        _reserve = present(d.pop("reserve", UNSET))
        reserve: CyclesEvidenceRef | Unset
        if isinstance(_reserve, Unset):
            reserve = UNSET
        else:
            reserve = CyclesEvidenceRef.from_dict(_reserve)

        _commit = present(d.pop("commit", UNSET))
        commit: CyclesEvidenceRef | Unset
        if isinstance(_commit, Unset):
            commit = UNSET
        else:
            commit = CyclesEvidenceRef.from_dict(_commit)

        _release = present(d.pop("release", UNSET))
        release: CyclesEvidenceRef | Unset
        if isinstance(_release, Unset):
            release = UNSET
        else:
            release = CyclesEvidenceRef.from_dict(_release)

        reservation_evidence = cls(
            reserve=reserve,
            commit=commit,
            release=release,
        )

        reservation_evidence.additional_properties = d
        return reservation_evidence

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
