from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.bulk_row import BulkRow


T = TypeVar("T", bound="BulkActionResponse")


@_attrs_define
class BulkActionResponse:
    """Result of a bulk action; a row may fail although the status is 200.

    Attributes:
        action (str): The action.
        total_matched (int): Number of rows that matched.
        succeeded (list[BulkRow]): Rows that were changed.
        failed (list[BulkRow]): Rows that were not changed because of an error.
        skipped (list[BulkRow]): Rows that needed no change.
        idempotency_key (str | Unset): Key of the request.
    """

    action: str
    total_matched: int
    succeeded: list[BulkRow]
    failed: list[BulkRow]
    skipped: list[BulkRow]
    idempotency_key: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        action = self.action

        total_matched = self.total_matched

        succeeded = []
        for succeeded_item_data in self.succeeded:
            succeeded_item = succeeded_item_data.to_dict()
            succeeded.append(succeeded_item)

        failed = []
        for failed_item_data in self.failed:
            failed_item = failed_item_data.to_dict()
            failed.append(failed_item)

        skipped = []
        for skipped_item_data in self.skipped:
            skipped_item = skipped_item_data.to_dict()
            skipped.append(skipped_item)

        idempotency_key = self.idempotency_key

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "action": action,
                "total_matched": total_matched,
                "succeeded": succeeded,
                "failed": failed,
                "skipped": skipped,
            }
        )
        if idempotency_key is not UNSET:
            field_dict["idempotency_key"] = idempotency_key

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.bulk_row import BulkRow  # noqa: PLC0415

        d = dict(src_dict)
        action = d.pop("action")

        total_matched = d.pop("total_matched")

        succeeded = []
        _succeeded = d.pop("succeeded")
        for succeeded_item_data in _succeeded:
            succeeded_item = BulkRow.from_dict(succeeded_item_data)

            succeeded.append(succeeded_item)

        failed = []
        _failed = d.pop("failed")
        for failed_item_data in _failed:
            failed_item = BulkRow.from_dict(failed_item_data)

            failed.append(failed_item)

        skipped = []
        _skipped = d.pop("skipped")
        for skipped_item_data in _skipped:
            skipped_item = BulkRow.from_dict(skipped_item_data)

            skipped.append(skipped_item)

        idempotency_key = present(d.pop("idempotency_key", UNSET))

        bulk_action_response = cls(
            action=action,
            total_matched=total_matched,
            succeeded=succeeded,
            failed=failed,
            skipped=skipped,
            idempotency_key=idempotency_key,
        )

        bulk_action_response.additional_properties = d
        return bulk_action_response

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
