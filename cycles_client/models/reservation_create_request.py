from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..models.commit_overage_policy import CommitOveragePolicy
from ..models.reservation_create_request_observe_mode import ReservationCreateRequestObserveMode
from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action import Action
    from ..models.amount import Amount
    from ..models.subject import Subject


T = TypeVar("T", bound="ReservationCreateRequest")


@_attrs_define
class ReservationCreateRequest:
    """Request to reserve an estimated amount before the action runs.

    Attributes:
        idempotency_key (str): Key that makes a repeat of this request safe.
        subject (Subject): Who spends.
        action (Action): The action that spends.
        estimate (Amount): Amount to reserve.
        ttl_ms (int | Unset): How long the reservation lives without an extension, in milliseconds. Server default:
            60000.
        grace_period_ms (int | Unset): How long after the expiry a commit or release is accepted, in milliseconds.
            Server default: 5000.
        overage_policy (CommitOveragePolicy | Unset): What happens if the actual amount is larger than the estimate.
            Server default: ALLOW_IF_AVAILABLE.
        dry_run (bool | Unset): Evaluate without reserving. Server default: false.
        metadata (Any | Unset): Free-form data that is stored with the record.
        observe_mode (ReservationCreateRequestObserveMode | Unset): Whether the reservation is enforced, or only
            observed; it overrides the mode of the tenant.
    """

    idempotency_key: str
    subject: Subject
    action: Action
    estimate: Amount
    ttl_ms: int | Unset = UNSET
    grace_period_ms: int | Unset = UNSET
    overage_policy: CommitOveragePolicy | Unset = UNSET
    dry_run: bool | Unset = UNSET
    metadata: Any | Unset = UNSET
    observe_mode: ReservationCreateRequestObserveMode | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        idempotency_key = self.idempotency_key

        subject = self.subject.to_dict()

        action = self.action.to_dict()

        estimate = self.estimate.to_dict()

        ttl_ms = self.ttl_ms

        grace_period_ms = self.grace_period_ms

        overage_policy: str | Unset = UNSET
        if not isinstance(self.overage_policy, Unset):
            overage_policy = CommitOveragePolicy(self.overage_policy).value

        dry_run = self.dry_run

        metadata = self.metadata

        observe_mode: str | Unset = UNSET
        if not isinstance(self.observe_mode, Unset):
            observe_mode = ReservationCreateRequestObserveMode(self.observe_mode).value

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "idempotency_key": idempotency_key,
                "subject": subject,
                "action": action,
                "estimate": estimate,
            }
        )
        if ttl_ms is not UNSET:
            field_dict["ttl_ms"] = ttl_ms
        if grace_period_ms is not UNSET:
            field_dict["grace_period_ms"] = grace_period_ms
        if overage_policy is not UNSET:
            field_dict["overage_policy"] = overage_policy
        if dry_run is not UNSET:
            field_dict["dry_run"] = dry_run
        if metadata is not UNSET:
            field_dict["metadata"] = metadata
        if observe_mode is not UNSET:
            field_dict["observe_mode"] = observe_mode

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.action import Action  # noqa: PLC0415
        from ..models.amount import Amount  # noqa: PLC0415
        from ..models.subject import Subject  # noqa: PLC0415

        d = dict(src_dict)
        idempotency_key = d.pop("idempotency_key")

        subject = Subject.from_dict(d.pop("subject"))

        action = Action.from_dict(d.pop("action"))

        estimate = Amount.from_dict(d.pop("estimate"))

        ttl_ms = present(d.pop("ttl_ms", UNSET))

        grace_period_ms = present(d.pop("grace_period_ms", UNSET))

        _overage_policy = present(d.pop("overage_policy", UNSET))
        overage_policy: CommitOveragePolicy | Unset
        if isinstance(_overage_policy, Unset):
            overage_policy = UNSET
        else:
            overage_policy = CommitOveragePolicy(_overage_policy)

        dry_run = present(d.pop("dry_run", UNSET))

        metadata = present(d.pop("metadata", UNSET))

        _observe_mode = present(d.pop("observe_mode", UNSET))
        observe_mode: ReservationCreateRequestObserveMode | Unset
        if isinstance(_observe_mode, Unset):
            observe_mode = UNSET
        else:
            observe_mode = ReservationCreateRequestObserveMode(_observe_mode)

        reservation_create_request = cls(
            idempotency_key=idempotency_key,
            subject=subject,
            action=action,
            estimate=estimate,
            ttl_ms=ttl_ms,
            grace_period_ms=grace_period_ms,
            overage_policy=overage_policy,
            dry_run=dry_run,
            metadata=metadata,
            observe_mode=observe_mode,
        )

        return reservation_create_request
