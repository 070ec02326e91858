"""Pages that list things list all of them: events with their levels and members, errors in their tree."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import attrs

import cycles
from cycles._config import Config

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_every_event_is_documented_with_its_level_and_members() -> None:
    listed = (DOCS / "events.md").read_text("utf-8").partition("## Events")[2]
    rows = [
        (name, level, members)
        for level, items in re.findall(r"^\*\*(\w+)\*\*\n(.*?)(?=^\*\*|\Z)", listed, re.MULTILINE | re.DOTALL)
        for name, members in re.findall(r"^- `(\w+)`: [^:]*: (.*?)(?=^- |\Z)", items, re.MULTILINE | re.DOTALL)
    ]
    events = {event.__name__: event for event in cycles.events.Event.__subclasses__()}
    assert sorted(name for name, _, _ in rows) == sorted(events)
    assert all(re.search(r"`\w+`", members) for _, _, members in rows)
    for name, level, members in rows:
        assert logging.getLevelName(events[name].level) == level, name
        for member in re.findall(r"`(\w+)`", members):
            assert member in {*attrs.fields_dict(events[name]), *dir(events[name])}, f"{name}.{member}"


def test_the_tree_of_errors_in_the_page_is_complete() -> None:
    tree = re.search(r"```text\n(CyclesError\n.*?)```", (DOCS / "failures.md").read_text(), re.DOTALL)
    assert tree is not None
    above: list[tuple[int, str]] = []
    parents: dict[str, str | None] = {}
    for line in tree[1].splitlines():
        depth = len(line) - len(line.lstrip("│├└─ "))
        names = re.findall(r"\w+Error", re.split(r"  +", line.lstrip("│├└─ "))[0])
        above = [(d, name) for d, name in above if d < depth]
        parents |= dict.fromkeys(names, above[-1][1] if above else None)
        above += [(depth, names[0])]
    below = {name: parent for name, parent in parents.items() if parent is not None}
    assert below
    for name, parent in below.items():
        assert issubclass(getattr(cycles, name), getattr(cycles, parent)), name
    errors = {
        name
        for name in cycles.__all__
        if name.endswith("Error") and issubclass(getattr(cycles, name), cycles.CyclesError)
    }
    assert set(parents) == errors


def test_every_setting_of_the_client_is_documented_with_its_default_and_an_example() -> None:
    settings = (DOCS / "client.md").read_text("utf-8").partition("## Settings")[2].partition("\n## ")[0]
    rows = re.findall(r"^- (`[^(]+`) \((.+?)\): .+; `(.+)`$", settings, re.MULTILINE)
    shown = {name: default for names, default, _ in rows for name in re.findall(r"`(\w+)`", names)}
    fields = attrs.fields_dict(Config)
    assert set(shown) == set(fields)
    for name, default in shown.items():
        expected = "none: required" if name in ("base_url", "api_key") else f"`{fields[name].default!r}`"
        assert default.replace('"', "'") == expected.replace('"', "'"), name
    for names, _, example in rows:
        if example not in ("ask_a_person",):
            name = re.findall(r"`(\w+)`", names)[0]
            Config(base_url="https://cycles.example.com", api_key="k").with_settings(
                **{name: ast.literal_eval(example)}
            )
