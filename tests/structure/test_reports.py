"""Events of the flows and the drivers: one table of levels, no class that is not needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cycles import events
from cycles._drivers.reporting import Reporter
from cycles._flows.reports import LEVELS

CYCLES = Path(__file__).parents[2] / "cycles"
IMPORT = re.compile(r"^ *(from cycles\.events import|import cycles\.events|from cycles import events)", re.M)


def test_each_level_is_the_level_of_its_class() -> None:
    assert {name: getattr(events, name).level for name in LEVELS} == LEVELS


def test_only_reports_imports_the_event_classes() -> None:
    found = [
        path.relative_to(CYCLES).as_posix()
        for folder in ("_flows", "_core")
        for path in sorted((CYCLES / folder).rglob("*.py"))
        if re.search(
            r"^ *(from cycles\.events import|import cycles\.events|from cycles import events)", path.read_text(), re.M
        )
    ]
    assert found == ["_flows/reports.py"]


class Ids:
    reservation_id = "r1"
    trace_id = "t1"


def test_an_event_has_the_ids_of_its_object_and_those_that_are_passed() -> None:
    seen: list[events.Event] = []
    reporter = Reporter()
    reporter.add(seen.append)
    reporter.report("Released", Ids(), reason="why", trace_id="t2")
    assert seen == [events.Released(reservation_id="r1", request_id=None, trace_id="t2", reason="why")]


def test_an_event_below_the_level_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(LEVELS["Released"] + 1, "cycles")
    Reporter().report("Released", Ids(), no_such_member=1)
    caplog.set_level(LEVELS["Released"], "cycles")
    with pytest.raises(TypeError, match="no_such_member"):
        Reporter().report("Released", Ids(), no_such_member=1)
