from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount
    from ..models.signed_amount import SignedAmount


T = TypeVar("T", bound="Balance")


@_attrs_define
class Balance:
    """One budget: what a scope has in one unit.

    Attributes:
        scope (str): The scope itself, for example agent:bot.
        scope_path (str): The scope with everything above it.
        remaining (SignedAmount): Allocated minus spent, reserved and debt; may be negative.
        reserved (Amount | Unset): Amount of active reservations.
        spent (Amount | Unset): Amount charged so far.
        debt (Amount | Unset): Spent beyond the budget under ALLOW_WITH_OVERDRAFT, not yet paid back.
        allocated (Amount | Unset): Amount allocated to the budget.
        overdraft_limit (Amount | Unset): Maximum debt.
        is_over_limit (bool | Unset): Whether the scope rejects new reservations.
    """

    scope: str
    scope_path: str
    remaining: SignedAmount
    reserved: Amount | Unset = UNSET
    spent: Amount | Unset = UNSET
    debt: Amount | Unset = UNSET
    allocated: Amount | Unset = UNSET
    overdraft_limit: Amount | Unset = UNSET
    is_over_limit: bool | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        scope = self.scope

        scope_path = self.scope_path

        remaining = self.remaining.to_dict()

        reserved: dict[str, Any] | Unset = UNSET
        if not isinstance(self.reserved, Unset):
            reserved = self.reserved.to_dict()

        spent: dict[str, Any] | Unset = UNSET
        if not isinstance(self.spent, Unset):
            spent = self.spent.to_dict()

        debt: dict[str, Any] | Unset = UNSET
        if not isinstance(self.debt, Unset):
            debt = self.debt.to_dict()

        allocated: dict[str, Any] | Unset = UNSET
        if not isinstance(self.allocated, Unset):
            allocated = self.allocated.to_dict()

        overdraft_limit: dict[str, Any] | Unset = UNSET
        if not isinstance(self.overdraft_limit, Unset):
            overdraft_limit = self.overdraft_limit.to_dict()

        is_over_limit = self.is_over_limit

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "scope": scope,
                "scope_path": scope_path,
                "remaining": remaining,
            }
        )
        if reserved is not UNSET:
            field_dict["reserved"] = reserved
        if spent is not UNSET:
            field_dict["spent"] = spent
        if debt is not UNSET:
            field_dict["debt"] = debt
        if allocated is not UNSET:
            field_dict["allocated"] = allocated
        if overdraft_limit is not UNSET:
            field_dict["overdraft_limit"] = overdraft_limit
        if is_over_limit is not UNSET:
            field_dict["is_over_limit"] = is_over_limit

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.signed_amount import SignedAmount  # noqa: PLC0415

        d = dict(src_dict)
        scope = d.pop("scope")

        scope_path = d.pop("scope_path")

        remaining = SignedAmount.from_dict(d.pop("remaining"))

        _reserved = present(d.pop("reserved", UNSET))
        reserved: Amount | Unset
        if isinstance(_reserved, Unset):
            reserved = UNSET
        else:
            reserved = Amount.from_dict(_reserved)

        _spent = present(d.pop("spent", UNSET))
        spent: Amount | Unset
        if isinstance(_spent, Unset):
            spent = UNSET
        else:
            spent = Amount.from_dict(_spent)

        _debt = present(d.pop("debt", UNSET))
        debt: Amount | Unset
        if isinstance(_debt, Unset):
            debt = UNSET
        else:
            debt = Amount.from_dict(_debt)

        _allocated = present(d.pop("allocated", UNSET))
        allocated: Amount | Unset
        if isinstance(_allocated, Unset):
            allocated = UNSET
        else:
            allocated = Amount.from_dict(_allocated)

        _overdraft_limit = present(d.pop("overdraft_limit", UNSET))
        overdraft_limit: Amount | Unset
        if isinstance(_overdraft_limit, Unset):
            overdraft_limit = UNSET
        else:
            overdraft_limit = Amount.from_dict(_overdraft_limit)

        is_over_limit = present(d.pop("is_over_limit", UNSET))

        balance = cls(
            scope=scope,
            scope_path=scope_path,
            remaining=remaining,
            reserved=reserved,
            spent=spent,
            debt=debt,
            allocated=allocated,
            overdraft_limit=overdraft_limit,
            is_over_limit=is_over_limit,
        )

        balance.additional_properties = d
        return balance

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
