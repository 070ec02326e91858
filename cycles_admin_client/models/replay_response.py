from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ReplayResponse")


@_attrs_define
class ReplayResponse:
    """A started replay.

    Attributes:
        replay_id (str): Id of the replay.
        events_queued (int | Unset): Number of events to deliver.
        estimated_completion_seconds (int | Unset): Estimated duration, in seconds.
    """

    replay_id: str
    events_queued: int | Unset = UNSET
    estimated_completion_seconds: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        replay_id = self.replay_id

        events_queued = self.events_queued

        estimated_completion_seconds = self.estimated_completion_seconds

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "replay_id": replay_id,
            }
        )
        if events_queued is not UNSET:
            field_dict["events_queued"] = events_queued
        if estimated_completion_seconds is not UNSET:
            field_dict["estimated_completion_seconds"] = estimated_completion_seconds

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        replay_id = d.pop("replay_id")

        events_queued = present(d.pop("events_queued", UNSET))

        estimated_completion_seconds = present(d.pop("estimated_completion_seconds", UNSET))

        replay_response = cls(
            replay_id=replay_id,
            events_queued=events_queued,
            estimated_completion_seconds=estimated_completion_seconds,
        )

        replay_response.additional_properties = d
        return replay_response

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
