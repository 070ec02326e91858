from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.error_code import ErrorCode
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.cycles_evidence_ref import CyclesEvidenceRef


T = TypeVar("T", bound="ErrorResponse")


@_attrs_define
class ErrorResponse:
    """Body of every error response.

    Attributes:
        error (ErrorCode): Machine-readable reason.
        message (str): Human-readable reason.
        request_id (str): The server's id of the request, for its logs.
        trace_id (str | Unset): W3C trace id of the request.
        details (Any | Unset): Further data, which depends on the reason.
        cycles_evidence (CyclesEvidenceRef | Unset): Signed record of this error response.
    """

    error: ErrorCode
    message: str
    request_id: str
    trace_id: str | Unset = UNSET
    details: Any | Unset = UNSET
    cycles_evidence: CyclesEvidenceRef | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        error = ErrorCode(self.error).value

        message = self.message

        request_id = self.request_id

        trace_id = self.trace_id

        details = self.details

        cycles_evidence: dict[str, Any] | Unset = UNSET
        if not isinstance(self.cycles_evidence, Unset):
            cycles_evidence = self.cycles_evidence.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "error": error,
                "message": message,
                "request_id": request_id,
            }
        )
        if trace_id is not UNSET:
            field_dict["trace_id"] = trace_id
        if details is not UNSET:
            field_dict["details"] = details
        if cycles_evidence is not UNSET:
            field_dict["cycles_evidence"] = cycles_evidence

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.cycles_evidence_ref import CyclesEvidenceRef  # noqa: PLC0415

        d = dict(src_dict)
        error = ErrorCode(d.pop("error"))

        message = d.pop("message")

        request_id = d.pop("request_id")

        trace_id = present(d.pop("trace_id", UNSET))

        details = present(d.pop("details", UNSET))

        _cycles_evidence = present(d.pop("cycles_evidence", UNSET))
        cycles_evidence: CyclesEvidenceRef | Unset
        if isinstance(_cycles_evidence, Unset):
            cycles_evidence = UNSET
        else:
            cycles_evidence = CyclesEvidenceRef.from_dict(_cycles_evidence)

        error_response = cls(
            error=error,
            message=message,
            request_id=request_id,
            trace_id=trace_id,
            details=details,
            cycles_evidence=cycles_evidence,
        )

        error_response.additional_properties = d
        return error_response

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
