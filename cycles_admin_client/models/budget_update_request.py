from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.commit_overage_policy import CommitOveragePolicy
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount


T = TypeVar("T", bound="BudgetUpdateRequest")


@_attrs_define
class BudgetUpdateRequest:
    """Changes of a budget; absent members stay unchanged.

    Attributes:
        overdraft_limit (Amount | Unset): New maximum debt.
        commit_overage_policy (CommitOveragePolicy | Unset): New overage policy.
        metadata (Any | Unset): Free-form strings that are stored with the object.
    """

    overdraft_limit: Amount | Unset = UNSET
    commit_overage_policy: CommitOveragePolicy | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        overdraft_limit: dict[str, Any] | Unset = UNSET
        if not isinstance(self.overdraft_limit, Unset):
            overdraft_limit = self.overdraft_limit.to_dict()

        commit_overage_policy: str | Unset = UNSET
        if not isinstance(self.commit_overage_policy, Unset):
            commit_overage_policy = CommitOveragePolicy(self.commit_overage_policy).value

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if overdraft_limit is not UNSET:
            field_dict["overdraft_limit"] = overdraft_limit
        if commit_overage_policy is not UNSET:
            field_dict["commit_overage_policy"] = commit_overage_policy
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415

        d = dict(src_dict)
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

        metadata = present(d.pop("metadata", UNSET))

        budget_update_request = cls(
            overdraft_limit=overdraft_limit,
            commit_overage_policy=commit_overage_policy,
            metadata=metadata,
        )

        return budget_update_request
