from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.reservation_summary import ReservationSummary


T = TypeVar("T", bound="ReservationListResponse")


@_attrs_define
class ReservationListResponse:
    """One page of reservations.

    Attributes:
        reservations (list[ReservationSummary]): The reservations of this page.
        next_cursor (str | Unset): Position of the next page; absent on the last page.
        has_more (bool | Unset): Whether there is another page.
    """

    reservations: list[ReservationSummary]
    next_cursor: str | Unset = UNSET
    has_more: bool | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        reservations = []
        for reservations_item_data in self.reservations:
            reservations_item = reservations_item_data.to_dict()
            reservations.append(reservations_item)

        next_cursor = self.next_cursor

        has_more = self.has_more

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "reservations": reservations,
            }
        )
        if next_cursor is not UNSET:
            field_dict["next_cursor"] = next_cursor
        if has_more is not UNSET:
            field_dict["has_more"] = has_more

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.reservation_summary import ReservationSummary  # noqa: PLC0415

        d = dict(src_dict)
        reservations = []
        _reservations = d.pop("reservations")
        for reservations_item_data in _reservations:
            reservations_item = ReservationSummary.from_dict(reservations_item_data)

            reservations.append(reservations_item)

        next_cursor = present(d.pop("next_cursor", UNSET))

        has_more = present(d.pop("has_more", UNSET))

        reservation_list_response = cls(
            reservations=reservations,
            next_cursor=next_cursor,
            has_more=has_more,
        )

        reservation_list_response.additional_properties = d
        return reservation_list_response

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
