from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.funding_operation import FundingOperation
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount
    from ..models.budget_filter import BudgetFilter


T = TypeVar("T", bound="BudgetBulkActionRequest")


@_attrs_define
class BudgetBulkActionRequest:
    """Request to fund several budgets with the same amount.

    Attributes:
        filter_ (BudgetFilter): Which rows the action applies to.
        action (FundingOperation): How the budgets change.
        idempotency_key (str): Key that makes a repetition of this request safe.
        amount (Amount | Unset): Amount for each budget.
        spent (Amount | Unset): Spent amount of the new period; RESET_SPENT only.
        reason (str | Unset): Reason for the audit log.
        expected_count (int | Unset): Number of rows that must match; otherwise nothing is changed.
    """

    filter_: BudgetFilter
    action: FundingOperation
    idempotency_key: str
    amount: Amount | Unset = UNSET
    spent: Amount | Unset = UNSET
    reason: str | Unset = UNSET
    expected_count: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        filter_ = self.filter_.to_dict()

        action = FundingOperation(self.action).value

        idempotency_key = self.idempotency_key

        amount: dict[str, Any] | Unset = UNSET
        if not isinstance(self.amount, Unset):
            amount = self.amount.to_dict()

        spent: dict[str, Any] | Unset = UNSET
        if not isinstance(self.spent, Unset):
            spent = self.spent.to_dict()

        reason = self.reason

        expected_count = self.expected_count

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "filter": filter_,
                "action": action,
                "idempotency_key": idempotency_key,
            }
        )
        if amount is not UNSET:
            field_dict["amount"] = amount
        if spent is not UNSET:
            field_dict["spent"] = spent
        if reason is not UNSET:
            field_dict["reason"] = reason
        if expected_count is not UNSET:
            field_dict["expected_count"] = expected_count

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.budget_filter import BudgetFilter  # noqa: PLC0415

        d = dict(src_dict)
        filter_ = BudgetFilter.from_dict(d.pop("filter"))

        action = FundingOperation(d.pop("action"))

        idempotency_key = d.pop("idempotency_key")

        _amount = present(d.pop("amount", UNSET))
        amount: Amount | Unset
        if isinstance(_amount, Unset):
            amount = UNSET
        else:
            amount = Amount.from_dict(_amount)

        _spent = present(d.pop("spent", UNSET))
        spent: Amount | Unset
        if isinstance(_spent, Unset):
            spent = UNSET
        else:
            spent = Amount.from_dict(_spent)

        reason = present(d.pop("reason", UNSET))

        expected_count = present(d.pop("expected_count", UNSET))

        budget_bulk_action_request = cls(
            filter_=filter_,
            action=action,
            idempotency_key=idempotency_key,
            amount=amount,
            spent=spent,
            reason=reason,
            expected_count=expected_count,
        )

        return budget_bulk_action_request
