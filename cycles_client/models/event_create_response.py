from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.event_create_response_status import EventCreateResponseStatus
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount
    from ..models.balance import Balance


T = TypeVar("T", bound="EventCreateResponse")


@_attrs_define
class EventCreateResponse:
    """Result of a spend report.

    Attributes:
        status (EventCreateResponseStatus): Always APPLIED.
        event_id (str): Id of the event.
        charged (Amount | Unset): Charged amount; may be less than the actual amount under ALLOW_IF_AVAILABLE.
        balances (list[Balance] | Unset): Current balances of the budgets that were used.
    """

    status: EventCreateResponseStatus
    event_id: str
    charged: Amount | Unset = UNSET
    balances: list[Balance] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = EventCreateResponseStatus(self.status).value

        event_id = self.event_id

        charged: dict[str, Any] | Unset = UNSET
        if not isinstance(self.charged, Unset):
            charged = self.charged.to_dict()

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
                "event_id": event_id,
            }
        )
        if charged is not UNSET:
            field_dict["charged"] = charged
        if balances is not UNSET:
            field_dict["balances"] = balances

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.balance import Balance  # noqa: PLC0415

        d = dict(src_dict)
        status = EventCreateResponseStatus(d.pop("status"))

        event_id = d.pop("event_id")

        _charged = present(d.pop("charged", UNSET))
        charged: Amount | Unset
        if isinstance(_charged, Unset):
            charged = UNSET
        else:
            charged = Amount.from_dict(_charged)

        _balances = present(d.pop("balances", UNSET))
        balances: list[Balance] | Unset = UNSET
        if _balances is not UNSET:
            balances = []
            for balances_item_data in _balances:
                balances_item = Balance.from_dict(balances_item_data)

                balances.append(balances_item)

        event_create_response = cls(
            status=status,
            event_id=event_id,
            charged=charged,
            balances=balances,
        )

        event_create_response.additional_properties = d
        return event_create_response

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
