from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ApiKeyCreateResponse")


@_attrs_define
class ApiKeyCreateResponse:
    """A new API key.

    Attributes:
        key_id (str): Id of the key.
        key_secret (str): The key itself; no later response contains it.
        key_prefix (str | Unset): First characters of the key.
        tenant_id (str | Unset): Owner of the key.
        permissions (list[str] | Unset): What the key may do.
        created_at (datetime.datetime | Unset): When the key was created.
        expires_at (datetime.datetime | Unset): When the key expires.
    """

    key_id: str
    key_secret: str
    key_prefix: str | Unset = UNSET
    tenant_id: str | Unset = UNSET
    permissions: list[str] | Unset = UNSET
    created_at: datetime.datetime | Unset = UNSET
    expires_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        key_id = self.key_id

        key_secret = self.key_secret

        key_prefix = self.key_prefix

        tenant_id = self.tenant_id

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = self.permissions

        created_at: str | Unset = UNSET
        if not isinstance(self.created_at, Unset):
            created_at = self.created_at.isoformat()

        expires_at: str | Unset = UNSET
        if not isinstance(self.expires_at, Unset):
            expires_at = self.expires_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "key_id": key_id,
                "key_secret": key_secret,
            }
        )
        if key_prefix is not UNSET:
            field_dict["key_prefix"] = key_prefix
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if permissions is not UNSET:
            field_dict["permissions"] = permissions
        if created_at is not UNSET:
            field_dict["created_at"] = created_at
        if expires_at is not UNSET:
            field_dict["expires_at"] = expires_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        key_id = d.pop("key_id")

        key_secret = d.pop("key_secret")

        key_prefix = present(d.pop("key_prefix", UNSET))

        tenant_id = present(d.pop("tenant_id", UNSET))

        permissions = cast(list[str], present(d.pop("permissions", UNSET)))

        _created_at = present(d.pop("created_at", UNSET))
        created_at: datetime.datetime | Unset
        if isinstance(_created_at, Unset):
            created_at = UNSET
        else:
            created_at = datetime.datetime.fromisoformat(_created_at)

        _expires_at = present(d.pop("expires_at", UNSET))
        expires_at: datetime.datetime | Unset
        if isinstance(_expires_at, Unset):
            expires_at = UNSET
        else:
            expires_at = datetime.datetime.fromisoformat(_expires_at)

        api_key_create_response = cls(
            key_id=key_id,
            key_secret=key_secret,
            key_prefix=key_prefix,
            tenant_id=tenant_id,
            permissions=permissions,
            created_at=created_at,
            expires_at=expires_at,
        )

        api_key_create_response.additional_properties = d
        return api_key_create_response

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
