from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="WebhookTestResponse")


@_attrs_define
class WebhookTestResponse:
    """Result of a test delivery.

    Attributes:
        success (bool): Whether the receiver accepted the delivery.
        response_status (int | Unset): HTTP status of the receiver.
        response_time_ms (int | Unset): Duration of the delivery, in milliseconds.
        error_message (str | Unset): Why the delivery failed.
        event_id (str | Unset): Id of the test event.
    """

    success: bool
    response_status: int | Unset = UNSET
    response_time_ms: int | Unset = UNSET
    error_message: str | Unset = UNSET
    event_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        success = self.success

        response_status = self.response_status

        response_time_ms = self.response_time_ms

        error_message = self.error_message

        event_id = self.event_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "success": success,
            }
        )
        if response_status is not UNSET:
            field_dict["response_status"] = response_status
        if response_time_ms is not UNSET:
            field_dict["response_time_ms"] = response_time_ms
        if error_message is not UNSET:
            field_dict["error_message"] = error_message
        if event_id is not UNSET:
            field_dict["event_id"] = event_id

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        success = d.pop("success")

        response_status = present(d.pop("response_status", UNSET))

        response_time_ms = present(d.pop("response_time_ms", UNSET))

        error_message = present(d.pop("error_message", UNSET))

        event_id = present(d.pop("event_id", UNSET))

        webhook_test_response = cls(
            success=success,
            response_status=response_status,
            response_time_ms=response_time_ms,
            error_message=error_message,
            event_id=event_id,
        )

        webhook_test_response.additional_properties = d
        return webhook_test_response

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
