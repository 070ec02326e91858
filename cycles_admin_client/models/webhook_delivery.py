from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="WebhookDelivery")


@_attrs_define
class WebhookDelivery:
    """One delivery of an event.

    Attributes:
        delivery_id (str): Id of the delivery.
        subscription_id (str | Unset): Id of the subscription.
        event_id (str | Unset): Id of the event.
        event_type (str | Unset): Type of the event.
        status (str | Unset): State of the delivery.
        attempts (int | Unset): Number of attempts.
        response_status (int | Unset): HTTP status of the receiver.
        error_message (str | Unset): Why the delivery failed.
        attempted_at (datetime.datetime | Unset): When the last attempt was made.
        completed_at (datetime.datetime | Unset): When the delivery ended.
        next_retry_at (datetime.datetime | Unset): When the next attempt is due.
    """

    delivery_id: str
    subscription_id: str | Unset = UNSET
    event_id: str | Unset = UNSET
    event_type: str | Unset = UNSET
    status: str | Unset = UNSET
    attempts: int | Unset = UNSET
    response_status: int | Unset = UNSET
    error_message: str | Unset = UNSET
    attempted_at: datetime.datetime | Unset = UNSET
    completed_at: datetime.datetime | Unset = UNSET
    next_retry_at: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        delivery_id = self.delivery_id

        subscription_id = self.subscription_id

        event_id = self.event_id

        event_type = self.event_type

        status = self.status

        attempts = self.attempts

        response_status = self.response_status

        error_message = self.error_message

        attempted_at: str | Unset = UNSET
        if not isinstance(self.attempted_at, Unset):
            attempted_at = self.attempted_at.isoformat()

        completed_at: str | Unset = UNSET
        if not isinstance(self.completed_at, Unset):
            completed_at = self.completed_at.isoformat()

        next_retry_at: str | Unset = UNSET
        if not isinstance(self.next_retry_at, Unset):
            next_retry_at = self.next_retry_at.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "delivery_id": delivery_id,
            }
        )
        if subscription_id is not UNSET:
            field_dict["subscription_id"] = subscription_id
        if event_id is not UNSET:
            field_dict["event_id"] = event_id
        if event_type is not UNSET:
            field_dict["event_type"] = event_type
        if status is not UNSET:
            field_dict["status"] = status
        if attempts is not UNSET:
            field_dict["attempts"] = attempts
        if response_status is not UNSET:
            field_dict["response_status"] = response_status
        if error_message is not UNSET:
            field_dict["error_message"] = error_message
        if attempted_at is not UNSET:
            field_dict["attempted_at"] = attempted_at
        if completed_at is not UNSET:
            field_dict["completed_at"] = completed_at
        if next_retry_at is not UNSET:
            field_dict["next_retry_at"] = next_retry_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        delivery_id = d.pop("delivery_id")

        subscription_id = present(d.pop("subscription_id", UNSET))

        event_id = present(d.pop("event_id", UNSET))

        event_type = present(d.pop("event_type", UNSET))

        status = present(d.pop("status", UNSET))

        attempts = present(d.pop("attempts", UNSET))

        response_status = present(d.pop("response_status", UNSET))

        error_message = present(d.pop("error_message", UNSET))

        _attempted_at = present(d.pop("attempted_at", UNSET))
        attempted_at: datetime.datetime | Unset
        if isinstance(_attempted_at, Unset):
            attempted_at = UNSET
        else:
            attempted_at = datetime.datetime.fromisoformat(_attempted_at)

        _completed_at = present(d.pop("completed_at", UNSET))
        completed_at: datetime.datetime | Unset
        if isinstance(_completed_at, Unset):
            completed_at = UNSET
        else:
            completed_at = datetime.datetime.fromisoformat(_completed_at)

        _next_retry_at = present(d.pop("next_retry_at", UNSET))
        next_retry_at: datetime.datetime | Unset
        if isinstance(_next_retry_at, Unset):
            next_retry_at = UNSET
        else:
            next_retry_at = datetime.datetime.fromisoformat(_next_retry_at)

        webhook_delivery = cls(
            delivery_id=delivery_id,
            subscription_id=subscription_id,
            event_id=event_id,
            event_type=event_type,
            status=status,
            attempts=attempts,
            response_status=response_status,
            error_message=error_message,
            attempted_at=attempted_at,
            completed_at=completed_at,
            next_retry_at=next_retry_at,
        )

        webhook_delivery.additional_properties = d
        return webhook_delivery

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
