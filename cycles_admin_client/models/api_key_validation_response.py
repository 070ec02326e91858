from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ApiKeyValidationResponse")


@_attrs_define
class ApiKeyValidationResponse:
    """Whether an API key works, and why not.

    Attributes:
        valid (bool): Whether the key works.
        tenant_id (str | Unset): Owner of the key; empty if unknown.
        key_id (str | Unset): Id of the key.
        permissions (list[str] | Unset): What the key may do.
        scope_filter (list[str] | Unset): Scopes that the key is limited to.
        expires_at (datetime.datetime | Unset): When the key expires.
        reason (str | Unset): Why the key does not work.
    """

    valid: bool
    tenant_id: str | Unset = UNSET
    key_id: str | Unset = UNSET
    permissions: list[str] | Unset = UNSET
    scope_filter: list[str] | Unset = UNSET
    expires_at: datetime.datetime | Unset = UNSET
    reason: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        valid = self.valid

        tenant_id = self.tenant_id

        key_id = self.key_id

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = self.permissions

        scope_filter: list[str] | Unset = UNSET
        if not isinstance(self.scope_filter, Unset):
            scope_filter = self.scope_filter

        expires_at: str | Unset = UNSET
        if not isinstance(self.expires_at, Unset):
            expires_at = self.expires_at.isoformat()

        reason = self.reason

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "valid": valid,
            }
        )
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if key_id is not UNSET:
            field_dict["key_id"] = key_id
        if permissions is not UNSET:
            field_dict["permissions"] = permissions
        if scope_filter is not UNSET:
            field_dict["scope_filter"] = scope_filter
        if expires_at is not UNSET:
            field_dict["expires_at"] = expires_at
        if reason is not UNSET:
            field_dict["reason"] = reason

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        valid = d.pop("valid")

        tenant_id = present(d.pop("tenant_id", UNSET))

        key_id = present(d.pop("key_id", UNSET))

        permissions = cast(list[str], present(d.pop("permissions", UNSET)))

        scope_filter = cast(list[str], present(d.pop("scope_filter", UNSET)))

        _expires_at = present(d.pop("expires_at", UNSET))
        expires_at: datetime.datetime | Unset
        if isinstance(_expires_at, Unset):
            expires_at = UNSET
        else:
            expires_at = datetime.datetime.fromisoformat(_expires_at)

        reason = present(d.pop("reason", UNSET))

        api_key_validation_response = cls(
            valid=valid,
            tenant_id=tenant_id,
            key_id=key_id,
            permissions=permissions,
            scope_filter=scope_filter,
            expires_at=expires_at,
            reason=reason,
        )

        api_key_validation_response.additional_properties = d
        return api_key_validation_response

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
