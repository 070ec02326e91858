from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.retry_policy import RetryPolicy


T = TypeVar("T", bound="WebhookCreateRequest")


@_attrs_define
class WebhookCreateRequest:
    """Request to create a webhook subscription.

    Attributes:
        url (str): Address that receives events.
        event_types (list[str]): Types of events to deliver.
        name (str | Unset): Display name.
        description (str | Unset): Purpose of the subscription.
        event_categories (list[str] | Unset): Categories of events to deliver.
        scope_filter (str | Unset): Scopes whose events are delivered.
        thresholds (Any | Unset): Thresholds of events.
        headers (Any | Unset): Further headers of a delivery; later responses mask their values.
        retry_policy (RetryPolicy | Unset): How a failed delivery is repeated.
        disable_after_failures (int | Unset): Failed deliveries after which the subscription is disabled.
        metadata (Any | Unset): Free-form strings that are stored with the object.
        signing_secret (str | Unset): Secret for signatures; the server makes one if it is absent.
    """

    url: str
    event_types: list[str]
    name: str | Unset = UNSET
    description: str | Unset = UNSET
    event_categories: list[str] | Unset = UNSET
    scope_filter: str | Unset = UNSET
    thresholds: Any | Unset = UNSET
    headers: Any | Unset = UNSET
    retry_policy: RetryPolicy | Unset = UNSET
    disable_after_failures: int | Unset = UNSET
    metadata: Any | Unset = UNSET
    signing_secret: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        url = self.url

        event_types = self.event_types

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

        signing_secret = self.signing_secret

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "url": url,
                "event_types": event_types,
            }
        )
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
        if signing_secret is not UNSET:
            field_dict["signing_secret"] = signing_secret

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.retry_policy import RetryPolicy  # noqa: PLC0415

        d = dict(src_dict)
        url = d.pop("url")

        event_types = cast(list[str], d.pop("event_types"))

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

        signing_secret = present(d.pop("signing_secret", UNSET))

        webhook_create_request = cls(
            url=url,
            event_types=event_types,
            name=name,
            description=description,
            event_categories=event_categories,
            scope_filter=scope_filter,
            thresholds=thresholds,
            headers=headers,
            retry_policy=retry_policy,
            disable_after_failures=disable_after_failures,
            metadata=metadata,
            signing_secret=signing_secret,
        )

        return webhook_create_request
