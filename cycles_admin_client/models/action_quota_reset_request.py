from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ActionQuotaResetRequest")


@_attrs_define
class ActionQuotaResetRequest:
    """Which quota counter to reset.

    Attributes:
        scope (str): Scope of the quota.
        window (str): Window of the quota.
        tenant_id (str | Unset): Tenant of the counter; required with the admin key.
        action_kind (str | Unset): Action kind of the counter.
        risk_class (str | Unset): Risk class of the counter.
        window_key (str | Unset): The window to reset.
        run_id (str | Unset): Run of a per_run counter.
        reason (str | Unset): Reason for the audit log.
    """

    scope: str
    window: str
    tenant_id: str | Unset = UNSET
    action_kind: str | Unset = UNSET
    risk_class: str | Unset = UNSET
    window_key: str | Unset = UNSET
    run_id: str | Unset = UNSET
    reason: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        scope = self.scope

        window = self.window

        tenant_id = self.tenant_id

        action_kind = self.action_kind

        risk_class = self.risk_class

        window_key = self.window_key

        run_id = self.run_id

        reason = self.reason

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "scope": scope,
                "window": window,
            }
        )
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if action_kind is not UNSET:
            field_dict["action_kind"] = action_kind
        if risk_class is not UNSET:
            field_dict["risk_class"] = risk_class
        if window_key is not UNSET:
            field_dict["window_key"] = window_key
        if run_id is not UNSET:
            field_dict["run_id"] = run_id
        if reason is not UNSET:
            field_dict["reason"] = reason

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        scope = d.pop("scope")

        window = d.pop("window")

        tenant_id = present(d.pop("tenant_id", UNSET))

        action_kind = present(d.pop("action_kind", UNSET))

        risk_class = present(d.pop("risk_class", UNSET))

        window_key = present(d.pop("window_key", UNSET))

        run_id = present(d.pop("run_id", UNSET))

        reason = present(d.pop("reason", UNSET))

        action_quota_reset_request = cls(
            scope=scope,
            window=window,
            tenant_id=tenant_id,
            action_kind=action_kind,
            risk_class=risk_class,
            window_key=window_key,
            run_id=run_id,
            reason=reason,
        )

        return action_quota_reset_request
