from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="AuthIntrospectResponse")


@_attrs_define
class AuthIntrospectResponse:
    """What the caller's own key may do.

    Attributes:
        authenticated (bool): Whether the key is accepted.
        auth_type (str | Unset): Kind of the key: admin or tenant.
        permissions (list[str] | Unset): Permissions of the key.
        capabilities (Any | Unset): Features that the key may use.
        tenant_id (str | Unset): Owner of the key.
        scope_filter (list[str] | Unset): Scopes that the key is limited to.
    """

    authenticated: bool
    auth_type: str | Unset = UNSET
    permissions: list[str] | Unset = UNSET
    capabilities: Any | Unset = UNSET
    tenant_id: str | Unset = UNSET
    scope_filter: list[str] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        authenticated = self.authenticated

        auth_type = self.auth_type

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = self.permissions

        capabilities = self.capabilities

        tenant_id = self.tenant_id

        scope_filter: list[str] | Unset = UNSET
        if not isinstance(self.scope_filter, Unset):
            scope_filter = self.scope_filter

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "authenticated": authenticated,
            }
        )
        if auth_type is not UNSET:
            field_dict["auth_type"] = auth_type
        if permissions is not UNSET:
            field_dict["permissions"] = permissions
        if capabilities is not UNSET:
            field_dict["capabilities"] = capabilities
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if scope_filter is not UNSET:
            field_dict["scope_filter"] = scope_filter

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        authenticated = d.pop("authenticated")

        auth_type = present(d.pop("auth_type", UNSET))

        permissions = cast(list[str], present(d.pop("permissions", UNSET)))

        capabilities = present(d.pop("capabilities", UNSET))

        tenant_id = present(d.pop("tenant_id", UNSET))

        scope_filter = cast(list[str], present(d.pop("scope_filter", UNSET)))

        auth_introspect_response = cls(
            authenticated=authenticated,
            auth_type=auth_type,
            permissions=permissions,
            capabilities=capabilities,
            tenant_id=tenant_id,
            scope_filter=scope_filter,
        )

        auth_introspect_response.additional_properties = d
        return auth_introspect_response

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
