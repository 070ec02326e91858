"""A world per test; one socket, and one process that children are forked from, serve them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cycles
from tests.recovery.kit import Children, Door, Setup


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.close()


@pytest.fixture(scope="session")
def door() -> Iterator[tuple[Door, str]]:
    door = Door()
    with door.open() as url:
        yield door, url


@pytest.fixture
def make_world(
    door: tuple[Door, str], children: Children, tmp_path: Path
) -> Iterator[Callable[[cycles.ManualClock | None], Setup]]:
    entrance, url = door

    def make(clock: cycles.ManualClock | None) -> Setup:
        world = Setup(url, children, tmp_path, clock)
        entrance.ledger = world.server
        return world

    yield make
    if entrance.ledger is not None:
        entrance.ledger.close()
        entrance.ledger = None


@pytest.fixture
def world(make_world: Callable[[cycles.ManualClock | None], Setup]) -> Setup:
    """A server with the machine's own clock."""
    return make_world(None)


@pytest.fixture
def manual_world(make_world: Callable[[cycles.ManualClock | None], Setup]) -> Setup:
    """The same with a server whose clock stands still until the test advances it."""
    return make_world(cycles.ManualClock())
