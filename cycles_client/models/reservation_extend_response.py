from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.reservation_extend_response_status import ReservationExtendResponseStatus
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.balance import Balance


T = TypeVar("T", bound="ReservationExtendResponse")


@_attrs_define
class ReservationExtendResponse:
    """The extended lease.

    Attributes:
        status (ReservationExtendResponseStatus): Always ACTIVE.
        expires_at_ms (int): The new end of the lease, in milliseconds of the server's epoch clock.
        remaining_ttl_ms (int | Unset): Remaining lease time, in milliseconds.
        balances (list[Balance] | Unset): Current balances of the budgets that were used.
    """

    status: ReservationExtendResponseStatus
    expires_at_ms: int
    remaining_ttl_ms: int | Unset = UNSET
    balances: list[Balance] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = ReservationExtendResponseStatus(self.status).value

        expires_at_ms = self.expires_at_ms

        remaining_ttl_ms = self.remaining_ttl_ms

        balances: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.balances, Unset):
            balances = []
            for balances_item_data in self.balances:
                balances_item = balances_item_data.to_dict()
                balances.append(balances_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "expires_at_ms": expires_at_ms,
            }
        )
        if remaining_ttl_ms is not UNSET:
            field_dict["remaining_ttl_ms"] = remaining_ttl_ms
        if balances is not UNSET:
            field_dict["balances"] = balances

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.balance import Balance  # noqa: PLC0415

        d = dict(src_dict)
        status = ReservationExtendResponseStatus(d.pop("status"))

        expires_at_ms = d.pop("expires_at_ms")

        remaining_ttl_ms = present(d.pop("remaining_ttl_ms", UNSET))

        _balances = present(d.pop("balances", UNSET))
        balances: list[Balance] | Unset = UNSET
        if _balances is not UNSET:
            balances = []
            for balances_item_data in _balances:
                balances_item = Balance.from_dict(balances_item_data)

                balances.append(balances_item)

        reservation_extend_response = cls(
            status=status,
            expires_at_ms=expires_at_ms,
            remaining_ttl_ms=remaining_ttl_ms,
            balances=balances,
        )

        reservation_extend_response.additional_properties = d
        return reservation_extend_response

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
