from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ActionQuotaState")


@_attrs_define
class ActionQuotaState:
    """One quota counter.

    Attributes:
        action_kind (str): Action kind of the counter, or __risk__.
        scope (str): Scope of the quota.
        window (str): Window of the quota, such as per_day_tumbling.
        used (int): Counted calls.
        limit (int): Maximum number of calls.
        risk_class (str | Unset): Risk class of the counter.
        scope_path (str | Unset): Full path of the scope.
        window_key (str | Unset): Current window.
        remaining (int | Unset): Calls that are left.
        policy_id (str | Unset): Policy of the quota.
        expires_at (datetime.datetime | Unset): When the counter is deleted.
        last_incremented_at (datetime.datetime | Unset): When the counter was last changed.
    """

    action_kind: str
    scope: str
    window: str
    used: int
    limit: int
    risk_class: str | Unset = UNSET
    scope_path: str | Unset = UNSET
    window_key: str | Unset = UNSET
    remaining: int | Unset = UNSET
    policy_id: str | Unset = UNSET
    expires_at: datetime.datetime | Unset = UNSET
    last_incremented_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        action_kind = self.action_kind

        scope = self.scope

        window = self.window

        used = self.used

        limit = self.limit

        risk_class = self.risk_class

        scope_path = self.scope_path

        window_key = self.window_key

        remaining = self.remaining

        policy_id = self.policy_id

        expires_at: str | Unset = UNSET
        if not isinstance(self.expires_at, Unset):
            expires_at = self.expires_at.isoformat()

        last_incremented_at: str | Unset = UNSET
        if not isinstance(self.last_incremented_at, Unset):
            last_incremented_at = self.last_incremented_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "action_kind": action_kind,
                "scope": scope,
                "window": window,
                "used": used,
                "limit": limit,
            }
        )
        if risk_class is not UNSET:
            field_dict["risk_class"] = risk_class
        if scope_path is not UNSET:
            field_dict["scope_path"] = scope_path
        if window_key is not UNSET:
            field_dict["window_key"] = window_key
        if remaining is not UNSET:
            field_dict["remaining"] = remaining
        if policy_id is not UNSET:
            field_dict["policy_id"] = policy_id
        if expires_at is not UNSET:
            field_dict["expires_at"] = expires_at
        if last_incremented_at is not UNSET:
            field_dict["last_incremented_at"] = last_incremented_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        action_kind = d.pop("action_kind")

        scope = d.pop("scope")

        window = d.pop("window")

        used = d.pop("used")

        limit = d.pop("limit")

        risk_class = present(d.pop("risk_class", UNSET))

        scope_path = present(d.pop("scope_path", UNSET))

        window_key = present(d.pop("window_key", UNSET))

        remaining = present(d.pop("remaining", UNSET))

        policy_id = present(d.pop("policy_id", UNSET))

        _expires_at = present(d.pop("expires_at", UNSET))
        expires_at: datetime.datetime | Unset
        if isinstance(_expires_at, Unset):
            expires_at = UNSET
        else:
            expires_at = datetime.datetime.fromisoformat(_expires_at)

        _last_incremented_at = present(d.pop("last_incremented_at", UNSET))
        last_incremented_at: datetime.datetime | Unset
        if isinstance(_last_incremented_at, Unset):
            last_incremented_at = UNSET
        else:
            last_incremented_at = datetime.datetime.fromisoformat(_last_incremented_at)

        action_quota_state = cls(
            action_kind=action_kind,
            scope=scope,
            window=window,
            used=used,
            limit=limit,
            risk_class=risk_class,
            scope_path=scope_path,
            window_key=window_key,
            remaining=remaining,
            policy_id=policy_id,
            expires_at=expires_at,
            last_incremented_at=last_incremented_at,
        )

        action_quota_state.additional_properties = d
        return action_quota_state

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
