from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.api_key_status import ApiKeyStatus
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ApiKey")


@_attrs_define
class ApiKey:
    """An API key, without its secret.

    Attributes:
        key_id (str): Id of the key.
        tenant_id (str): Owner of the key.
        status (ApiKeyStatus): State of the key.
        key_prefix (str | Unset): First characters of the key.
        name (str | Unset): Display name.
        description (str | Unset): Purpose of the key.
        permissions (list[str] | Unset): What the key may do.
        scope_filter (list[str] | Unset): Scopes that the key is limited to.
        created_at (datetime.datetime | Unset): When the key was created.
        expires_at (datetime.datetime | Unset): When the key expires.
        last_used_at (datetime.datetime | Unset): When the key was last used.
        revoked_at (datetime.datetime | Unset): When the key was revoked.
        revoked_reason (str | Unset): Why the key was revoked.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    key_id: str
    tenant_id: str
    status: ApiKeyStatus
    key_prefix: str | Unset = UNSET
    name: str | Unset = UNSET
    description: str | Unset = UNSET
    permissions: list[str] | Unset = UNSET
    scope_filter: list[str] | Unset = UNSET
    created_at: datetime.datetime | Unset = UNSET
    expires_at: datetime.datetime | Unset = UNSET
    last_used_at: datetime.datetime | Unset = UNSET
    revoked_at: datetime.datetime | Unset = UNSET
    revoked_reason: str | Unset = UNSET
    metadata: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        key_id = self.key_id

        tenant_id = self.tenant_id

        status = ApiKeyStatus(self.status).value

        key_prefix = self.key_prefix

        name = self.name

        description = self.description

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = self.permissions

        scope_filter: list[str] | Unset = UNSET
        if not isinstance(self.scope_filter, Unset):
            scope_filter = self.scope_filter

        created_at: str | Unset = UNSET
        if not isinstance(self.created_at, Unset):
            created_at = self.created_at.isoformat()

        expires_at: str | Unset = UNSET
        if not isinstance(self.expires_at, Unset):
            expires_at = self.expires_at.isoformat()

        last_used_at: str | Unset = UNSET
        if not isinstance(self.last_used_at, Unset):
            last_used_at = self.last_used_at.isoformat()

        revoked_at: str | Unset = UNSET
        if not isinstance(self.revoked_at, Unset):
            revoked_at = self.revoked_at.isoformat()

        revoked_reason = self.revoked_reason

        metadata = self.metadata

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "key_id": key_id,
                "tenant_id": tenant_id,
                "status": status,
            }
        )
        if key_prefix is not UNSET:
            field_dict["key_prefix"] = key_prefix
        if name is not UNSET:
            field_dict["name"] = name
        if description is not UNSET:
            field_dict["description"] = description
        if permissions is not UNSET:
            field_dict["permissions"] = permissions
        if scope_filter is not UNSET:
            field_dict["scope_filter"] = scope_filter
        if created_at is not UNSET:
            field_dict["created_at"] = created_at
        if expires_at is not UNSET:
            field_dict["expires_at"] = expires_at
        if last_used_at is not UNSET:
            field_dict["last_used_at"] = last_used_at
        if revoked_at is not UNSET:
            field_dict["revoked_at"] = revoked_at
        if revoked_reason is not UNSET:
            field_dict["revoked_reason"] = revoked_reason
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        key_id = d.pop("key_id")

        tenant_id = d.pop("tenant_id")

        status = ApiKeyStatus(d.pop("status"))

        key_prefix = present(d.pop("key_prefix", UNSET))

        name = present(d.pop("name", UNSET))

        description = present(d.pop("description", UNSET))

        permissions = cast(list[str], present(d.pop("permissions", UNSET)))

        scope_filter = cast(list[str], present(d.pop("scope_filter", UNSET)))

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

        _last_used_at = present(d.pop("last_used_at", UNSET))
        last_used_at: datetime.datetime | Unset
        if isinstance(_last_used_at, Unset):
            last_used_at = UNSET
        else:
            last_used_at = datetime.datetime.fromisoformat(_last_used_at)

        _revoked_at = present(d.pop("revoked_at", UNSET))
        revoked_at: datetime.datetime | Unset
        if isinstance(_revoked_at, Unset):
            revoked_at = UNSET
        else:
            revoked_at = datetime.datetime.fromisoformat(_revoked_at)

        revoked_reason = present(d.pop("revoked_reason", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        api_key = cls(
            key_id=key_id,
            tenant_id=tenant_id,
            status=status,
            key_prefix=key_prefix,
            name=name,
            description=description,
            permissions=permissions,
            scope_filter=scope_filter,
            created_at=created_at,
            expires_at=expires_at,
            last_used_at=last_used_at,
            revoked_at=revoked_at,
            revoked_reason=revoked_reason,
            metadata=metadata,
        )

        api_key.additional_properties = d
        return api_key

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
