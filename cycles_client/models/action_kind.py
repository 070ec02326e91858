from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.risk_class import RiskClass
from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ActionKind")


@_attrs_define
class ActionKind:
    """A registered kind of actions.

    Attributes:
        kind (str): Name of the kind.
        risk_class (RiskClass): How much harm an action can do, ascending.
        description (str | Unset): What actions of the kind do.
        mcp_tool_prefixes (list[str] | Unset): Prefixes of the names of MCP tools of this kind.
        deprecated (bool | Unset): Whether another kind replaces it.
        replacement_kind (str | Unset): The kind that replaces it.
    """

    kind: str
    risk_class: RiskClass
    description: str | Unset = UNSET
    mcp_tool_prefixes: list[str] | Unset = UNSET
    deprecated: bool | Unset = UNSET
    replacement_kind: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        kind = self.kind

        risk_class = RiskClass(self.risk_class).value

        description = self.description

        mcp_tool_prefixes: list[str] | Unset = UNSET
        if not isinstance(self.mcp_tool_prefixes, Unset):
            mcp_tool_prefixes = self.mcp_tool_prefixes

        deprecated = self.deprecated

        replacement_kind = self.replacement_kind

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "kind": kind,
                "risk_class": risk_class,
            }
        )
        if description is not UNSET:
            field_dict["description"] = description
        if mcp_tool_prefixes is not UNSET:
            field_dict["mcp_tool_prefixes"] = mcp_tool_prefixes
        if deprecated is not UNSET:
            field_dict["deprecated"] = deprecated
        if replacement_kind is not UNSET:
            field_dict["replacement_kind"] = replacement_kind

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        kind = d.pop("kind")

        risk_class = RiskClass(d.pop("risk_class"))

        description = present(d.pop("description", UNSET))

        mcp_tool_prefixes = cast(list[str], present(d.pop("mcp_tool_prefixes", UNSET)))

        deprecated = present(d.pop("deprecated", UNSET))

        replacement_kind = present(d.pop("replacement_kind", UNSET))

        action_kind = cls(
            kind=kind,
            risk_class=risk_class,
            description=description,
            mcp_tool_prefixes=mcp_tool_prefixes,
            deprecated=deprecated,
            replacement_kind=replacement_kind,
        )

        action_kind.additional_properties = d
        return action_kind

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
