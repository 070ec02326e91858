from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.tenant_status import TenantStatus
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="TenantFilter")


@_attrs_define
class TenantFilter:
    """Which tenants match; all members must match.

    Attributes:
        status (TenantStatus | Unset): State of the tenants.
        parent_tenant_id (str | Unset): Parent of the tenants.
        search (str | Unset): Part of id or name.
    """

    status: TenantStatus | Unset = UNSET
    parent_tenant_id: str | Unset = UNSET
    search: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        status: str | Unset = UNSET
        if not isinstance(self.status, Unset):
            status = TenantStatus(self.status).value

        parent_tenant_id = self.parent_tenant_id

        search = self.search

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if status is not UNSET:
            field_dict["status"] = status
        if parent_tenant_id is not UNSET:
            field_dict["parent_tenant_id"] = parent_tenant_id
        if search is not UNSET:
            field_dict["search"] = search

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        _status = present(d.pop("status", UNSET))
        status: TenantStatus | Unset
        if isinstance(_status, Unset):
            status = UNSET
        else:
            status = TenantStatus(_status)

        parent_tenant_id = present(d.pop("parent_tenant_id", UNSET))

        search = present(d.pop("search", UNSET))

        tenant_filter = cls(
            status=status,
            parent_tenant_id=parent_tenant_id,
            search=search,
        )

        return tenant_filter
