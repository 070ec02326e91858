from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.budget_status import BudgetStatus
from ..models.unit import Unit
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="BudgetFilter")


@_attrs_define
class BudgetFilter:
    """Which budgets match; all members must match.

    Attributes:
        tenant_id (str): Owner of the budgets.
        scope_prefix (str | Unset): Beginning of the scopes.
        unit (Unit | Unset): Unit of the budgets.
        status (BudgetStatus | Unset): State of the budgets.
        over_limit (bool | Unset): Whether the debt is above its maximum.
        has_debt (bool | Unset): Whether there is debt.
        utilization_min (float | Unset): Least share of the allocation that is used, 0 to 1.
        utilization_max (float | Unset): Largest share of the allocation that is used, 0 to 1.
        search (str | Unset): Part of the scope.
    """

    tenant_id: str
    scope_prefix: str | Unset = UNSET
    unit: Unit | Unset = UNSET
    status: BudgetStatus | Unset = UNSET
    over_limit: bool | Unset = UNSET
    has_debt: bool | Unset = UNSET
    utilization_min: float | Unset = UNSET
    utilization_max: float | Unset = UNSET
    search: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        tenant_id = self.tenant_id

        scope_prefix = self.scope_prefix

        unit: str | Unset = UNSET
        if not isinstance(self.unit, Unset):
            unit = Unit(self.unit).value

        status: str | Unset = UNSET
        if not isinstance(self.status, Unset):
            status = BudgetStatus(self.status).value

        over_limit = self.over_limit

        has_debt = self.has_debt

        utilization_min = self.utilization_min

        utilization_max = self.utilization_max

        search = self.search

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "tenant_id": tenant_id,
            }
        )
        if scope_prefix is not UNSET:
            field_dict["scope_prefix"] = scope_prefix
        if unit is not UNSET:
            field_dict["unit"] = unit
        if status is not UNSET:
            field_dict["status"] = status
        if over_limit is not UNSET:
            field_dict["over_limit"] = over_limit
        if has_debt is not UNSET:
            field_dict["has_debt"] = has_debt
        if utilization_min is not UNSET:
            field_dict["utilization_min"] = utilization_min
        if utilization_max is not UNSET:
            field_dict["utilization_max"] = utilization_max
        if search is not UNSET:
            field_dict["search"] = search

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tenant_id = d.pop("tenant_id")

        scope_prefix = present(d.pop("scope_prefix", UNSET))

        _unit = present(d.pop("unit", UNSET))
        unit: Unit | Unset
        if isinstance(_unit, Unset):
            unit = UNSET
        else:
            unit = Unit(_unit)

        _status = present(d.pop("status", UNSET))
        status: BudgetStatus | Unset
        if isinstance(_status, Unset):
            status = UNSET
        else:
            status = BudgetStatus(_status)

        over_limit = present(d.pop("over_limit", UNSET))

        has_debt = present(d.pop("has_debt", UNSET))

        utilization_min = present(d.pop("utilization_min", UNSET))

        utilization_max = present(d.pop("utilization_max", UNSET))

        search = present(d.pop("search", UNSET))

        budget_filter = cls(
            tenant_id=tenant_id,
            scope_prefix=scope_prefix,
            unit=unit,
            status=status,
            over_limit=over_limit,
            has_debt=has_debt,
            utilization_min=utilization_min,
            utilization_max=utilization_max,
            search=search,
        )

        return budget_filter
