from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.funding_operation import FundingOperation
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.signed_amount import SignedAmount


T = TypeVar("T", bound="BudgetFundingResponse")


@_attrs_define
class BudgetFundingResponse:
    """Result of funding: the budget before and after.

    Attributes:
        operation (FundingOperation): The operation.
        previous_allocated (SignedAmount): Allocated amount before the operation.
        new_allocated (SignedAmount): Allocated amount after the operation.
        previous_remaining (SignedAmount): Remaining amount before the operation.
        new_remaining (SignedAmount): Remaining amount after the operation.
        previous_debt (SignedAmount | Unset): Debt before the operation.
        new_debt (SignedAmount | Unset): Debt after the operation.
        previous_spent (SignedAmount | Unset): Spent amount before the operation.
        new_spent (SignedAmount | Unset): Spent amount after the operation.
        timestamp (datetime.datetime | Unset): When the response was made.
    """

    operation: FundingOperation
    previous_allocated: SignedAmount
    new_allocated: SignedAmount
    previous_remaining: SignedAmount
    new_remaining: SignedAmount
    previous_debt: SignedAmount | Unset = UNSET
    new_debt: SignedAmount | Unset = UNSET
    previous_spent: SignedAmount | Unset = UNSET
    new_spent: SignedAmount | Unset = UNSET
    timestamp: datetime.datetime | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        operation = FundingOperation(self.operation).value

        previous_allocated = self.previous_allocated.to_dict()

        new_allocated = self.new_allocated.to_dict()

        previous_remaining = self.previous_remaining.to_dict()

        new_remaining = self.new_remaining.to_dict()

        previous_debt: dict[str, Any] | Unset = UNSET
        if not isinstance(self.previous_debt, Unset):
            previous_debt = self.previous_debt.to_dict()

        new_debt: dict[str, Any] | Unset = UNSET
        if not isinstance(self.new_debt, Unset):
            new_debt = self.new_debt.to_dict()

        previous_spent: dict[str, Any] | Unset = UNSET
        if not isinstance(self.previous_spent, Unset):
            previous_spent = self.previous_spent.to_dict()

        new_spent: dict[str, Any] | Unset = UNSET
        if not isinstance(self.new_spent, Unset):
            new_spent = self.new_spent.to_dict()

        timestamp: str | Unset = UNSET
        if not isinstance(self.timestamp, Unset):
            timestamp = self.timestamp.isoformat()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "operation": operation,
                "previous_allocated": previous_allocated,
                "new_allocated": new_allocated,
                "previous_remaining": previous_remaining,
                "new_remaining": new_remaining,
            }
        )
        if previous_debt is not UNSET:
            field_dict["previous_debt"] = previous_debt
        if new_debt is not UNSET:
            field_dict["new_debt"] = new_debt
        if previous_spent is not UNSET:
            field_dict["previous_spent"] = previous_spent
        if new_spent is not UNSET:
            field_dict["new_spent"] = new_spent
        if timestamp is not UNSET:
            field_dict["timestamp"] = timestamp

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.signed_amount import SignedAmount  # noqa: PLC0415

        d = dict(src_dict)
        operation = FundingOperation(d.pop("operation"))

        previous_allocated = SignedAmount.from_dict(d.pop("previous_allocated"))

        new_allocated = SignedAmount.from_dict(d.pop("new_allocated"))

        previous_remaining = SignedAmount.from_dict(d.pop("previous_remaining"))

        new_remaining = SignedAmount.from_dict(d.pop("new_remaining"))

        _previous_debt = present(d.pop("previous_debt", UNSET))
        previous_debt: SignedAmount | Unset
        if isinstance(_previous_debt, Unset):
            previous_debt = UNSET
        else:
            previous_debt = SignedAmount.from_dict(_previous_debt)

        _new_debt = present(d.pop("new_debt", UNSET))
        new_debt: SignedAmount | Unset
        if isinstance(_new_debt, Unset):
            new_debt = UNSET
        else:
            new_debt = SignedAmount.from_dict(_new_debt)

        _previous_spent = present(d.pop("previous_spent", UNSET))
        previous_spent: SignedAmount | Unset
        if isinstance(_previous_spent, Unset):
            previous_spent = UNSET
        else:
            previous_spent = SignedAmount.from_dict(_previous_spent)

        _new_spent = present(d.pop("new_spent", UNSET))
        new_spent: SignedAmount | Unset
        if isinstance(_new_spent, Unset):
            new_spent = UNSET
        else:
            new_spent = SignedAmount.from_dict(_new_spent)

        _timestamp = present(d.pop("timestamp", UNSET))
        timestamp: datetime.datetime | Unset
        if isinstance(_timestamp, Unset):
            timestamp = UNSET
        else:
            timestamp = datetime.datetime.fromisoformat(_timestamp)

        budget_funding_response = cls(
            operation=operation,
            previous_allocated=previous_allocated,
            new_allocated=new_allocated,
            previous_remaining=previous_remaining,
            new_remaining=new_remaining,
            previous_debt=previous_debt,
            new_debt=new_debt,
            previous_spent=previous_spent,
            new_spent=new_spent,
            timestamp=timestamp,
        )

        budget_funding_response.additional_properties = d
        return budget_funding_response

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
