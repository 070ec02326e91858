from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.webhook_status import WebhookStatus
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.retry_policy import RetryPolicy


T = TypeVar("T", bound="WebhookSubscription")


@_attrs_define
class WebhookSubscription:
    """A webhook subscription.

    Attributes:
        subscription_id (str): Id of the subscription.
        url (str): Address that receives events.
        event_types (list[str]): Types of events to deliver.
        status (WebhookStatus): State of the subscription.
        tenant_id (str | Unset): Owner of the subscription.
        name (str | Unset): Display name.
        description (str | Unset): Purpose of the subscription.
        event_categories (list[str] | Unset): Categories of events to deliver.
        scope_filter (str | Unset): Scopes whose events are delivered.
        thresholds (Any | Unset): Thresholds of events.
        headers (Any | Unset): Further headers of a delivery; later responses mask their values.
        retry_policy (RetryPolicy | Unset): How a failed delivery is repeated.
        disable_after_failures (int | Unset): Failed deliveries after which the subscription is disabled.
        metadata (Any | Unset): Free-form strings that are stored with the object.
        consecutive_failures (int | Unset): Failed deliveries since the last success.
        created_at (datetime.datetime | Unset): When the subscription was created.
        updated_at (datetime.datetime | Unset): When the subscription was last changed.
        last_triggered_at (datetime.datetime | Unset): When an event was last delivered.
        last_success_at (datetime.datetime | Unset): When a delivery last succeeded.
        last_failure_at (datetime.datetime | Unset): When a delivery last failed.
    """

    subscription_id: str
    url: str
    event_types: list[str]
    status: WebhookStatus
    tenant_id: str | Unset = UNSET
    name: str | Unset = UNSET
    description: str | Unset = UNSET
    event_categories: list[str] | Unset = UNSET
    scope_filter: str | Unset = UNSET
    thresholds: Any | Unset = UNSET
    headers: Any | Unset = UNSET
    retry_policy: RetryPolicy | Unset = UNSET
    disable_after_failures: int | Unset = UNSET
    metadata: Any | Unset = UNSET
    consecutive_failures: int | Unset = UNSET
    created_at: datetime.datetime | Unset = UNSET
    updated_at: datetime.datetime | Unset = UNSET
    last_triggered_at: datetime.datetime | Unset = UNSET
    last_success_at: datetime.datetime | Unset = UNSET
    last_failure_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        subscription_id = self.subscription_id

        url = self.url

        event_types = self.event_types

        status = WebhookStatus(self.status).value

        tenant_id = self.tenant_id

        name = self.name

        description = self.description

        event_categories: list[str] | Unset = UNSET
        if not isinstance(self.event_categories, Unset):
            event_categories = self.event_categories

        scope_filter = self.scope_filter

        thresholds = self.thresholds

        headers = self.headers

        retry_policy: dict[str, Any] | Unset = UNSET
        if not isinstance(self.retry_policy, Unset):
            retry_policy = self.retry_policy.to_dict()

        disable_after_failures = self.disable_after_failures

        metadata = self.metadata

        consecutive_failures = self.consecutive_failures

        created_at: str | Unset = UNSET
        if not isinstance(self.created_at, Unset):
            created_at = self.created_at.isoformat()

        updated_at: str | Unset = UNSET
        if not isinstance(self.updated_at, Unset):
            updated_at = self.updated_at.isoformat()

        last_triggered_at: str | Unset = UNSET
        if not isinstance(self.last_triggered_at, Unset):
            last_triggered_at = self.last_triggered_at.isoformat()

        last_success_at: str | Unset = UNSET
        if not isinstance(self.last_success_at, Unset):
            last_success_at = self.last_success_at.isoformat()

        last_failure_at: str | Unset = UNSET
        if not isinstance(self.last_failure_at, Unset):
            last_failure_at = self.last_failure_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "subscription_id": subscription_id,
                "url": url,
                "event_types": event_types,
                "status": status,
            }
        )
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if name is not UNSET:
            field_dict["name"] = name
        if description is not UNSET:
            field_dict["description"] = description
        if event_categories is not UNSET:
            field_dict["event_categories"] = event_categories
        if scope_filter is not UNSET:
            field_dict["scope_filter"] = scope_filter
        if thresholds is not UNSET:
            field_dict["thresholds"] = thresholds
        if headers is not UNSET:
            field_dict["headers"] = headers
        if retry_policy is not UNSET:
            field_dict["retry_policy"] = retry_policy
        if disable_after_failures is not UNSET:
            field_dict["disable_after_failures"] = disable_after_failures
        if metadata is not UNSET:
            field_dict["metadata"] = metadata
        if consecutive_failures is not UNSET:
            field_dict["consecutive_failures"] = consecutive_failures
        if created_at is not UNSET:
            field_dict["created_at"] = created_at
        if updated_at is not UNSET:
            field_dict["updated_at"] = updated_at
        if last_triggered_at is not UNSET:
            field_dict["last_triggered_at"] = last_triggered_at
        if last_success_at is not UNSET:
            field_dict["last_success_at"] = last_success_at
        if last_failure_at is not UNSET:
            field_dict["last_failure_at"] = last_failure_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.retry_policy import RetryPolicy  # noqa: PLC0415

        d = dict(src_dict)
        subscription_id = d.pop("subscription_id")

        url = d.pop("url")

        event_types = cast(list[str], d.pop("event_types"))

        status = WebhookStatus(d.pop("status"))

        tenant_id = present(d.pop("tenant_id", UNSET))

        name = present(d.pop("name", UNSET))

        description = present(d.pop("description", UNSET))

        event_categories = cast(list[str], present(d.pop("event_categories", UNSET)))

        scope_filter = present(d.pop("scope_filter", UNSET))

        thresholds = present(d.pop("thresholds", UNSET))

        headers = present(d.pop("headers", UNSET))

        _retry_policy = present(d.pop("retry_policy", UNSET))
        retry_policy: RetryPolicy | Unset
        if isinstance(_retry_policy, Unset):
            retry_policy = UNSET
        else:
            retry_policy = RetryPolicy.from_dict(_retry_policy)

        disable_after_failures = present(d.pop("disable_after_failures", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        consecutive_failures = present(d.pop("consecutive_failures", UNSET))

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

        _last_triggered_at = present(d.pop("last_triggered_at", UNSET))
        last_triggered_at: datetime.datetime | Unset
        if isinstance(_last_triggered_at, Unset):
            last_triggered_at = UNSET
        else:
            last_triggered_at = datetime.datetime.fromisoformat(_last_triggered_at)

        _last_success_at = present(d.pop("last_success_at", UNSET))
        last_success_at: datetime.datetime | Unset
        if isinstance(_last_success_at, Unset):
            last_success_at = UNSET
        else:
            last_success_at = datetime.datetime.fromisoformat(_last_success_at)

        _last_failure_at = present(d.pop("last_failure_at", UNSET))
        last_failure_at: datetime.datetime | Unset
        if isinstance(_last_failure_at, Unset):
            last_failure_at = UNSET
        else:
            last_failure_at = datetime.datetime.fromisoformat(_last_failure_at)

        webhook_subscription = cls(
            subscription_id=subscription_id,
            url=url,
            event_types=event_types,
            status=status,
            tenant_id=tenant_id,
            name=name,
            description=description,
            event_categories=event_categories,
            scope_filter=scope_filter,
            thresholds=thresholds,
            headers=headers,
            retry_policy=retry_policy,
            disable_after_failures=disable_after_failures,
            metadata=metadata,
            consecutive_failures=consecutive_failures,
            created_at=created_at,
            updated_at=updated_at,
            last_triggered_at=last_triggered_at,
            last_success_at=last_success_at,
            last_failure_at=last_failure_at,
        )

        webhook_subscription.additional_properties = d
        return webhook_subscription

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
