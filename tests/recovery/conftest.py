"""A world per test; one socket, and one process that children are forked from, serve them all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cycles
from tests.recovery.kit import Children, Setup, opened
from tests.support.doors import Door, door as door


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.close()


@pytest.fixture
def make_world(
    door: Door, children: Children, tmp_path: Path
) -> Iterator[Callable[[cycles.ManualClock | None], Setup]]:
    with contextlib.ExitStack() as stack:

        def make(clock: cycles.ManualClock | None) -> Setup:
            return stack.enter_context(opened(door, Setup(door.url, children, tmp_path, clock)))

        yield make


@pytest.fixture
def world(make_world: Callable[[cycles.ManualClock | None], Setup]) -> Setup:
    """A server with the machine's own clock."""
    return make_world(None)


@pytest.fixture
def manual_world(make_world: Callable[[cycles.ManualClock | None], Setup]) -> Setup:
    """The same with a server whose clock stands still until the test advances it."""
    return make_world(cycles.ManualClock())
