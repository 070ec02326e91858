from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="Subject")


@_attrs_define
class Subject:
    """Who spends: at least one of six levels, from the tenant down to the toolset.

    Attributes:
        tenant (str | Unset): Level 1, the organisation that owns the budgets.
        workspace (str | Unset): Level 2, a part or an environment of the tenant.
        app (str | Unset): Level 3, the application.
        workflow (str | Unset): Level 4, the process the action belongs to.
        agent (str | Unset): Level 5, the agent that acts.
        toolset (str | Unset): Level 6, the set of tools in use.
        dimensions (Any | Unset): Free labels for reports; alone they are no subject.
    """

    tenant: str | Unset = UNSET
    workspace: str | Unset = UNSET
    app: str | Unset = UNSET
    workflow: str | Unset = UNSET
    agent: str | Unset = UNSET
    toolset: str | Unset = UNSET
    dimensions: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        tenant = self.tenant

        workspace = self.workspace

        app = self.app

        workflow = self.workflow

        agent = self.agent

        toolset = self.toolset

        dimensions = self.dimensions

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if tenant is not UNSET:
            field_dict["tenant"] = tenant
        if workspace is not UNSET:
            field_dict["workspace"] = workspace
        if app is not UNSET:
            field_dict["app"] = app
        if workflow is not UNSET:
            field_dict["workflow"] = workflow
        if agent is not UNSET:
            field_dict["agent"] = agent
        if toolset is not UNSET:
            field_dict["toolset"] = toolset
        if dimensions is not UNSET:
            field_dict["dimensions"] = dimensions

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        tenant = present(d.pop("tenant", UNSET))

        workspace = present(d.pop("workspace", UNSET))

        app = present(d.pop("app", UNSET))

        workflow = present(d.pop("workflow", UNSET))

        agent = present(d.pop("agent", UNSET))

        toolset = present(d.pop("toolset", UNSET))

        dimensions = present(d.pop("dimensions", UNSET))

        subject = cls(
            tenant=tenant,
            workspace=workspace,
            app=app,
            workflow=workflow,
            agent=agent,
            toolset=toolset,
            dimensions=dimensions,
        )

        subject.additional_properties = d
        return subject

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
