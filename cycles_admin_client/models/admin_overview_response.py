from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="AdminOverviewResponse")


@_attrs_define
class AdminOverviewResponse:
    """Counts and lists for an operator's overview.

    Attributes:
        as_of (datetime.datetime | Unset): When the overview was made.
        event_window_seconds (int | Unset): Length of the event counts, in seconds.
        tenant_counts (Any | Unset): Numbers of tenants.
        budget_counts (Any | Unset): Numbers of budgets.
        webhook_counts (Any | Unset): Numbers of webhooks.
        event_counts (Any | Unset): Numbers of events.
        over_limit_scopes (list[Any] | Unset): Scopes above their overdraft limit.
        debt_scopes (list[Any] | Unset): Scopes with debt.
        failing_webhooks (list[Any] | Unset): Webhooks with failed deliveries.
        recent_denials (list[Any] | Unset): Recent denials.
        recent_expiries (list[Any] | Unset): Recently expired reservations.
    """

    as_of: datetime.datetime | Unset = UNSET
    event_window_seconds: int | Unset = UNSET
    tenant_counts: Any | Unset = UNSET
    budget_counts: Any | Unset = UNSET
    webhook_counts: Any | Unset = UNSET
    event_counts: Any | Unset = UNSET
    over_limit_scopes: list[Any] | Unset = UNSET
    debt_scopes: list[Any] | Unset = UNSET
    failing_webhooks: list[Any] | Unset = UNSET
    recent_denials: list[Any] | Unset = UNSET
    recent_expiries: list[Any] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        as_of: str | Unset = UNSET
        if not isinstance(self.as_of, Unset):
            as_of = self.as_of.isoformat()

        event_window_seconds = self.event_window_seconds

        tenant_counts = self.tenant_counts

        budget_counts = self.budget_counts

        webhook_counts = self.webhook_counts

        event_counts = self.event_counts

        over_limit_scopes: list[Any] | Unset = UNSET
        if not isinstance(self.over_limit_scopes, Unset):
            over_limit_scopes = self.over_limit_scopes

        debt_scopes: list[Any] | Unset = UNSET
        if not isinstance(self.debt_scopes, Unset):
            debt_scopes = self.debt_scopes

        failing_webhooks: list[Any] | Unset = UNSET
        if not isinstance(self.failing_webhooks, Unset):
            failing_webhooks = self.failing_webhooks

        recent_denials: list[Any] | Unset = UNSET
        if not isinstance(self.recent_denials, Unset):
            recent_denials = self.recent_denials

        recent_expiries: list[Any] | Unset = UNSET
        if not isinstance(self.recent_expiries, Unset):
            recent_expiries = self.recent_expiries

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if as_of is not UNSET:
            field_dict["as_of"] = as_of
        if event_window_seconds is not UNSET:
            field_dict["event_window_seconds"] = event_window_seconds
        if tenant_counts is not UNSET:
            field_dict["tenant_counts"] = tenant_counts
        if budget_counts is not UNSET:
            field_dict["budget_counts"] = budget_counts
        if webhook_counts is not UNSET:
            field_dict["webhook_counts"] = webhook_counts
        if event_counts is not UNSET:
            field_dict["event_counts"] = event_counts
        if over_limit_scopes is not UNSET:
            field_dict["over_limit_scopes"] = over_limit_scopes
        if debt_scopes is not UNSET:
            field_dict["debt_scopes"] = debt_scopes
        if failing_webhooks is not UNSET:
            field_dict["failing_webhooks"] = failing_webhooks
        if recent_denials is not UNSET:
            field_dict["recent_denials"] = recent_denials
        if recent_expiries is not UNSET:
            field_dict["recent_expiries"] = recent_expiries

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        _as_of = present(d.pop("as_of", UNSET))
        as_of: datetime.datetime | Unset
        if isinstance(_as_of, Unset):
            as_of = UNSET
        else:
            as_of = datetime.datetime.fromisoformat(_as_of)

        event_window_seconds = present(d.pop("event_window_seconds", UNSET))

        tenant_counts = present(d.pop("tenant_counts", UNSET))

        budget_counts = present(d.pop("budget_counts", UNSET))

        webhook_counts = present(d.pop("webhook_counts", UNSET))

        event_counts = present(d.pop("event_counts", UNSET))

        over_limit_scopes = cast(list[Any], present(d.pop("over_limit_scopes", UNSET)))

        debt_scopes = cast(list[Any], present(d.pop("debt_scopes", UNSET)))

        failing_webhooks = cast(list[Any], present(d.pop("failing_webhooks", UNSET)))

        recent_denials = cast(list[Any], present(d.pop("recent_denials", UNSET)))

        recent_expiries = cast(list[Any], present(d.pop("recent_expiries", UNSET)))

        admin_overview_response = cls(
            as_of=as_of,
            event_window_seconds=event_window_seconds,
            tenant_counts=tenant_counts,
            budget_counts=budget_counts,
            webhook_counts=webhook_counts,
            event_counts=event_counts,
            over_limit_scopes=over_limit_scopes,
            debt_scopes=debt_scopes,
            failing_webhooks=failing_webhooks,
            recent_denials=recent_denials,
            recent_expiries=recent_expiries,
        )

        admin_overview_response.additional_properties = d
        return admin_overview_response

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
