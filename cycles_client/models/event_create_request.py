from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.commit_overage_policy import CommitOveragePolicy
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action import Action
    from ..models.amount import Amount
    from ..models.standard_metrics import StandardMetrics
    from ..models.subject import Subject


T = TypeVar("T", bound="EventCreateRequest")


@_attrs_define
class EventCreateRequest:
    """Report of spend without a reservation, or after its expiry.

    Attributes:
        idempotency_key (str): Key that makes a repeat of this request safe.
        subject (Subject): Who spends.
        action (Action): The action that spends.
        actual (Amount): Spent amount.
        overage_policy (CommitOveragePolicy | Unset): What happens if the budgets are smaller than the amount. Server
            default: ALLOW_IF_AVAILABLE.
        metrics (StandardMetrics | Unset): Usage of the action, beside its cost.
        client_time_ms (int | Unset): When it happened by the client's clock, in milliseconds since the epoch.
        metadata (Any | Unset): Free-form data that is stored with the record.
    """

    idempotency_key: str
    subject: Subject
    action: Action
    actual: Amount
    overage_policy: CommitOveragePolicy | Unset = UNSET
    metrics: StandardMetrics | Unset = UNSET
    client_time_ms: int | Unset = UNSET
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        idempotency_key = self.idempotency_key

        subject = self.subject.to_dict()

        action = self.action.to_dict()

        actual = self.actual.to_dict()

        overage_policy: str | Unset = UNSET
        if not isinstance(self.overage_policy, Unset):
            overage_policy = CommitOveragePolicy(self.overage_policy).value

        metrics: dict[str, Any] | Unset = UNSET
        if not isinstance(self.metrics, Unset):
            metrics = self.metrics.to_dict()

        client_time_ms = self.client_time_ms

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "idempotency_key": idempotency_key,
                "subject": subject,
                "action": action,
                "actual": actual,
            }
        )
        if overage_policy is not UNSET:
            field_dict["overage_policy"] = overage_policy
        if metrics is not UNSET:
            field_dict["metrics"] = metrics
        if client_time_ms is not UNSET:
            field_dict["client_time_ms"] = client_time_ms
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.action import Action  # noqa: PLC0415
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.standard_metrics import StandardMetrics  # noqa: PLC0415
        from ..models.subject import Subject  # noqa: PLC0415

        d = dict(src_dict)
        idempotency_key = d.pop("idempotency_key")

        subject = Subject.from_dict(d.pop("subject"))

        action = Action.from_dict(d.pop("action"))

        actual = Amount.from_dict(d.pop("actual"))

        _overage_policy = present(d.pop("overage_policy", UNSET))
        overage_policy: CommitOveragePolicy | Unset
        if isinstance(_overage_policy, Unset):
            overage_policy = UNSET
        else:
            overage_policy = CommitOveragePolicy(_overage_policy)

        _metrics = present(d.pop("metrics", UNSET))
        metrics: StandardMetrics | Unset
        if isinstance(_metrics, Unset):
            metrics = UNSET
        else:
            metrics = StandardMetrics.from_dict(_metrics)

        client_time_ms = present(d.pop("client_time_ms", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        event_create_request = cls(
            idempotency_key=idempotency_key,
            subject=subject,
            action=action,
            actual=actual,
            overage_policy=overage_policy,
            metrics=metrics,
            client_time_ms=client_time_ms,
            metadata=metadata,
        )

        return event_create_request
