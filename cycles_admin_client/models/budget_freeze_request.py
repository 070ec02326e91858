from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="BudgetFreezeRequest")


@_attrs_define
class BudgetFreezeRequest:
    """Reason for freezing or unfreezing a budget.

    Attributes:
        reason (str | Unset): Reason for the audit log.
    """

    reason: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        reason = self.reason

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if reason is not UNSET:
            field_dict["reason"] = reason

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        reason = present(d.pop("reason", UNSET))

        budget_freeze_request = cls(
            reason=reason,
        )

        return budget_freeze_request
