from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define

from ..types import UNSET, Unset, present

T = TypeVar("T", bound="ReplayRequest")


@_attrs_define
class ReplayRequest:
    """Which events to deliver again.

    Attributes:
        from_ (datetime.datetime): Start of the events.
        to (datetime.datetime): End of the events.
        event_types (list[str] | Unset): Types of the events.
        max_events (int | Unset): Maximum number of events.
    """

    from_: datetime.datetime
    to: datetime.datetime
    event_types: list[str] | Unset = UNSET
    max_events: int | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        from_ = self.from_.isoformat()

        to = self.to.isoformat()

        event_types: list[str] | Unset = UNSET
        if not isinstance(self.event_types, Unset):
            event_types = self.event_types

        max_events = self.max_events

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "from": from_,
                "to": to,
            }
        )
        if event_types is not UNSET:
            field_dict["event_types"] = event_types
        if max_events is not UNSET:
            field_dict["max_events"] = max_events

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        from_ = datetime.datetime.fromisoformat(d.pop("from"))

        to = datetime.datetime.fromisoformat(d.pop("to"))

        event_types = cast(list[str], present(d.pop("event_types", UNSET)))

        max_events = present(d.pop("max_events", UNSET))

        replay_request = cls(
            from_=from_,
            to=to,
            event_types=event_types,
            max_events=max_events,
        )

        return replay_request
