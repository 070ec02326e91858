from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ApiKeyCreateRequest")


@_attrs_define
class ApiKeyCreateRequest:
    """Request to create an API key.

    Attributes:
        tenant_id (str): Owner of the key.
        name (str): Display name.
        description (str | Unset): Purpose of the key.
        permissions (list[str] | Unset): What the key may do, such as reservations:create.
        scope_filter (list[str] | Unset): Scopes that the key is limited to.
        expires_at (datetime.datetime | Unset): When the key expires; the server's default is 90 days.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    tenant_id: str
    name: str
    description: str | Unset = UNSET
    permissions: list[str] | Unset = UNSET
    scope_filter: list[str] | Unset = UNSET
    expires_at: datetime.datetime | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        tenant_id = self.tenant_id

        name = self.name

        description = self.description

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = self.permissions

        scope_filter: list[str] | Unset = UNSET
        if not isinstance(self.scope_filter, Unset):
            scope_filter = self.scope_filter

        expires_at: str | Unset = UNSET
        if not isinstance(self.expires_at, Unset):
            expires_at = self.expires_at.isoformat()

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "tenant_id": tenant_id,
                "name": name,
            }
        )
        if description is not UNSET:
            field_dict["description"] = description
        if permissions is not UNSET:
            field_dict["permissions"] = permissions
        if scope_filter is not UNSET:
            field_dict["scope_filter"] = scope_filter
        if expires_at is not UNSET:
            field_dict["expires_at"] = expires_at
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tenant_id = d.pop("tenant_id")

        name = d.pop("name")

        description = present(d.pop("description", UNSET))

        permissions = cast(list[str], present(d.pop("permissions", UNSET)))

        scope_filter = cast(list[str], present(d.pop("scope_filter", UNSET)))

        _expires_at = present(d.pop("expires_at", UNSET))
        expires_at: datetime.datetime | Unset
        if isinstance(_expires_at, Unset):
            expires_at = UNSET
        else:
            expires_at = datetime.datetime.fromisoformat(_expires_at)

        metadata = present(d.pop("metadata", UNSET))

        api_key_create_request = cls(
            tenant_id=tenant_id,
            name=name,
            description=description,
            permissions=permissions,
            scope_filter=scope_filter,
            expires_at=expires_at,
            metadata=metadata,
        )

        return api_key_create_request
