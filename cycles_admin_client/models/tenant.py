from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.commit_overage_policy import CommitOveragePolicy
from ..models.tenant_reservation_expiry_policy import TenantReservationExpiryPolicy
from ..models.tenant_status import TenantStatus
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="Tenant")


@_attrs_define
class Tenant:
    """A tenant with its settings.

    Attributes:
        tenant_id (str): Id of the tenant.
        name (str): Display name.
        status (TenantStatus): State of the tenant.
        parent_tenant_id (str | Unset): Id of the parent tenant.
        default_commit_overage_policy (CommitOveragePolicy | Unset): Overage policy of requests without one.
        default_reservation_ttl_ms (int | Unset): Lifetime of reservations whose request has none, in milliseconds.
        max_reservation_ttl_ms (int | Unset): Longest lifetime of a reservation, in milliseconds.
        max_reservation_extensions (int | Unset): Maximum number of extensions of a reservation.
        reservation_expiry_policy (TenantReservationExpiryPolicy | Unset): What happens to a reservation that expires.
        metadata (Any | Unset): Free-form strings that are stored with the object.
        created_at (datetime.datetime | Unset): When the tenant was created.
        updated_at (datetime.datetime | Unset): When the tenant was last changed.
        suspended_at (datetime.datetime | Unset): When the tenant was last suspended.
        closed_at (datetime.datetime | Unset): When the tenant was closed.
    """

    tenant_id: str
    name: str
    status: TenantStatus
    parent_tenant_id: str | Unset = UNSET
    default_commit_overage_policy: CommitOveragePolicy | Unset = UNSET
    default_reservation_ttl_ms: int | Unset = UNSET
    max_reservation_ttl_ms: int | Unset = UNSET
    max_reservation_extensions: int | Unset = UNSET
    reservation_expiry_policy: TenantReservationExpiryPolicy | Unset = UNSET
    metadata: Any | Unset = UNSET
    created_at: datetime.datetime | Unset = UNSET
    updated_at: datetime.datetime | Unset = UNSET
    suspended_at: datetime.datetime | Unset = UNSET
    closed_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        tenant_id = self.tenant_id

        name = self.name

        status = TenantStatus(self.status).value

        parent_tenant_id = self.parent_tenant_id

        default_commit_overage_policy: str | Unset = UNSET
        if not isinstance(self.default_commit_overage_policy, Unset):
            default_commit_overage_policy = CommitOveragePolicy(
                self.default_commit_overage_policy
            ).value

        default_reservation_ttl_ms = self.default_reservation_ttl_ms

        max_reservation_ttl_ms = self.max_reservation_ttl_ms

        max_reservation_extensions = self.max_reservation_extensions

        reservation_expiry_policy: str | Unset = UNSET
        if not isinstance(self.reservation_expiry_policy, Unset):
            reservation_expiry_policy = TenantReservationExpiryPolicy(
                self.reservation_expiry_policy
            ).value

        metadata = self.metadata

        created_at: str | Unset = UNSET
        if not isinstance(self.created_at, Unset):
            created_at = self.created_at.isoformat()

        updated_at: str | Unset = UNSET
        if not isinstance(self.updated_at, Unset):
            updated_at = self.updated_at.isoformat()

        suspended_at: str | Unset = UNSET
        if not isinstance(self.suspended_at, Unset):
            suspended_at = self.suspended_at.isoformat()

        closed_at: str | Unset = UNSET
        if not isinstance(self.closed_at, Unset):
            closed_at = self.closed_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "tenant_id": tenant_id,
                "name": name,
                "status": status,
            }
        )
        if parent_tenant_id is not UNSET:
            field_dict["parent_tenant_id"] = parent_tenant_id
        if default_commit_overage_policy is not UNSET:
            field_dict["default_commit_overage_policy"] = default_commit_overage_policy
        if default_reservation_ttl_ms is not UNSET:
            field_dict["default_reservation_ttl_ms"] = default_reservation_ttl_ms
        if max_reservation_ttl_ms is not UNSET:
            field_dict["max_reservation_ttl_ms"] = max_reservation_ttl_ms
        if max_reservation_extensions is not UNSET:
            field_dict["max_reservation_extensions"] = max_reservation_extensions
        if reservation_expiry_policy is not UNSET:
            field_dict["reservation_expiry_policy"] = reservation_expiry_policy
        if metadata is not UNSET:
            field_dict["metadata"] = metadata
        if created_at is not UNSET:
            field_dict["created_at"] = created_at
        if updated_at is not UNSET:
            field_dict["updated_at"] = updated_at
        if suspended_at is not UNSET:
            field_dict["suspended_at"] = suspended_at
        if closed_at is not UNSET:
            field_dict["closed_at"] = closed_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tenant_id = d.pop("tenant_id")

        name = d.pop("name")

        status = TenantStatus(d.pop("status"))

        parent_tenant_id = present(d.pop("parent_tenant_id", UNSET))

        _default_commit_overage_policy = present(d.pop("default_commit_overage_policy", UNSET))
        default_commit_overage_policy: CommitOveragePolicy | Unset
        if isinstance(_default_commit_overage_policy, Unset):
            default_commit_overage_policy = UNSET
        else:
            default_commit_overage_policy = CommitOveragePolicy(_default_commit_overage_policy)

        default_reservation_ttl_ms = present(d.pop("default_reservation_ttl_ms", UNSET))

        max_reservation_ttl_ms = present(d.pop("max_reservation_ttl_ms", UNSET))

        max_reservation_extensions = present(d.pop("max_reservation_extensions", UNSET))

        _reservation_expiry_policy = present(d.pop("reservation_expiry_policy", UNSET))
        reservation_expiry_policy: TenantReservationExpiryPolicy | Unset
        if isinstance(_reservation_expiry_policy, Unset):
            reservation_expiry_policy = UNSET
        else:
            reservation_expiry_policy = TenantReservationExpiryPolicy(_reservation_expiry_policy)

        metadata = present(d.pop("metadata", UNSET))

        _created_at = present(d.pop("created_at", UNSET))
        created_at: datetime.datetime | Unset
        if isinstance(_created_at, Unset):
            created_at = UNSET
        else:
            created_at = datetime.datetime.fromisoformat(_created_at)

        _updated_at = present(d.pop("updated_at", UNSET))
        updated_at: datetime.datetime | Unset
        if isinstance(_updated_at, Unset):
            updated_at = UNSET
        else:
            updated_at = datetime.datetime.fromisoformat(_updated_at)

        _suspended_at = present(d.pop("suspended_at", UNSET))
        suspended_at: datetime.datetime | Unset
        if isinstance(_suspended_at, Unset):
            suspended_at = UNSET
        else:
            suspended_at = datetime.datetime.fromisoformat(_suspended_at)

        _closed_at = present(d.pop("closed_at", UNSET))
        closed_at: datetime.datetime | Unset
        if isinstance(_closed_at, Unset):
            closed_at = UNSET
        else:
            closed_at = datetime.datetime.fromisoformat(_closed_at)

        tenant = cls(
            tenant_id=tenant_id,
            name=name,
            status=status,
            parent_tenant_id=parent_tenant_id,
            default_commit_overage_policy=default_commit_overage_policy,
            default_reservation_ttl_ms=default_reservation_ttl_ms,
            max_reservation_ttl_ms=max_reservation_ttl_ms,
            max_reservation_extensions=max_reservation_extensions,
            reservation_expiry_policy=reservation_expiry_policy,
            metadata=metadata,
            created_at=created_at,
            updated_at=updated_at,
            suspended_at=suspended_at,
            closed_at=closed_at,
        )

        tenant.additional_properties = d
        return tenant

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
