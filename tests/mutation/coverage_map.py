"""Which tests run which line: measured once for each state of `cycles/` and `tests/`, and kept in `build/mutation`."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.mutation.copies import servers_of_stores
from tests.mutation.mutants import Mutant
from tests.mutation.plugin import MAP_FILES, MAP_FOLDER
from tests.mutation.uses import uses_of

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "build" / "mutation"
MOST_TESTS: Final = 120  # kept for a line: the quick ones that run few other lines, of all files
MOST_CASES: Final = 2  # of the same test function come first: its other cases often find the same
TURN: Final = 3  # tests of one file, before the next ones of the other files
FIRST_TURNS: Final = 3  # of a file that imports the module of the line
AROUND: Final = 30  # lines above and below a fault of a line that no test runs in its own process
NEAR: Final = 5  # lines above and below a fault; a test that runs a rare one of them is likely to see the fault


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
        """Return the tests that run the changed lines, or else the statement; of a name, those that run its uses."""
        lines = self._files.get(mutant.path, {})
        if not mutant.in_function:
            uses = self._of_uses(mutant)
            # A test that compares a table with a page runs no line of the package.
            files = importers(ROOT, frozenset({module_of(mutant.path)}))
            files |= importers(ROOT, frozenset(map(module_of, files)))  # by a helper in `tests`
            comparing = [number for number in range(len(self.tests)) if self._file(number) in files]
            comparing.sort(key=lambda number: self.seconds[self.tests[number]])
            # Few cases of each test come first, so that no test with many of them takes the place of all others.
            cases, turns = Counter[str](), dict[int, int]()
            for number in comparing:
                cases[function := self.tests[number].partition("[")[0]] += 1
                turns[number] = cases[function]
            comparing.sort(key=lambda number: turns[number] > MOST_CASES)
            found = [*comparing[: MOST_TESTS // 2], *(self._ranked(uses) or self._ranked(lines.values()))]
            return [self.tests[number] for number in dict.fromkeys(found)][:MOST_TESTS]
        for first, last in ((mutant.first, mutant.last), mutant.statement):
            if found := self._ranked(lines.get(str(line), []) for line in range(first, last + 1)):
                near: list[Sequence[int]] = [lines.get(str(line), []) for line in range(first - NEAR, last + NEAR + 1)]
                # A line that thousands of tests run keeps few of each file; a rare line beside it keeps all.
                rare = [number for numbers in near if len(numbers) < MOST_TESTS for number in numbers]
                return self._named_first(mutant, self._rarest_first(list(dict.fromkeys([*found, *rare])), near))
        return []

    def tests_near(self, mutant: Mutant) -> list[str]:
        """Return the tests that run lines around it: one of their processes or forks may run the changed line.

        If the line runs at import, to make a row of a table, those that run the uses of the table.
        """
        lines = self._files.get(mutant.path, {})
        near = range(mutant.first - AROUND, mutant.last + AROUND + 1)
        of_lines = [*(lines.get(str(line), ()) for line in near), *self._of_uses(mutant)]
        return self._named_first(mutant, self._ranked(of_lines))

    def _of_uses(self, mutant: Mutant) -> list[Sequence[int]]:
        uses = uses_of(mutant.path, mutant.source, mutant.first)
        return [self._files.get(path, {}).get(str(line), ()) for path, line in uses]

    def other_cases(self, tests: Sequence[str]) -> list[str]:
        """Return the other cases of these tests: a line keeps few of them, and a fault may change only one of these."""
        cases = dict[str, list[str]]((test.partition("[")[0], []) for test in tests)
        for test in self.seconds.keys() - set(tests):
            if (function := test.partition("[")[0]) in cases:
                cases[function].append(test)
        return [case for each in cases.values() for case in sorted(each)]

    def _named_first(self, mutant: Mutant, found: list[int]) -> list[str]:
        """Return the tests: those whose file imports the module come first."""
        imports = {
            file: f" {module_of(mutant.path)} import" in _text(ROOT / file) for file in {self._file(n) for n in found}
        }
        return [self.tests[n] for n in sorted(found, key=lambda number: not imports[self._file(number)])]

    def _file(self, number: int) -> str:
        return self.tests[number].partition("::")[0]

    def _ranked(self, of_lines: Iterable[Sequence[int]]) -> list[int]:
        """Return the tests of some lines: those that are high in the lists of many lines first."""
        ranks = Counter[int]()
        for numbers in of_lines:
            for rank, number in enumerate(numbers):
                ranks[number] += MOST_TESTS - rank
        return [number for number, _ in ranks.most_common(MOST_TESTS)]

    def _rarest_first(self, found: list[int], near: list[Sequence[int]]) -> list[int]:
        """Return the tests in the order of how rare the lines near the fault are that they run."""
        rarest: dict[int, int] = {}  # how many tests run the rarest line that this test runs
        for numbers in near:
            for number in numbers:
                rarest[number] = min(len(numbers), rarest.get(number, MOST_TESTS))
        return sorted(found, key=lambda number: rarest.get(number, MOST_TESTS))

    def save(self, path: Path) -> None:
        """Write the map."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # A test is twice in the list if a test forked a worker: the child writes notes too.
        seconds = [self.seconds[test] for test in self.tests]
        content = {"tests": self.tests, "seconds": seconds, "files": self._files}
        new = path.with_suffix(".new")
        with gzip.open(new, "wt", encoding="utf-8", compresslevel=1) as file:
            json.dump(content, file)
        new.replace(path)


def load(path: Path) -> CoverageMap:
    """Read a map that was saved."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    return CoverageMap(content["tests"], content["seconds"], content["files"])


def path_of_this_state(changed: int | None = None) -> Path:
    """Return where the map of the checked out state is kept: of all files, or of those that some commits changed."""
    trees = subprocess.run(
        ["git", "rev-parse", "HEAD:cycles", "HEAD:tests"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    part = f"-changed-{changed}" if changed else ""
    return FOLDER / f"map-{trees.stdout[:12]}-{trees.stdout.split()[1][:12]}{part}.json.gz"


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

    files = {}
    for path, lines in every.items():
        its = importers(ROOT, frozenset({module_of(path)}))
        files[path] = {n: _best(sorted(numbers, key=cost), tests, its) for n, numbers in lines.items() if numbers}
    return CoverageMap(tests, seconds, files)


def _best(numbers: list[int], tests: list[str], its: set[str]) -> list[int]:
    """Return the first tests: the best ones of each file in turn, and few cases of each test function before others.

    A file that imports the module, one of `its`, has its first turns before all others.
    """
    cases, of_file = Counter[str](), Counter[tuple[bool, str]]()
    turns: list[tuple[bool, int, int]] = []
    for position, number in enumerate(numbers):
        function = tests[number].partition("[")[0]
        cases[function] += 1
        group = (cases[function] > MOST_CASES, function.partition("::")[0])
        of_file[group] += 1
        turns.append((group[0], of_file[group] // TURN - FIRST_TURNS * (group[1] in its), position))
    return [numbers[position] for _, _, position in sorted(turns)[:MOST_TESTS]]


def module_of(path: str) -> str:
    """Return the dotted name of a module."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def importers(root: Path, modules: frozenset[str]) -> set[str]:
    """Return the files of tests that import one of some modules."""
    names = (module.rpartition(".") for module in sorted(modules))
    pattern = re.compile("|".join(rf"from {a}(?:\.{b} import| import [^()\n]*\b{b}\b)" for a, _, b in names) or "$.")
    paths = sorted((root / "tests").rglob("*.py"))
    return {path.relative_to(root).as_posix() for path in paths if pattern.search(_text(path))}


@cache
def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def measure(
    path: Path,
    workers: int,
    tests: list[str],
    arguments: list[str] | None = None,
    files: Iterable[Path] = (),
    *,
    stores: bool = False,
) -> int:
    """Run the tests, and save the map of those that pass. Return the exit code of pytest.

    Args:
        path: Where the map is saved.
        workers: Processes that run tests at the same time.
        tests: Folders or files of tests.
        arguments: Further arguments of pytest.
        files: Whose lines are measured; by default those of all files.
        stores: Whether the tests of the journal's stores run once more, with their servers.
    """
    with tempfile.TemporaryDirectory(prefix="cycles-map-") as folder:
        environment = os.environ | {MAP_FOLDER: folder, MAP_FILES: os.pathsep.join(map(str, files))}
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "worksteal"]
        command += ["-p", "tests.mutation.plugin", *(arguments or ()), *tests]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if stores:
            with servers_of_stores(are_wanted=True) as urls:
                command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "tests.mutation.plugin"]
                subprocess.run([*command, "tests/stores"], cwd=ROOT, env=environment | urls, check=False)
        joined([json.loads(each.read_text("utf-8")) for each in sorted(Path(folder).iterdir())]).save(path)
    return code
