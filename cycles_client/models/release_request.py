from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ReleaseRequest")


@_attrs_define
class ReleaseRequest:
    """Request to release a reservation whose action did not run.

    Attributes:
        idempotency_key (str): Key that makes a repeat of this request safe.
        reason (str | Unset): Human-readable reason.
    """

    idempotency_key: str
    reason: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        idempotency_key = self.idempotency_key

        reason = self.reason

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "idempotency_key": idempotency_key,
            }
        )
        if reason is not UNSET:
            field_dict["reason"] = reason

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        idempotency_key = d.pop("idempotency_key")

        reason = present(d.pop("reason", UNSET))

        release_request = cls(
            idempotency_key=idempotency_key,
            reason=reason,
        )

        return release_request
