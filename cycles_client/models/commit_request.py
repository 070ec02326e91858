from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.amount import Amount
    from ..models.standard_metrics import StandardMetrics


T = TypeVar("T", bound="CommitRequest")


@_attrs_define
class CommitRequest:
    """Report of the actual cost; the unused rest is released.

    Attributes:
        idempotency_key (str): Key that makes a repeat of this request safe.
        actual (Amount): Actual cost of the action.
        metrics (StandardMetrics | Unset): Usage of the action, beside its cost.
        metadata (Any | Unset): Free-form data that is stored with the record.
    """

    idempotency_key: str
    actual: Amount
    metrics: StandardMetrics | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        idempotency_key = self.idempotency_key

        actual = self.actual.to_dict()

        metrics: dict[str, Any] | Unset = UNSET
        if not isinstance(self.metrics, Unset):
            metrics = self.metrics.to_dict()

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "idempotency_key": idempotency_key,
                "actual": actual,
            }
        )
        if metrics is not UNSET:
            field_dict["metrics"] = metrics
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.standard_metrics import StandardMetrics  # noqa: PLC0415

        d = dict(src_dict)
        idempotency_key = d.pop("idempotency_key")

        actual = Amount.from_dict(d.pop("actual"))

        _metrics = present(d.pop("metrics", UNSET))
        metrics: StandardMetrics | Unset
        if isinstance(_metrics, Unset):
            metrics = UNSET
        else:
            metrics = StandardMetrics.from_dict(_metrics)

        metadata = present(d.pop("metadata", UNSET))

        commit_request = cls(
            idempotency_key=idempotency_key,
            actual=actual,
            metrics=metrics,
            metadata=metadata,
        )

        return commit_request
