from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="AuditLogEntry")


@_attrs_define
class AuditLogEntry:
    """One call of an admin operation.

    Attributes:
        log_id (str): Id of the entry.
        timestamp (datetime.datetime): When the call was made.
        tenant_id (str): Tenant of the call, or __admin__, or __unauth__.
        operation (str): Operation id.
        status (int): HTTP status of the response.
        key_id (str | Unset): API key of the call.
        user_agent (str | Unset): Client of the call.
        source_ip (str | Unset): Address of the caller.
        resource_type (str | Unset): Kind of the changed object.
        resource_id (str | Unset): Id of the changed object.
        request_id (str | Unset): Id of the request.
        trace_id (str | Unset): Trace id of the request.
        error_code (str | Unset): Error code of the response.
        metadata (Any | Unset): Further data of the call.
    """

    log_id: str
    timestamp: datetime.datetime
    tenant_id: str
    operation: str
    status: int
    key_id: str | Unset = UNSET
    user_agent: str | Unset = UNSET
    source_ip: str | Unset = UNSET
    resource_type: str | Unset = UNSET
    resource_id: str | Unset = UNSET
    request_id: str | Unset = UNSET
    trace_id: str | Unset = UNSET
    error_code: str | Unset = UNSET
    metadata: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        log_id = self.log_id

        timestamp = self.timestamp.isoformat()

        tenant_id = self.tenant_id

        operation = self.operation

        status = self.status

        key_id = self.key_id

        user_agent = self.user_agent

        source_ip = self.source_ip

        resource_type = self.resource_type

        resource_id = self.resource_id

        request_id = self.request_id

        trace_id = self.trace_id

        error_code = self.error_code

        metadata = self.metadata

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "log_id": log_id,
                "timestamp": timestamp,
                "tenant_id": tenant_id,
                "operation": operation,
                "status": status,
            }
        )
        if key_id is not UNSET:
            field_dict["key_id"] = key_id
        if user_agent is not UNSET:
            field_dict["user_agent"] = user_agent
        if source_ip is not UNSET:
            field_dict["source_ip"] = source_ip
        if resource_type is not UNSET:
            field_dict["resource_type"] = resource_type
        if resource_id is not UNSET:
            field_dict["resource_id"] = resource_id
        if request_id is not UNSET:
            field_dict["request_id"] = request_id
        if trace_id is not UNSET:
            field_dict["trace_id"] = trace_id
        if error_code is not UNSET:
            field_dict["error_code"] = error_code
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        log_id = d.pop("log_id")

        timestamp = datetime.datetime.fromisoformat(d.pop("timestamp"))

        tenant_id = d.pop("tenant_id")

        operation = d.pop("operation")

        status = d.pop("status")

        key_id = present(d.pop("key_id", UNSET))

        user_agent = present(d.pop("user_agent", UNSET))

        source_ip = present(d.pop("source_ip", UNSET))

        resource_type = present(d.pop("resource_type", UNSET))

        resource_id = present(d.pop("resource_id", UNSET))

        request_id = present(d.pop("request_id", UNSET))

        trace_id = present(d.pop("trace_id", UNSET))

        error_code = present(d.pop("error_code", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        audit_log_entry = cls(
            log_id=log_id,
            timestamp=timestamp,
            tenant_id=tenant_id,
            operation=operation,
            status=status,
            key_id=key_id,
            user_agent=user_agent,
            source_ip=source_ip,
            resource_type=resource_type,
            resource_id=resource_id,
            request_id=request_id,
            trace_id=trace_id,
            error_code=error_code,
            metadata=metadata,
        )

        audit_log_entry.additional_properties = d
        return audit_log_entry

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
