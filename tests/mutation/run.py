"""Plant random faults and report which of them the tests find: `make mutate`.

Each number draws one fault from all that the chosen modules can have, so a run is repeated by its first number. A fault
is planted in a copy of the project, and the tests that run the changed line run there, until one fails.
"""

from __future__ import annotations

import argparse
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutation import copies, coverage_map
from tests.mutation.copies import Copy, servers_of_stores
from tests.mutation.coverage_map import CoverageMap
from tests.mutation.mutants import Mutant, unchecked_mutants

ROOT: Final = Path(__file__).parents[2]
NO_EFFECT: Final = Path(__file__).with_name("no_effect.txt")
BARS: Final = {
    **dict.fromkeys(("_core", "_evidence", "_flows", "_journal", "_usage"), 0.90),
    **dict.fromkeys(("_drivers", "_http", "_client", "_wire", "providers", "embedded"), 0.85),
}
"""The packages, and the share of their faults that must be found."""
ENGINE: Final = ("_core", "_flows", "_journal", "_drivers", "_http", "_client", "_wire")
SIMULATION: Final = "tests/simulation/test_simulation.py::"
"""Tests that run all of the engine in processes of their own: long ones, for faults that no other test finds."""
FEWEST: Final = 20  # faults of one package; with fewer, its share says nothing, so only the shares of all count
TESTS_S: Final = 15.0  # seconds of the tests that run for one fault, as measured while lines are noted: a third without
DRAWS: Final = 100  # of one number, until a fault is drawn that is not listed
START_S: Final = 30.0  # and what the start of their process may take on a busy machine


class Result(NamedTuple):
    """What happened to one fault."""

    number: int
    mutant: Mutant
    found_by: str | None
    tests: int

    @property
    def package(self) -> str:
        """The package below `cycles/`."""
        return self.mutant.path.split("/")[1]


def packages() -> list[str]:
    """Return the packages that may have faults, and exist."""
    return [name for name in BARS if (ROOT / "cycles" / name).exists()]


def sources(modules: Iterable[str]) -> list[Path]:
    """Return the files of modules such as `_core`, `_http/resolver.py` or `cycles/providers`.

    Raises:
        ValueError: one of them does not exist, or is in none of the packages.
    """
    found: list[Path] = []
    for module in modules:
        name = module.removeprefix("cycles/").removeprefix("cycles.").strip("/")
        path = ROOT / "cycles" / name
        if name.partition("/")[0] not in BARS or not path.exists():
            raise ValueError(f"there is no module {module!r}; choose from: {', '.join(packages())}, or files in them")
        found += [path] if path.is_file() else path.rglob("*.py")
    return sorted(found)


def changed_sources(commits: int) -> list[Path]:
    """Return the files of the packages that the last commits changed, and that still exist."""
    listed = subprocess.run(
        ["git", "log", f"-{commits}", "--name-only", "--format=", "--", "cycles"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = {ROOT / name for name in listed.stdout.split() if name.endswith(".py") and name.split("/")[1] in BARS}
    return sorted(path for path in paths if path.exists())


def without_effect() -> set[tuple[str, str, str]]:
    """Return the path and the change of each fault that `no_effect.txt` lists.

    Raises:
        ValueError: a line does not have its four parts.
    """
    known = set()
    for line in NO_EFFECT.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            parts = [part.strip() for part in line.split("\t")]
            if len(parts) != 4 or not all(parts):
                raise ValueError(f"{NO_EFFECT.name}: {line!r:.80} needs path, old, new and reason, with tabs between")
            known.add((parts[0], parts[1], parts[2]))
    return known


def drawn(paths: list[Path], first: int, sample: int) -> list[tuple[int, Mutant]]:
    """Return one fault for each number."""
    known = without_effect()
    sources = ((str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in paths)
    every = [each for source in sources for each in unchecked_mutants(*source)]
    found = ((number, _draw(every, known, number)) for number in range(first, first + sample))
    return [(number, mutant) for number, mutant in found if mutant is not None]


def _draw(every: list[Mutant], known: set[tuple[str, str, str]], number: int) -> Mutant | None:
    """Return the fault of a number; a listed one is drawn again, so that a line in the list changes no other draw."""
    order = random.Random(number)
    drawn_again = (order.choice(every) for _ in range(DRAWS if every else 0))
    return next((each for each in drawn_again if (each.path, *each.change) not in known and each.is_valid), None)


def affordable(tests: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """Return the first tests that together take `TESTS_S` seconds at most. One that takes longer stops no later one."""
    chosen, total_s = [], 0.0
    for test in tests:
        if total_s + seconds[test] <= TESTS_S:
            total_s += seconds[test]
            chosen.append(test)
    return chosen


class Runner:
    """Runs the tests of faults, some at the same time, each in its own copy.

    Args:
        known: Which tests run which line.
        ends_s: When no further fault is begun (monotonic seconds).
        say: Prints a line.
        stores: Whether each copy has its own servers of the journal's stores.
    """

    def __init__(
        self, known: CoverageMap, ends_s: float, say: Callable[[str], object], *, stores: bool = False
    ) -> None:
        self._known = known
        self._stores = stores
        self._ends_s = ends_s
        self._say = say
        self._passes: dict[str, bool] = {}  # whether a test passes without a fault
        self._stopped = False
        self._copies: list[Copy] = []

    def run(self, faults: list[tuple[int, Mutant]], workers: int) -> list[Result]:
        """Return the results, in the order of the numbers."""
        waiting: queue.SimpleQueue[tuple[int, Mutant]] = queue.SimpleQueue()
        for fault in faults:
            waiting.put(fault)
        workers = min(workers, len(faults))  # one without a fault would only make a copy
        results: list[Result] = []
        errors: list[BaseException] = []
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def work() -> None:
            try:
                with copies.temporary_folder() as folder, servers_of_stores(self._stores) as urls:
                    self._copies.append(copy := Copy(folder, urls))
                    while not self._stopped and time.monotonic() < self._ends_s:
                        number, mutant = waiting.get_nowait()
                        results.append(self._result(copy, number, mutant))
            except queue.Empty:
                pass
            except BaseException as error:
                errors.append(error)
            finally:
                ended.put(None)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:  # not join(): before Python 3.13, a thread whose join() is interrupted counts as ended
                ended.get()
        except BaseException:  # an interrupt
            self._stopped = True
            for copy in self._copies:
                copy.end_tests()
            for thread in threads:  # which remove their copies
                thread.join()
            raise
        if errors:
            raise errors[0]
        return sorted(results)

    def _result(self, copy: Copy, number: int, mutant: Mutant) -> Result:
        of_line = self._known.tests_of(mutant)
        chosen = of_line or self._known.tests_near(mutant)
        chosen += self._known.other_cases(chosen)
        tests = affordable(filter(self._may_pass, chosen), self._known.seconds)
        found_by = self._found_by(copy, mutant, tests)
        if found_by is None and mutant.path.split("/")[1] in ENGINE:
            # Not with the others: what hangs in a quick test would be waited for as long as these take.
            seeds = [test for test in self._known.seconds if test.startswith(SIMULATION) and self._may_pass(test)]
            found_by = self._found_by(copy, mutant, seeds)
            tests += seeds
        number_of_tests = len(tests) if of_line else 0
        how = f"found by {found_by}" if found_by else f"survived {number_of_tests} tests"
        self._say(f"{number}  {mutant.path}:{mutant.first}  {mutant.kind}  {how}")
        return Result(number, mutant, found_by, number_of_tests)

    def _may_pass(self, test: str) -> bool:
        return self._passes.get(test, True)

    def _found_by(self, copy: Copy, mutant: Mutant, tests: list[str]) -> str | None:
        """Return what finds the fault. Removes tests from the list that fail without it."""
        while tests:
            limit_s = START_S + 2 * sum(self._known.seconds[test] for test in tests)
            failed = copy.first_failure(tests, limit_s, mutant)
            if failed is None or self._stopped:
                return None
            if failed not in self._known.seconds:  # they hang, or something outside of a test failed: also without it?
                return failed if copy.first_failure(tests, limit_s) is None else None
            if failed not in self._passes:  # a test that fails anyway finds nothing
                self._passes[failed] = copy.first_failure([failed], limit_s) is None
            if self._passes[failed]:
                return failed
            if failed in tests:
                tests.remove(failed)
            else:  # all cases ran, because the fault changes their ids
                tests[:] = [each for each in tests if each.partition("[")[0] != failed.partition("[")[0]]
        return None


def report(results: list[Result]) -> tuple[str, bool]:
    """Return the shares and the survivors as text, and whether every share reaches its bar."""
    lines, is_kept = [], True
    for result in results:
        if result.found_by is None:
            tests = f"survived {result.tests} tests" if result.tests else "no test runs this line"
            lines += [f"\n{result.number}: {result.mutant.kind}, {tests}", result.mutant.diff.rstrip()]
    lines.append("\npackage       found    of   share   bar")
    for bar in sorted(set(BARS.values()), reverse=True):
        group = [result for result in results if BARS[result.package] == bar]
        for package in sorted({result.package for result in group}):
            is_kept &= _row(lines, package, [result for result in group if result.package == package], bar, FEWEST)
        if group:
            is_kept &= _row(lines, "together", group, bar, 1)
    return "\n".join(lines), is_kept


def _row(lines: list[str], name: str, results: list[Result], bar: float, fewest: int) -> bool:
    found = sum(result.found_by is not None for result in results)
    share = found / len(results)
    lines.append(f"{name:12} {found:6} {len(results):5}  {share:6.1%}  {bar:.0%}")
    return share >= bar or len(results) < fewest


def _can_run_stores() -> bool:
    from tests.stores import servers  # late: without --stores, none of their code is needed

    can_run = servers.are_installed()
    if not can_run:
        missing = "redis-server, PostgreSQL, PgBouncer or their packages are missing (`make test-stores` installs them)"
        print(f"mutate: {missing}, so no test runs most lines of these stores")
    return can_run


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if each share reaches its bar, 1 if not, and 2 for wrong arguments or a changed working tree."""
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", help="packages of cycles/ or files in them; by default all")
    parser.add_argument("--sample", type=int, default=200, help="how many faults")
    parser.add_argument("--first", type=int, default=0, help="the number of the first fault")
    parser.add_argument("--changed", type=int, metavar="N", help="only files that the last N commits changed; exit 0")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no fault after these minutes")
    parser.add_argument("--workers", type=int, default=2, help="how many faults at the same time")
    parser.add_argument("--tests", nargs="+", default=[], help="measure lines with these tests only")
    parser.add_argument("--map", type=Path, help="a saved map of lines to tests")
    parser.add_argument("--stores", action="store_true", help="run servers of the journal's stores for their tests")
    options = parser.parse_args(arguments)
    ends_s = time.monotonic() + options.minutes * 60
    try:
        paths = changed_sources(options.changed) if options.changed else sources(options.modules or packages())
    except ValueError as error:
        print(f"mutate: {error}")
        return 2
    status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    if status.stdout:
        print(f"mutate: the working tree has changes, commit them first:\n{status.stdout.rstrip()}")
        return 2
    faults = drawn(paths, options.first, options.sample)
    if not faults:
        print("mutate: there is nothing to change in these files")
        return 0
    stores = options.stores and _can_run_stores()
    path = options.map or coverage_map.path_of_this_state(options.changed)
    if not path.exists() and options.map is None:
        path = coverage_map.path_of_this_state()
    if not path.exists():
        print("mutate: running the tests once, to see which lines they run", flush=True)
        coverage_map.measure(path, options.workers, options.tests, stores=stores)
    runner = Runner(coverage_map.load(path), ends_s, lambda line: print(line, flush=True), stores=stores)
    results = runner.run(faults, options.workers)
    if len(results) < len(faults):
        print(f"mutate: {len(results)} of {len(faults)} faults ran within {options.minutes:g} minutes")
    text, is_kept = report(results)
    print(text)
    return 0 if is_kept or options.changed else 1


if __name__ == "__main__":
    sys.exit(main())
