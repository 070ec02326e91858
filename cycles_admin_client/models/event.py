from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="Event")


@_attrs_define
class Event:
    """An event of the server.

    Attributes:
        event_id (str): Id of the event.
        event_type (str): Type of the event, such as budget.created.
        timestamp (datetime.datetime): When the event happened.
        category (str | Unset): Category of the event.
        tenant_id (str | Unset): Tenant of the event.
        scope (str | Unset): Scope of the event.
        actor (Any | Unset): Who caused the event.
        source (str | Unset): Server that made the event.
        data (Any | Unset): Data of the event.
        correlation_id (str | Unset): Id that related events share.
        request_id (str | Unset): Id of the request that caused the event.
        trace_id (str | Unset): Trace id of that request.
        metadata (Any | Unset): Free-form data.
    """

    event_id: str
    event_type: str
    timestamp: datetime.datetime
    category: str | Unset = UNSET
    tenant_id: str | Unset = UNSET
    scope: str | Unset = UNSET
    actor: Any | Unset = UNSET
    source: str | Unset = UNSET
    data: Any | Unset = UNSET
    correlation_id: str | Unset = UNSET
    request_id: str | Unset = UNSET
    trace_id: str | Unset = UNSET
    metadata: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        event_id = self.event_id

        event_type = self.event_type

        timestamp = self.timestamp.isoformat()

        category = self.category

        tenant_id = self.tenant_id

        scope = self.scope

        actor = self.actor

        source = self.source

        data = self.data

        correlation_id = self.correlation_id

        request_id = self.request_id

        trace_id = self.trace_id

        metadata = self.metadata

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "event_id": event_id,
                "event_type": event_type,
                "timestamp": timestamp,
            }
        )
        if category is not UNSET:
            field_dict["category"] = category
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if scope is not UNSET:
            field_dict["scope"] = scope
        if actor is not UNSET:
            field_dict["actor"] = actor
        if source is not UNSET:
            field_dict["source"] = source
        if data is not UNSET:
            field_dict["data"] = data
        if correlation_id is not UNSET:
            field_dict["correlation_id"] = correlation_id
        if request_id is not UNSET:
            field_dict["request_id"] = request_id
        if trace_id is not UNSET:
            field_dict["trace_id"] = trace_id
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        event_id = d.pop("event_id")

        event_type = d.pop("event_type")

        timestamp = datetime.datetime.fromisoformat(d.pop("timestamp"))

        category = present(d.pop("category", UNSET))

        tenant_id = present(d.pop("tenant_id", UNSET))

        scope = present(d.pop("scope", UNSET))

        actor = present(d.pop("actor", UNSET))

        source = present(d.pop("source", UNSET))

        data = present(d.pop("data", UNSET))

        correlation_id = present(d.pop("correlation_id", UNSET))

        request_id = present(d.pop("request_id", UNSET))

        trace_id = present(d.pop("trace_id", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        event = cls(
            event_id=event_id,
            event_type=event_type,
            timestamp=timestamp,
            category=category,
            tenant_id=tenant_id,
            scope=scope,
            actor=actor,
            source=source,
            data=data,
            correlation_id=correlation_id,
            request_id=request_id,
            trace_id=trace_id,
            metadata=metadata,
        )

        event.additional_properties = d
        return event

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
