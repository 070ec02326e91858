from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

if TYPE_CHECKING:
    from ..models.action import Action
    from ..models.amount import Amount
    from ..models.subject import Subject


T = TypeVar("T", bound="DecisionRequest")


@_attrs_define
class DecisionRequest:
    """Evaluation of an action, without a reservation.

    Attributes:
        idempotency_key (str): Key that makes a repeat of this request safe.
        subject (Subject): Who spends.
        action (Action): The action that spends.
        estimate (Amount): Expected cost of the action.
        metadata (Any | Unset): Free-form data that is stored with the record.
    """

    idempotency_key: str
    subject: Subject
    action: Action
    estimate: Amount
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        idempotency_key = self.idempotency_key

        subject = self.subject.to_dict()

        action = self.action.to_dict()

        estimate = self.estimate.to_dict()

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "idempotency_key": idempotency_key,
                "subject": subject,
                "action": action,
                "estimate": estimate,
            }
        )
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

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

        metadata = present(d.pop("metadata", UNSET))

        decision_request = cls(
            idempotency_key=idempotency_key,
            subject=subject,
            action=action,
            estimate=estimate,
            metadata=metadata,
        )

        return decision_request
