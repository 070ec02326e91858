from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action_policy_keys import ActionPolicyKeys


T = TypeVar("T", bound="Action")


@_attrs_define
class Action:
    """An action that is planned or done.

    Attributes:
        kind (str): Kind of action, for example llm.completion.
        name (str): Name of the action within its kind, for example of a model or a tool.
        tags (list[str] | Unset): Labels for policies and reports.
        policy_keys (ActionPolicyKeys | Unset): What the action concerns; it says which quota rules apply.
    """

    kind: str
    name: str
    tags: list[str] | Unset = UNSET
    policy_keys: ActionPolicyKeys | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        kind = self.kind

        name = self.name

        tags: list[str] | Unset = UNSET
        if not isinstance(self.tags, Unset):
            tags = self.tags

        policy_keys: dict[str, Any] | Unset = UNSET
        if not isinstance(self.policy_keys, Unset):
            policy_keys = self.policy_keys.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "kind": kind,
                "name": name,
            }
        )
        if tags is not UNSET:
            field_dict["tags"] = tags
        if policy_keys is not UNSET:
            field_dict["policy_keys"] = policy_keys

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.action_policy_keys import ActionPolicyKeys  # noqa: PLC0415

        d = dict(src_dict)
        kind = d.pop("kind")

        name = d.pop("name")

        tags = cast(list[str], present(d.pop("tags", UNSET)))

        _policy_keys = present(d.pop("policy_keys", UNSET))
        policy_keys: ActionPolicyKeys | Unset
        if isinstance(_policy_keys, Unset):
            policy_keys = UNSET
        else:
            policy_keys = ActionPolicyKeys.from_dict(_policy_keys)

        action = cls(
            kind=kind,
            name=name,
            tags=tags,
            policy_keys=policy_keys,
        )

        action.additional_properties = d
        return action

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
