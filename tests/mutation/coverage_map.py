"""Which tests run which line: measured once for each state of `cycles/` and `tests/`, and kept in `build/mutation`."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.mutation.mutants import Mutant
from tests.mutation.plugin import MAP_FOLDER

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "build" / "mutation"
MOST_TESTS: Final = 150  # kept for a line: the quick ones that run few other lines


class CoverageMap:
    """The tests of each line.

    Args:
        tests: Node ids.
        seconds: How long each test took.
        files: Path, then line, then positions in `tests`, the best test for this line first.
    """

    def __init__(self, tests: list[str], seconds: list[float], files: dict[str, dict[str, list[int]]]) -> None:
        self.tests = tests
        self.seconds = dict(zip(tests, seconds, strict=True))
        self._files = files

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run the changed lines, or else the function; for code that runs at import, the file."""
        lines = self._files.get(mutant.path, {})
        for wanted in (range(mutant.first, mutant.last + 1), mutant.in_function and range(*_inclusive(mutant))):
            if wanted and (found := self._ranked(lines.get(str(line), ()) for line in wanted)):
                return found
        return [] if mutant.in_function else self._ranked(lines.values())

    def _ranked(self, of_lines: Iterable[Iterable[int]]) -> list[str]:
        """Return the tests of some lines: those that are high in the lists of many lines first."""
        ranks = Counter[int]()
        for numbers in of_lines:
            for rank, number in enumerate(numbers):
                ranks[number] += MOST_TESTS - rank
        return [self.tests[number] for number, _ in ranks.most_common(MOST_TESTS)]

    def save(self, path: Path) -> None:
        """Write the map."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"tests": self.tests, "seconds": list(self.seconds.values()), "files": self._files}
        new = path.with_suffix(".new")
        with gzip.open(new, "wt", encoding="utf-8", compresslevel=1) as file:
            json.dump(content, file)
        new.replace(path)


def _inclusive(mutant: Mutant) -> tuple[int, int]:
    assert mutant.in_function is not None
    return mutant.in_function[0], mutant.in_function[1] + 1


def load(path: Path) -> CoverageMap:
    """Read a map that was saved."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    return CoverageMap(content["tests"], content["seconds"], content["files"])


def path_of_this_state() -> Path:
    """Return where the map of the checked out state is kept."""
    trees = subprocess.run(
        ["git", "rev-parse", "HEAD:cycles", "HEAD:tests"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return FOLDER / f"map-{trees.stdout[:12]}-{trees.stdout.split()[1][:12]}.json.gz"


def joined(notes: list[dict[str, Any]]) -> CoverageMap:
    """Join the notes of the processes that ran tests."""
    tests: list[str] = []
    seconds: list[float] = []
    lines_of: Counter[int] = Counter()
    every: dict[str, dict[str, list[int]]] = {}
    for note in notes:
        offset = len(tests)
        tests += note["tests"]
        seconds += note["seconds"]
        for path, lines in note["files"].items():
            for line, numbers in lines.items():
                moved = [number + offset for number in numbers]
                lines_of.update(moved)
                every.setdefault(path, {}).setdefault(line, []).extend(moved)

    def cost(number: int) -> float:
        return lines_of[number] * (seconds[number] + 0.01)

    files = {
        path: {line: sorted(numbers, key=cost)[:MOST_TESTS] for line, numbers in lines.items() if numbers}
        for path, lines in every.items()
    }
    return CoverageMap(tests, seconds, files)


def measure(path: Path, workers: int, tests: list[str], arguments: list[str] | None = None) -> int:
    """Run the tests, and save the map of those that pass. Return the exit code of pytest.

    Args:
        path: Where the map is saved.
        workers: Processes that run tests at the same time.
        tests: Folders or files of tests.
        arguments: Further arguments of pytest.
    """
    with tempfile.TemporaryDirectory(prefix="cycles-map-") as folder:
        environment = os.environ | {MAP_FOLDER: folder}
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile"]
        command += ["-p", "tests.mutation.plugin", *(arguments or ()), *tests]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        joined([json.loads(each.read_text("utf-8")) for each in sorted(Path(folder).iterdir())]).save(path)
    return code
