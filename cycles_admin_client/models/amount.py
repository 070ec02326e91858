from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define

from ..models.unit import Unit

T = TypeVar("T", bound="Amount")


@_attrs_define
class Amount:
    """A quantity of one unit, zero or more.

    Attributes:
        unit (Unit): Unit of the amount.
        amount (int): The quantity, a signed 64-bit integer that is not negative.
    """

    unit: Unit
    amount: int

    def to_dict(self) -> dict[str, Any]:
        unit = Unit(self.unit).value

        amount = self.amount

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "unit": unit,
                "amount": amount,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        unit = Unit(d.pop("unit"))

        amount = d.pop("amount")

        amount = cls(
            unit=unit,
            amount=amount,
        )

        return amount
