from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action_quota_state import ActionQuotaState


T = TypeVar("T", bound="ActionQuotaResetResponse")


@_attrs_define
class ActionQuotaResetResponse:
    """A counter after its reset.

    Attributes:
        counter (ActionQuotaState): The counter.
        previous_used (int | Unset): Counted calls before the reset.
    """

    counter: ActionQuotaState
    previous_used: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        counter = self.counter.to_dict()

        previous_used = self.previous_used

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "counter": counter,
            }
        )
        if previous_used is not UNSET:
            field_dict["previous_used"] = previous_used

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.action_quota_state import ActionQuotaState  # noqa: PLC0415

        d = dict(src_dict)
        counter = ActionQuotaState.from_dict(d.pop("counter"))

        previous_used = present(d.pop("previous_used", UNSET))

        action_quota_reset_response = cls(
            counter=counter,
            previous_used=previous_used,
        )

        action_quota_reset_response.additional_properties = d
        return action_quota_reset_response

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
