from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.webhook_status import WebhookStatus
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="WebhookFilter")


@_attrs_define
class WebhookFilter:
    """Which subscriptions match; all members must match.

    Attributes:
        tenant_id (str | Unset): Owner of the subscriptions.
        status (WebhookStatus | Unset): State of the subscriptions.
        event_type (str | Unset): An event type of the subscriptions.
        search (str | Unset): Part of name or URL.
    """

    tenant_id: str | Unset = UNSET
    status: WebhookStatus | Unset = UNSET
    event_type: str | Unset = UNSET
    search: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        tenant_id = self.tenant_id

        status: str | Unset = UNSET
        if not isinstance(self.status, Unset):
            status = WebhookStatus(self.status).value

        event_type = self.event_type

        search = self.search

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if status is not UNSET:
            field_dict["status"] = status
        if event_type is not UNSET:
            field_dict["event_type"] = event_type
        if search is not UNSET:
            field_dict["search"] = search

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tenant_id = present(d.pop("tenant_id", UNSET))

        _status = present(d.pop("status", UNSET))
        status: WebhookStatus | Unset
        if isinstance(_status, Unset):
            status = UNSET
        else:
            status = WebhookStatus(_status)

        event_type = present(d.pop("event_type", UNSET))

        search = present(d.pop("search", UNSET))

        webhook_filter = cls(
            tenant_id=tenant_id,
            status=status,
            event_type=event_type,
            search=search,
        )

        return webhook_filter
