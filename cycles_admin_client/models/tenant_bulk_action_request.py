from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.tenant_bulk_action_request_action import TenantBulkActionRequestAction
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.tenant_filter import TenantFilter


T = TypeVar("T", bound="TenantBulkActionRequest")


@_attrs_define
class TenantBulkActionRequest:
    """Request to change the state of several tenants.

    Attributes:
        filter_ (TenantFilter): Which rows the action applies to.
        action (TenantBulkActionRequestAction): What happens to the tenants.
        idempotency_key (str): Key that makes a repetition of this request safe.
        expected_count (int | Unset): Number of rows that must match; otherwise nothing is changed.
    """

    filter_: TenantFilter
    action: TenantBulkActionRequestAction
    idempotency_key: str
    expected_count: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        filter_ = self.filter_.to_dict()

        action = TenantBulkActionRequestAction(self.action).value

        idempotency_key = self.idempotency_key

        expected_count = self.expected_count

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "filter": filter_,
                "action": action,
                "idempotency_key": idempotency_key,
            }
        )
        if expected_count is not UNSET:
            field_dict["expected_count"] = expected_count

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.tenant_filter import TenantFilter  # noqa: PLC0415

        d = dict(src_dict)
        filter_ = TenantFilter.from_dict(d.pop("filter"))

        action = TenantBulkActionRequestAction(d.pop("action"))

        idempotency_key = d.pop("idempotency_key")

        expected_count = present(d.pop("expected_count", UNSET))

        tenant_bulk_action_request = cls(
            filter_=filter_,
            action=action,
            idempotency_key=idempotency_key,
            expected_count=expected_count,
        )

        return tenant_bulk_action_request
