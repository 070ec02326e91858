from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action_kind import ActionKind


T = TypeVar("T", bound="ActionKindRegistry")


@_attrs_define
class ActionKindRegistry:
    """One page of the registry.

    Attributes:
        version (str): Version of the registry.
        kinds (list[ActionKind]): The kinds.
        next_cursor (str | Unset): Cursor of the next page.
        has_more (bool | Unset): Whether another page follows.
    """

    version: str
    kinds: list[ActionKind]
    next_cursor: str | Unset = UNSET
    has_more: bool | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        version = self.version

        kinds = []
        for kinds_item_data in self.kinds:
            kinds_item = kinds_item_data.to_dict()
            kinds.append(kinds_item)

        next_cursor = self.next_cursor

        has_more = self.has_more

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "version": version,
                "kinds": kinds,
            }
        )
        if next_cursor is not UNSET:
            field_dict["next_cursor"] = next_cursor
        if has_more is not UNSET:
            field_dict["has_more"] = has_more

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.action_kind import ActionKind  # noqa: PLC0415

        d = dict(src_dict)
        version = d.pop("version")

        kinds = []
        _kinds = d.pop("kinds")
        for kinds_item_data in _kinds:
            kinds_item = ActionKind.from_dict(kinds_item_data)

            kinds.append(kinds_item)

        next_cursor = present(d.pop("next_cursor", UNSET))

        has_more = present(d.pop("has_more", UNSET))

        action_kind_registry = cls(
            version=version,
            kinds=kinds,
            next_cursor=next_cursor,
            has_more=has_more,
        )

        action_kind_registry.additional_properties = d
        return action_kind_registry

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
