from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ReservationExtendRequest")


@_attrs_define
class ReservationExtendRequest:
    """Request to extend a reservation.

    Attributes:
        idempotency_key (str): Key that makes a repeat of this request safe.
        extend_by_ms (int): How much longer, in milliseconds.
        metadata (Any | Unset): Free-form data that is stored with the record.
    """

    idempotency_key: str
    extend_by_ms: int
    metadata: Any | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        idempotency_key = self.idempotency_key

        extend_by_ms = self.extend_by_ms

        metadata = self.metadata

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "idempotency_key": idempotency_key,
                "extend_by_ms": extend_by_ms,
            }
        )
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        idempotency_key = d.pop("idempotency_key")

        extend_by_ms = d.pop("extend_by_ms")

        metadata = present(d.pop("metadata", UNSET))

        reservation_extend_request = cls(
            idempotency_key=idempotency_key,
            extend_by_ms=extend_by_ms,
            metadata=metadata,
        )

        return reservation_extend_request
