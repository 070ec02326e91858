from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ApiKeyUpdateRequest")


@_attrs_define
class ApiKeyUpdateRequest:
    """Changes of an API key; absent members stay unchanged.

    Attributes:
        name (str | Unset): New display name.
        description (str | Unset): New purpose.
        permissions (list[str] | Unset): New permissions.
        scope_filter (list[str] | Unset): New scopes.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    name: str | Unset = UNSET
    description: str | Unset = UNSET
    permissions: list[str] | Unset = UNSET
    scope_filter: list[str] | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        description = self.description

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = self.permissions

        scope_filter: list[str] | Unset = UNSET
        if not isinstance(self.scope_filter, Unset):
            scope_filter = self.scope_filter

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if name is not UNSET:
            field_dict["name"] = name
        if description is not UNSET:
            field_dict["description"] = description
        if permissions is not UNSET:
            field_dict["permissions"] = permissions
        if scope_filter is not UNSET:
            field_dict["scope_filter"] = scope_filter
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        name = present(d.pop("name", UNSET))

        description = present(d.pop("description", UNSET))

        permissions = cast(list[str], present(d.pop("permissions", UNSET)))

        scope_filter = cast(list[str], present(d.pop("scope_filter", UNSET)))

        metadata = present(d.pop("metadata", UNSET))

        api_key_update_request = cls(
            name=name,
            description=description,
            permissions=permissions,
            scope_filter=scope_filter,
            metadata=metadata,
        )

        return api_key_update_request
