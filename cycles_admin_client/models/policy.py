from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.commit_overage_policy import CommitOveragePolicy
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="Policy")


@_attrs_define
class Policy:
    """A policy.

    Attributes:
        policy_id (str): Id of the policy.
        scope_pattern (str): Scopes that the policy applies to.
        status (str): State of the policy.
        tenant_id (str | Unset): Owner of the policy.
        name (str | Unset): Display name.
        description (str | Unset): Purpose of the policy.
        priority (int | Unset): Policies with a higher priority are used first.
        caps (Any | Unset): Limits of the policy; the runtime server does not apply them.
        commit_overage_policy (CommitOveragePolicy | Unset): Overage policy.
        reservation_ttl_override (Any | Unset): Lifetimes that replace those of the tenant.
        rate_limits (Any | Unset): Request limits.
        effective_from (datetime.datetime | Unset): Start of the policy.
        effective_until (datetime.datetime | Unset): End of the policy.
        created_at (datetime.datetime | Unset): When the policy was created.
        updated_at (datetime.datetime | Unset): When the policy was last changed.
    """

    policy_id: str
    scope_pattern: str
    status: str
    tenant_id: str | Unset = UNSET
    name: str | Unset = UNSET
    description: str | Unset = UNSET
    priority: int | Unset = UNSET
    caps: Any | Unset = UNSET
    commit_overage_policy: CommitOveragePolicy | Unset = UNSET
    reservation_ttl_override: Any | Unset = UNSET
    rate_limits: Any | Unset = UNSET
    effective_from: datetime.datetime | Unset = UNSET
    effective_until: datetime.datetime | Unset = UNSET
    created_at: datetime.datetime | Unset = UNSET
    updated_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        policy_id = self.policy_id

        scope_pattern = self.scope_pattern

        status = self.status

        tenant_id = self.tenant_id

        name = self.name

        description = self.description

        priority = self.priority

        caps = self.caps

        commit_overage_policy: str | Unset = UNSET
        if not isinstance(self.commit_overage_policy, Unset):
            commit_overage_policy = CommitOveragePolicy(self.commit_overage_policy).value

        reservation_ttl_override = self.reservation_ttl_override

        rate_limits = self.rate_limits

        effective_from: str | Unset = UNSET
        if not isinstance(self.effective_from, Unset):
            effective_from = self.effective_from.isoformat()

        effective_until: str | Unset = UNSET
        if not isinstance(self.effective_until, Unset):
            effective_until = self.effective_until.isoformat()

        created_at: str | Unset = UNSET
        if not isinstance(self.created_at, Unset):
            created_at = self.created_at.isoformat()

        updated_at: str | Unset = UNSET
        if not isinstance(self.updated_at, Unset):
            updated_at = self.updated_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "policy_id": policy_id,
                "scope_pattern": scope_pattern,
                "status": status,
            }
        )
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if name is not UNSET:
            field_dict["name"] = name
        if description is not UNSET:
            field_dict["description"] = description
        if priority is not UNSET:
            field_dict["priority"] = priority
        if caps is not UNSET:
            field_dict["caps"] = caps
        if commit_overage_policy is not UNSET:
            field_dict["commit_overage_policy"] = commit_overage_policy
        if reservation_ttl_override is not UNSET:
            field_dict["reservation_ttl_override"] = reservation_ttl_override
        if rate_limits is not UNSET:
            field_dict["rate_limits"] = rate_limits
        if effective_from is not UNSET:
            field_dict["effective_from"] = effective_from
        if effective_until is not UNSET:
            field_dict["effective_until"] = effective_until
        if created_at is not UNSET:
            field_dict["created_at"] = created_at
        if updated_at is not UNSET:
            field_dict["updated_at"] = updated_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        policy_id = d.pop("policy_id")

        scope_pattern = d.pop("scope_pattern")

        status = d.pop("status")

        tenant_id = present(d.pop("tenant_id", UNSET))

        name = present(d.pop("name", UNSET))

        description = present(d.pop("description", UNSET))

        priority = present(d.pop("priority", UNSET))

        caps = present(d.pop("caps", UNSET))

        _commit_overage_policy = present(d.pop("commit_overage_policy", UNSET))
        commit_overage_policy: CommitOveragePolicy | Unset
        if isinstance(_commit_overage_policy, Unset):
            commit_overage_policy = UNSET
        else:
            commit_overage_policy = CommitOveragePolicy(_commit_overage_policy)

        reservation_ttl_override = present(d.pop("reservation_ttl_override", UNSET))

        rate_limits = present(d.pop("rate_limits", UNSET))

        _effective_from = present(d.pop("effective_from", UNSET))
        effective_from: datetime.datetime | Unset
        if isinstance(_effective_from, Unset):
            effective_from = UNSET
        else:
            effective_from = datetime.datetime.fromisoformat(_effective_from)

        _effective_until = present(d.pop("effective_until", UNSET))
        effective_until: datetime.datetime | Unset
        if isinstance(_effective_until, Unset):
            effective_until = UNSET
        else:
            effective_until = datetime.datetime.fromisoformat(_effective_until)

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

        policy = cls(
            policy_id=policy_id,
            scope_pattern=scope_pattern,
            status=status,
            tenant_id=tenant_id,
            name=name,
            description=description,
            priority=priority,
            caps=caps,
            commit_overage_policy=commit_overage_policy,
            reservation_ttl_override=reservation_ttl_override,
            rate_limits=rate_limits,
            effective_from=effective_from,
            effective_until=effective_until,
            created_at=created_at,
            updated_at=updated_at,
        )

        policy.additional_properties = d
        return policy

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
