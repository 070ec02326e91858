from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="Caps")


@_attrs_define
class Caps:
    """Limits that the action has to keep if the decision is ALLOW_WITH_CAPS.

    Attributes:
        max_tokens (int | Unset): Maximum tokens that one call may produce.
        max_steps_remaining (int | Unset): How many more steps the agent may take.
        tool_allowlist (list[str] | Unset): If it is not empty, the only tools that may be used.
        tool_denylist (list[str] | Unset): Tools that may not be used, if there is no allowlist.
        cooldown_ms (int | Unset): How long to wait before the next action, in milliseconds.
    """

    max_tokens: int | Unset = UNSET
    max_steps_remaining: int | Unset = UNSET
    tool_allowlist: list[str] | Unset = UNSET
    tool_denylist: list[str] | Unset = UNSET
    cooldown_ms: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        max_tokens = self.max_tokens

        max_steps_remaining = self.max_steps_remaining

        tool_allowlist: list[str] | Unset = UNSET
        if not isinstance(self.tool_allowlist, Unset):
            tool_allowlist = self.tool_allowlist

        tool_denylist: list[str] | Unset = UNSET
        if not isinstance(self.tool_denylist, Unset):
            tool_denylist = self.tool_denylist

        cooldown_ms = self.cooldown_ms

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if max_tokens is not UNSET:
            field_dict["max_tokens"] = max_tokens
        if max_steps_remaining is not UNSET:
            field_dict["max_steps_remaining"] = max_steps_remaining
        if tool_allowlist is not UNSET:
            field_dict["tool_allowlist"] = tool_allowlist
        if tool_denylist is not UNSET:
            field_dict["tool_denylist"] = tool_denylist
        if cooldown_ms is not UNSET:
            field_dict["cooldown_ms"] = cooldown_ms

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        max_tokens = present(d.pop("max_tokens", UNSET))

        max_steps_remaining = present(d.pop("max_steps_remaining", UNSET))

        tool_allowlist = cast(list[str], present(d.pop("tool_allowlist", UNSET)))

        tool_denylist = cast(list[str], present(d.pop("tool_denylist", UNSET)))

        cooldown_ms = present(d.pop("cooldown_ms", UNSET))

        caps = cls(
            max_tokens=max_tokens,
            max_steps_remaining=max_steps_remaining,
            tool_allowlist=tool_allowlist,
            tool_denylist=tool_denylist,
            cooldown_ms=cooldown_ms,
        )

        caps.additional_properties = d
        return caps

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
