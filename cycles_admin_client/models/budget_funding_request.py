from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.funding_operation import FundingOperation
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount


T = TypeVar("T", bound="BudgetFundingRequest")


@_attrs_define
class BudgetFundingRequest:
    """Request to change the allocation, the spent amount or the debt of a budget.

    Attributes:
        operation (FundingOperation): How the budget changes.
        amount (Amount): Amount of the operation, in the unit of the budget.
        spent (Amount | Unset): Spent amount of the new period; RESET_SPENT only.
        reason (str | Unset): Reason for the audit log.
        idempotency_key (str | Unset): Key that makes a repetition of this request safe.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    operation: FundingOperation
    amount: Amount
    spent: Amount | Unset = UNSET
    reason: str | Unset = UNSET
    idempotency_key: str | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        operation = FundingOperation(self.operation).value

        amount = self.amount.to_dict()

        spent: dict[str, Any] | Unset = UNSET
        if not isinstance(self.spent, Unset):
            spent = self.spent.to_dict()

        reason = self.reason

        idempotency_key = self.idempotency_key

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "operation": operation,
                "amount": amount,
            }
        )
        if spent is not UNSET:
            field_dict["spent"] = spent
        if reason is not UNSET:
            field_dict["reason"] = reason
        if idempotency_key is not UNSET:
            field_dict["idempotency_key"] = idempotency_key
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415

        d = dict(src_dict)
        operation = FundingOperation(d.pop("operation"))

        amount = Amount.from_dict(d.pop("amount"))

        _spent = present(d.pop("spent", UNSET))
        spent: Amount | Unset
        if isinstance(_spent, Unset):
            spent = UNSET
        else:
            spent = Amount.from_dict(_spent)

        reason = present(d.pop("reason", UNSET))

        idempotency_key = present(d.pop("idempotency_key", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        budget_funding_request = cls(
            operation=operation,
            amount=amount,
            spent=spent,
            reason=reason,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )

        return budget_funding_request
