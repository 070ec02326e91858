from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.commit_overage_policy import CommitOveragePolicy
from ..models.rollover_policy import RolloverPolicy
from ..models.unit import Unit
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount


T = TypeVar("T", bound="BudgetCreateRequest")


@_attrs_define
class BudgetCreateRequest:
    """Request to create the budget of a scope in one unit.

    Attributes:
        scope (str): Full path of the scope, such as tenant:acme/agent:bot.
        unit (Unit): Unit of the budget.
        allocated (Amount): Amount that the scope may spend.
        tenant_id (str | Unset): Owner of the budget; required with the admin key, not allowed with a tenant's key.
        overdraft_limit (Amount | Unset): Maximum debt.
        commit_overage_policy (CommitOveragePolicy | Unset): Overage policy of commits on this budget.
        rollover_policy (RolloverPolicy | Unset): Label for the rollover of a period.
        period_start (datetime.datetime | Unset): Label for the start of the period.
        period_end (datetime.datetime | Unset): Label for the end of the period.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    scope: str
    unit: Unit
    allocated: Amount
    tenant_id: str | Unset = UNSET
    overdraft_limit: Amount | Unset = UNSET
    commit_overage_policy: CommitOveragePolicy | Unset = UNSET
    rollover_policy: RolloverPolicy | Unset = UNSET
    period_start: datetime.datetime | Unset = UNSET
    period_end: datetime.datetime | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        scope = self.scope

        unit = Unit(self.unit).value

        allocated = self.allocated.to_dict()

        tenant_id = self.tenant_id

        overdraft_limit: dict[str, Any] | Unset = UNSET
        if not isinstance(self.overdraft_limit, Unset):
            overdraft_limit = self.overdraft_limit.to_dict()

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

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "scope": scope,
                "unit": unit,
                "allocated": allocated,
            }
        )
        if tenant_id is not UNSET:
            field_dict["tenant_id"] = tenant_id
        if overdraft_limit is not UNSET:
            field_dict["overdraft_limit"] = overdraft_limit
        if commit_overage_policy is not UNSET:
            field_dict["commit_overage_policy"] = commit_overage_policy
        if rollover_policy is not UNSET:
            field_dict["rollover_policy"] = rollover_policy
        if period_start is not UNSET:
            field_dict["period_start"] = period_start
        if period_end is not UNSET:
            field_dict["period_end"] = period_end
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415

        d = dict(src_dict)
        scope = d.pop("scope")

        unit = Unit(d.pop("unit"))

        allocated = Amount.from_dict(d.pop("allocated"))

        tenant_id = present(d.pop("tenant_id", UNSET))

        _overdraft_limit = present(d.pop("overdraft_limit", UNSET))
        overdraft_limit: Amount | Unset
        if isinstance(_overdraft_limit, Unset):
            overdraft_limit = UNSET
        else:
            overdraft_limit = Amount.from_dict(_overdraft_limit)

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

        metadata = present(d.pop("metadata", UNSET))

        budget_create_request = cls(
            scope=scope,
            unit=unit,
            allocated=allocated,
            tenant_id=tenant_id,
            overdraft_limit=overdraft_limit,
            commit_overage_policy=commit_overage_policy,
            rollover_policy=rollover_policy,
            period_start=period_start,
            period_end=period_end,
            metadata=metadata,
        )

        return budget_create_request
