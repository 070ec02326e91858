from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.budget_status import BudgetStatus
from ..models.commit_overage_policy import CommitOveragePolicy
from ..models.rollover_policy import RolloverPolicy
from ..models.unit import Unit
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.signed_amount import SignedAmount


T = TypeVar("T", bound="BudgetLedger")


@_attrs_define
class BudgetLedger:
    """The budget of a scope in one unit.

    Attributes:
        ledger_id (str): Id of the budget.
        scope (str): Full path of the scope.
        unit (Unit): Unit of the budget.
        allocated (SignedAmount): Amount allocated to the budget.
        remaining (SignedAmount): Allocated minus spent, reserved and debt; may be negative.
        status (BudgetStatus): State of the budget.
        tenant_id (str | Unset): Owner of the budget.
        reserved (SignedAmount | Unset): Amount of active reservations.
        spent (SignedAmount | Unset): Amount charged in this period.
        debt (SignedAmount | Unset): Spent beyond the budget, and not repaid yet.
        overdraft_limit (SignedAmount | Unset): Maximum debt.
        is_over_limit (bool | Unset): Whether the debt is larger than its maximum.
        commit_overage_policy (CommitOveragePolicy | Unset): Overage policy of commits on this budget.
        rollover_policy (RolloverPolicy | Unset): Label for the rollover of a period.
        period_start (datetime.datetime | Unset): Label for the start of the period.
        period_end (datetime.datetime | Unset): Label for the end of the period.
        created_at (datetime.datetime | Unset): When the budget was created.
        updated_at (datetime.datetime | Unset): When the budget was last changed.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    ledger_id: str
    scope: str
    unit: Unit
    allocated: SignedAmount
    remaining: SignedAmount
    status: BudgetStatus
    tenant_id: str | Unset = UNSET
    reserved: SignedAmount | Unset = UNSET
    spent: SignedAmount | Unset = UNSET
    debt: SignedAmount | Unset = UNSET
    overdraft_limit: SignedAmount | Unset = UNSET
    is_over_limit: bool | Unset = UNSET
    commit_overage_policy: CommitOveragePolicy | Unset = UNSET
    rollover_policy: RolloverPolicy | Unset = UNSET
    period_start: datetime.datetime | Unset = UNSET
    period_end: datetime.datetime | Unset = UNSET
    created_at: datetime.datetime | Unset = UNSET
    updated_at: datetime.datetime | Unset = UNSET
    metadata: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        ledger_id = self.ledger_id

        scope = self.scope

        unit = Unit(self.unit).value

        allocated = self.allocated.to_dict()

        remaining = self.remaining.to_dict()

        status = BudgetStatus(self.status).value

        tenant_id = self.tenant_id

        reserved: dict[str, Any] | Unset = UNSET
        if not isinstance(self.reserved, Unset):
            reserved = self.reserved.to_dict()

        spent: dict[str, Any] | Unset = UNSET
        if not isinstance(self.spent, Unset):
            spent = self.spent.to_dict()

        debt: dict[str, Any] | Unset = UNSET
        if not isinstance(self.debt, Unset):
            debt = self.debt.to_dict()

        overdraft_limit: dict[str, Any] | Unset = UNSET
        if not isinstance(self.overdraft_limit, Unset):
            overdraft_limit = self.overdraft_limit.to_dict()

        is_over_limit = self.is_over_limit

        commit_overage_policy: str | Unset = UNSET
        if not isinstance(self.commit_overage_policy, Unset):
            commit_overage_policy = CommitOveragePolicy(self.commit_overage_policy).value

        rollover_policy: str | Unset = UNSET
        if not isinstance(self.rollover_policy, Unset):
            rollover_policy = RolloverPolicy(self.rollover_policy).value

        period_start: str | Unset = UNSET
        if not isinstance(self.period_start, Unset):
            period_start = self.period_start.isoformat()

        period_end: str | Unset = UNSET
        if not isinstance(self.period_end, Unset):
            period_end = self.period_end.isoformat()

        created_at: str | Unset = UNSET
        if not isinstance(self.created_at, Unset):
            created_at = self.created_at.isoformat()

        updated_at: str | Unset = UNSET
        if not isinstance(self.updated_at, Unset):
            updated_at = self.updated_at.isoformat()

        metadata = self.metadata

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "ledger_id": ledger_id,
                "scope": scope,
                "unit": unit,
                "allocated": allocated,
                "remaining": remaining,
                "status": status,
            }
        )
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if reserved is not UNSET:
            field_dict["reserved"] = reserved
        if spent is not UNSET:
            field_dict["spent"] = spent
        if debt is not UNSET:
            field_dict["debt"] = debt
        if overdraft_limit is not UNSET:
            field_dict["overdraft_limit"] = overdraft_limit
        if is_over_limit is not UNSET:
            field_dict["is_over_limit"] = is_over_limit
        if commit_overage_policy is not UNSET:
            field_dict["commit_overage_policy"] = commit_overage_policy
        if rollover_policy is not UNSET:
            field_dict["rollover_policy"] = rollover_policy
        if period_start is not UNSET:
            field_dict["period_start"] = period_start
        if period_end is not UNSET:
            field_dict["period_end"] = period_end
        if created_at is not UNSET:
            field_dict["created_at"] = created_at
        if updated_at is not UNSET:
            field_dict["updated_at"] = updated_at
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.signed_amount import SignedAmount  # noqa: PLC0415

        d = dict(src_dict)
        ledger_id = d.pop("ledger_id")

        scope = d.pop("scope")

        unit = Unit(d.pop("unit"))

        allocated = SignedAmount.from_dict(d.pop("allocated"))

        remaining = SignedAmount.from_dict(d.pop("remaining"))

        status = BudgetStatus(d.pop("status"))

        tenant_id = present(d.pop("tenant_id", UNSET))

        _reserved = present(d.pop("reserved", UNSET))
        reserved: SignedAmount | Unset
        if isinstance(_reserved, Unset):
            reserved = UNSET
        else:
            reserved = SignedAmount.from_dict(_reserved)

        _spent = present(d.pop("spent", UNSET))
        spent: SignedAmount | Unset
        if isinstance(_spent, Unset):
            spent = UNSET
        else:
            spent = SignedAmount.from_dict(_spent)

        _debt = present(d.pop("debt", UNSET))
        debt: SignedAmount | Unset
        if isinstance(_debt, Unset):
            debt = UNSET
        else:
            debt = SignedAmount.from_dict(_debt)

        _overdraft_limit = present(d.pop("overdraft_limit", UNSET))
        overdraft_limit: SignedAmount | Unset
        if isinstance(_overdraft_limit, Unset):
            overdraft_limit = UNSET
        else:
            overdraft_limit = SignedAmount.from_dict(_overdraft_limit)

        is_over_limit = present(d.pop("is_over_limit", UNSET))

        _commit_overage_policy = present(d.pop("commit_overage_policy", UNSET))
        commit_overage_policy: CommitOveragePolicy | Unset
        if isinstance(_commit_overage_policy, Unset):
            commit_overage_policy = UNSET
        else:
            commit_overage_policy = CommitOveragePolicy(_commit_overage_policy)

        _rollover_policy = present(d.pop("rollover_policy", UNSET))
        rollover_policy: RolloverPolicy | Unset
        if isinstance(_rollover_policy, Unset):
            rollover_policy = UNSET
        else:
            rollover_policy = RolloverPolicy(_rollover_policy)

        _period_start = present(d.pop("period_start", UNSET))
        period_start: datetime.datetime | Unset
        if isinstance(_period_start, Unset):
            period_start = UNSET
        else:
            period_start = datetime.datetime.fromisoformat(_period_start)

        _period_end = present(d.pop("period_end", UNSET))
        period_end: datetime.datetime | Unset
        if isinstance(_period_end, Unset):
            period_end = UNSET
        else:
            period_end = datetime.datetime.fromisoformat(_period_end)

        _created_at = present(d.pop("created_at", UNSET))
        created_at: datetime.datetime | Unset
        if isinstance(_created_at, Unset):
            created_at = UNSET
        else:
            created_at = datetime.datetime.fromisoformat(_created_at)

        _updated_at = present(d.pop("updated_at", UNSET))
        updated_at: datetime.datetime | Unset
        if isinstance(_updated_at, Unset):
            updated_at = UNSET
        else:
            updated_at = datetime.datetime.fromisoformat(_updated_at)

        metadata = present(d.pop("metadata", UNSET))

        budget_ledger = cls(
            ledger_id=ledger_id,
            scope=scope,
            unit=unit,
            allocated=allocated,
            remaining=remaining,
            status=status,
            tenant_id=tenant_id,
            reserved=reserved,
            spent=spent,
            debt=debt,
            overdraft_limit=overdraft_limit,
            is_over_limit=is_over_limit,
            commit_overage_policy=commit_overage_policy,
            rollover_policy=rollover_policy,
            period_start=period_start,
            period_end=period_end,
            created_at=created_at,
            updated_at=updated_at,
            metadata=metadata,
        )

        budget_ledger.additional_properties = d
        return budget_ledger

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
