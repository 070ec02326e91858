from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ActionPolicyKeys")


@_attrs_define
class ActionPolicyKeys:
    """What an action concerns.

    Attributes:
        host (str | Unset): Host name, without scheme and port.
        recipient_domain (str | Unset): Domain of the recipient.
        resource_type (str | Unset): Type of the resource.
        path_prefix (str | Unset): Absolute path.
        custom (Any | Unset): Further keys of an organization.
    """

    host: str | Unset = UNSET
    recipient_domain: str | Unset = UNSET
    resource_type: str | Unset = UNSET
    path_prefix: str | Unset = UNSET
    custom: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        host = self.host

        recipient_domain = self.recipient_domain

        resource_type = self.resource_type

        path_prefix = self.path_prefix

        custom = self.custom

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if host is not UNSET:
            field_dict["host"] = host
        if recipient_domain is not UNSET:
            field_dict["recipient_domain"] = recipient_domain
        if resource_type is not UNSET:
            field_dict["resource_type"] = resource_type
        if path_prefix is not UNSET:
            field_dict["path_prefix"] = path_prefix
        if custom is not UNSET:
            field_dict["custom"] = custom

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        host = present(d.pop("host", UNSET))

        recipient_domain = present(d.pop("recipient_domain", UNSET))

        resource_type = present(d.pop("resource_type", UNSET))

        path_prefix = present(d.pop("path_prefix", UNSET))

        custom = present(d.pop("custom", UNSET))

        action_policy_keys = cls(
            host=host,
            recipient_domain=recipient_domain,
            resource_type=resource_type,
            path_prefix=path_prefix,
            custom=custom,
        )

        action_policy_keys.additional_properties = d
        return action_policy_keys

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
