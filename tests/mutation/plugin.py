"""A plugin of pytest that notes which tests run which lines, or which test fails first. `run.py` loads it."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

MAP_FOLDER: Final = "MUTATION_MAP"
"""The folder for the notes of each worker; unset: lines are not traced."""
MAP_FILES: Final = "MUTATION_MAP_FILES"
"""The files whose lines are traced, with `os.pathsep` between; unset: all of `cycles`."""
FAILED_FILE: Final = "MUTATION_FAILED"
"""The file for the id of the first test that fails."""
_WARNINGS: Final = ["trace-changed", "no-data-collected", "module-not-measured", "couldnt-parse", "not-measured"]
_TOO_SLOW: Final = (
    "tests/simulation/"  # one test runs hundreds of programs, and is never among the quick ones of a line
)
_PACKAGE: Final = Path(__file__).parents[2] / "cycles"


class _Tracer:
    """Measures lines with `coverage`, and the seconds of each test that passed."""

    def __init__(self, folder: Path) -> None:
        coverage = importlib.import_module("coverage")  # installed by `make mutate`

        self._folder = folder
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        only = os.environ.get(MAP_FILES)
        what = {"include": only.split(os.pathsep)} if only else {"source": [str(_PACKAGE)]}
        self._coverage = coverage.Coverage(None, config_file=False, **what)
        self._coverage.set_option("run:disable_warnings", _WARNINGS)  # warnings are errors in the tests
        self._coverage.start()

    def begin(self, test: str) -> None:
        """Attribute lines to this test from now on."""
        if test.startswith(_TOO_SLOW):
            self._coverage.stop()
            return
        if sys.gettrace() is None:  # a test before has removed the trace
            self._coverage.stop()
            self._coverage.start()
        self._coverage.switch_context(test)

    def end(self, test: str, seconds: float) -> None:
        """Keep how long this test took."""
        self._seconds[test] = seconds

    def note(self, report: pytest.TestReport) -> None:
        """Keep whether one phase of a test failed, or was skipped."""
        if not report.passed:
            self._failed.add(report.nodeid)

    def write(self) -> None:
        """Write the notes of this process: for each file and line the tests that passed."""
        self._coverage.stop()
        data = self._coverage.get_data()
        tests = sorted(self._seconds.keys() - self._failed)
        numbers = {test: number for number, test in enumerate(tests)}
        files: dict[str, dict[int, list[int]]] = {}
        for path in data.measured_files():
            lines = data.contexts_by_lineno(path)
            files[str(Path(path).relative_to(_PACKAGE.parent))] = {
                line: [numbers[context] for context in contexts if context in numbers]
                for line, contexts in lines.items()
            }
        notes = {"tests": tests, "seconds": [self._seconds[test] for test in tests], "files": files}
        (self._folder / f"{os.getpid()}.json").write_text(json.dumps(notes))


class _Plugin:
    def __init__(self) -> None:
        folder, failed = os.environ.get(MAP_FOLDER), os.environ.get(FAILED_FILE)  # tests change the environment
        self._failed = Path(failed) if failed else None
        # Tests of a fault are in no map: those of this tool run them while its own tests are traced.
        self._tracer = _Tracer(Path(folder)) if folder and not failed else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        if self._tracer is None:
            return (yield)
        self._tracer.begin(item.nodeid)
        started_s = time.perf_counter()
        result = yield
        self._tracer.end(item.nodeid, time.perf_counter() - started_s)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._tracer is not None:
            self._tracer.note(report)
        if self._failed is not None and report.failed:
            self._failed.write_text(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if self._tracer is not None:
            self._tracer.write()


def pytest_configure(config: pytest.Config) -> None:
    """Trace in the processes that run tests: workers of xdist, or the only process."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.register(_Plugin())
