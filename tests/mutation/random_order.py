"""Run all tests once in a random order, and save which lines they run: `make test-random`.

The order is that of the files, and of the tests in a file. The seed is printed, and is the argument that repeats it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from typing import Final

import pytest

from tests.mutation import coverage_map
from tests.mutation.run import changed_sources

SEED: Final = "MUTATION_ORDER"
"""The environment variable with the seed, for the processes that run tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle files, and tests inside their file, as the seed says; tests of a file stay together."""
    shuffle(items, int(os.environ[SEED]))


def shuffle(items: list[pytest.Item], seed: int) -> None:
    """Bring the tests into the order of a seed: the same in every process, so that workers agree."""
    order = random.Random(seed)
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    groups = list(files.values())
    order.shuffle(groups)
    for group in groups:
        order.shuffle(group)
    items[:] = [item for group in groups for item in group]


def main() -> int:
    """Return the exit code of pytest."""
    parser = argparse.ArgumentParser(prog="make test-random", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="of the order; by default a random one")
    parser.add_argument("--changed", type=int, help="trace only files that the last commits changed, which is quicker")
    parser.add_argument(
        "--pytest", nargs=argparse.REMAINDER, default=[], help="further arguments of pytest, at the end"
    )
    options = parser.parse_args()
    seed, changed = options.seed, options.changed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    os.environ[SEED] = str(seed)
    print(f"the order of the tests has the seed {seed}: make test-random ORDER={seed}", flush=True)
    files = changed_sources(changed) if changed else ()
    path, workers = coverage_map.path_of_this_state(changed), min(2 * (os.cpu_count() or 1), 8)
    code = coverage_map.measure(path, workers, [], ["-p", "tests.mutation.random_order", *options.pytest], files)
    if code:
        print(f"the tests failed in this order: make test-random ORDER={seed}")
    return code


if __name__ == "__main__":
    sys.exit(main())
