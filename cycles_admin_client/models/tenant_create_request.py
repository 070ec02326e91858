from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.commit_overage_policy import CommitOveragePolicy
from ..models.tenant_create_request_reservation_expiry_policy import (
    TenantCreateRequestReservationExpiryPolicy,
)
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="TenantCreateRequest")


@_attrs_define
class TenantCreateRequest:
    """Request to create a tenant.

    Attributes:
        tenant_id (str): Permanent id of the tenant.
        name (str): Display name.
        parent_tenant_id (str | Unset): Id of the parent tenant; the server does not check that it exists.
        default_commit_overage_policy (CommitOveragePolicy | Unset): Overage policy of requests without one.
        default_reservation_ttl_ms (int | Unset): Lifetime of reservations whose request has none, in milliseconds.
        max_reservation_ttl_ms (int | Unset): Longest lifetime of a reservation, in milliseconds.
        max_reservation_extensions (int | Unset): Maximum number of extensions of a reservation.
        reservation_expiry_policy (TenantCreateRequestReservationExpiryPolicy | Unset): What happens to a reservation
            that expires.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    tenant_id: str
    name: str
    parent_tenant_id: str | Unset = UNSET
    default_commit_overage_policy: CommitOveragePolicy | Unset = UNSET
    default_reservation_ttl_ms: int | Unset = UNSET
    max_reservation_ttl_ms: int | Unset = UNSET
    max_reservation_extensions: int | Unset = UNSET
    reservation_expiry_policy: TenantCreateRequestReservationExpiryPolicy | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        tenant_id = self.tenant_id

        name = self.name

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
            reservation_expiry_policy = TenantCreateRequestReservationExpiryPolicy(
                self.reservation_expiry_policy
            ).value

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "tenant_id": tenant_id,
                "name": name,
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

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tenant_id = d.pop("tenant_id")

        name = d.pop("name")

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
        reservation_expiry_policy: TenantCreateRequestReservationExpiryPolicy | Unset
        if isinstance(_reservation_expiry_policy, Unset):
            reservation_expiry_policy = UNSET
        else:
            reservation_expiry_policy = TenantCreateRequestReservationExpiryPolicy(
                _reservation_expiry_policy
            )

        metadata = present(d.pop("metadata", UNSET))

        tenant_create_request = cls(
            tenant_id=tenant_id,
            name=name,
            parent_tenant_id=parent_tenant_id,
            default_commit_overage_policy=default_commit_overage_policy,
            default_reservation_ttl_ms=default_reservation_ttl_ms,
            max_reservation_ttl_ms=max_reservation_ttl_ms,
            max_reservation_extensions=max_reservation_extensions,
            reservation_expiry_policy=reservation_expiry_policy,
            metadata=metadata,
        )

        return tenant_create_request
