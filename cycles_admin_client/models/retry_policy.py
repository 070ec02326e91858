from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="RetryPolicy")


@_attrs_define
class RetryPolicy:
    """How a failed delivery is repeated.

    Attributes:
        max_retries (int | Unset): Maximum number of repetitions.
        initial_delay_ms (int | Unset): Delay before the first repetition, in milliseconds.
        backoff_multiplier (float | Unset): Factor between two delays.
        max_delay_ms (int | Unset): Longest delay, in milliseconds.
    """

    max_retries: int | Unset = UNSET
    initial_delay_ms: int | Unset = UNSET
    backoff_multiplier: float | Unset = UNSET
    max_delay_ms: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        max_retries = self.max_retries

        initial_delay_ms = self.initial_delay_ms

        backoff_multiplier = self.backoff_multiplier

        max_delay_ms = self.max_delay_ms

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if max_retries is not UNSET:
            field_dict["max_retries"] = max_retries
        if initial_delay_ms is not UNSET:
            field_dict["initial_delay_ms"] = initial_delay_ms
        if backoff_multiplier is not UNSET:
            field_dict["backoff_multiplier"] = backoff_multiplier
        if max_delay_ms is not UNSET:
            field_dict["max_delay_ms"] = max_delay_ms

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        max_retries = present(d.pop("max_retries", UNSET))

        initial_delay_ms = present(d.pop("initial_delay_ms", UNSET))

        backoff_multiplier = present(d.pop("backoff_multiplier", UNSET))

        max_delay_ms = present(d.pop("max_delay_ms", UNSET))

        retry_policy = cls(
            max_retries=max_retries,
            initial_delay_ms=initial_delay_ms,
            backoff_multiplier=backoff_multiplier,
            max_delay_ms=max_delay_ms,
        )

        retry_policy.additional_properties = d
        return retry_policy

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
