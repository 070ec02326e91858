"""A process dies at every single point of a settlement, and the next one finishes the job: charged exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.recovery.kit import PATIENCE_S, Setup, journal_files
from tests.support.short import IS_SHORT

HOUR_MS: Final = 3_600_000
EACH: Final = 2 if IS_SHORT else 1
NOTHING_KNOWN_YET: Final = ("before open", "after open", "before write")
"""The points at which not a byte of the amount is on disk: it dies with the process, and nothing was sent."""


def expire_on_commit(world: Setup) -> None:
    def expire(seen: Any) -> None:
        if seen.operation == "commit":
            world.server.clock.advance(HOUR_MS)

    world.server.on_arrival = expire


def throttle_once(world: Setup) -> None:
    throttled = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
    world.server.faults.clear()
    world.server.faults.status("commit", 429, body=throttled, headers={"Retry-After": "0"})


def nothing_special(world: Setup) -> None:
    pass


SETTLEMENTS: Final[dict[str, tuple[list[tuple[Any, ...]], Callable[[Setup], None], dict[str, Any], list[str]]]] = {
    "commit": ([("commit", 42)], nothing_special, {}, ["commit"]),
    "async commit": ([("commit_async", 42), ("close",)], nothing_special, {}, ["commit"]),
    "commit to disk": ([("commit", 42)], nothing_special, {"durability": "disk"}, ["commit"]),
    "expired commit": ([("commit", 42)], expire_on_commit, {}, ["commit", "event"]),
    "throttled commit": ([("commit", 42)], throttle_once, {}, ["commit"]),
    "direct event": ([("record", 42)], nothing_special, {}, ["event"]),
}


@pytest.mark.parametrize("name", SETTLEMENTS)
def test_dying_at_any_point_of_a_settlement_loses_and_doubles_nothing(manual_world: Setup, name: str) -> None:
    world = manual_world
    steps, prepare, settings, requests = SETTLEMENTS[name]
    for _ in range(2):  # the first one makes the directories, too
        prepare(world)
        whole = world.run(*steps, **settings)
        world.recover()
    assert whole.answer is not None
    points = whole.answer["points"]
    for request in requests:
        assert f"before {request}" in points
    for number, point in list(enumerate(points))[::EACH]:
        prepare(world)
        before = world.server.charged
        assert world.run(*steps, die_at=number, **settings).killed, point
        known = any(path.stat().st_size for path in journal_files(world.root)) or world.server.charged > before
        if point not in NOTHING_KNOWN_YET:
            assert known, point
        report = world.recover(**settings)
        assert report["pending"] == report["quarantined"] == 0, point
        assert world.server.charged - before == (42 if known else 0), point
        assert world.leftovers == [], point


@pytest.mark.parametrize("name", ["commit", "expired commit"])
def test_dying_at_any_point_of_the_replay_loses_and_doubles_nothing(manual_world: Setup, name: str) -> None:
    world = manual_world
    steps, prepare, settings, requests = SETTLEMENTS[name]
    prepare(world)

    def leave_a_record() -> None:
        world.server.faults.refuse("commit")
        assert world.run(*steps, ("die",), **settings).killed
        world.server.faults.clear()

    leave_a_record()
    whole = world.run(("flush", PATIENCE_S))
    assert whole.answer is not None
    points = whole.answer["points"]
    for request in requests:
        assert f"before {request}" in points
    for number, point in list(enumerate(points))[::EACH]:
        before = world.server.charged
        leave_a_record()
        world.run(("flush", PATIENCE_S), die_at=number)
        assert world.recover()["pending"] == 0, point
        assert world.server.charged - before == 42, point
        assert world.leftovers == [], point
