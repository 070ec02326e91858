"""The page about events tells of every event, with its level and members that exist."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import attrs

import cycles

PAGE = (Path(__file__).parent.parent.parent / "docs" / "events.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| (\w+) \| .*?(?:: (.*))? \|$", PAGE, re.MULTILINE)


def test_every_event_is_documented_with_its_level_and_members() -> None:
    events = {event.__name__: event for event in cycles.events.Event.__subclasses__()}
    assert {name for name, _, _ in ROWS} == set(events)
    for name, level, members in ROWS:
        assert logging.getLevelName(events[name].level) == level, name
        for member in re.findall(r"`(\w+)`", members):
            assert member in attrs.fields_dict(events[name]) or hasattr(events[name], member), f"{name}.{member}"
