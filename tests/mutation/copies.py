"""Run tests on copies of the project, so that no fault is ever in the working tree, also if the run is interrupted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.mutation.mutants import Mutant
from tests.mutation.plugin import FAILED_FILE

ROOT: Final = Path(__file__).parents[2]
_REMOVALS: Final = 100  # attempts, 0.1 s apart
HANGS_S: Final = 20  # after which one test has failed: the quick ones of a line take less than 5 s
MORE_CASES: Final = 10  # how much longer all cases of the tests may take: one that hangs ends earlier
_INTERNAL_ERROR: Final = 3  # exit codes of pytest
_NO_TESTS: Final = (4, 5)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is removed at the end, also if processes that were killed still write to it for a moment."""
    folder = Path(tempfile.mkdtemp(prefix="cycles-mutants-"))
    try:
        yield folder
    finally:
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)


@contextlib.contextmanager
def servers_of_stores(are_wanted: bool) -> Iterator[dict[str, str]]:
    """Run the servers of the journal's stores, if wanted, and yield the environment variables of their tests."""
    if not are_wanted:
        yield {}
        return
    from tests.stores import servers  # late: without them, none of their code is needed

    with servers.running() as urls:
        yield urls


class Copy:
    """A copy of the tracked files, in which one process of pytest runs at a time.

    Args:
        folder: Where it is made.
        environment: Further environment variables of the tests.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            target = folder / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)

    def first_failure(self, tests: list[str], limit_s: float, mutant: Mutant | None = None) -> str | None:
        """Return the first of these tests that fails, or what else went wrong; None if all pass.

        Args:
            tests: Node ids, in the order in which they run.
            limit_s: The seconds for all of them; after them, the tests hang.
            mutant: The fault to plant. It is removed again.
        """
        if mutant is None:
            return self._run(tests, limit_s, is_changed=False)
        path = self._folder / "project" / mutant.path
        try:
            self._write(path, mutant.mutated)
            return self._run(tests, limit_s, is_changed=True)
        finally:
            self._write(path, mutant.source)

    @staticmethod
    def _write(path: Path, source: str) -> None:
        path.write_text(source, "utf-8")
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):  # it counts as current for a second
            compiled.unlink()

    def _run(self, tests: list[str], limit_s: float, *, is_changed: bool) -> str | None:
        failed = self._folder / "failed"
        failed.unlink(missing_ok=True)
        project = self._folder / "project"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:xdist", "-p", "tests.mutation.plugin", *tests]
        # What tests that are killed leave behind is removed with the copy.
        temporary = self._folder / "t"
        temporary.mkdir(exist_ok=True)
        environment = (
            os.environ
            | self._environment
            | {"PYTHONPATH": str(project), FAILED_FILE: str(failed), "TMPDIR": str(temporary)}
            | {"PYTEST_TIMEOUT": str(HANGS_S)}  # of pytest-timeout
        )
        with (self._folder / "output").open("w+", encoding="utf-8") as output:
            self._process = process = subprocess.Popen(
                command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return f"no end within {limit_s:.0f} s"
            finally:
                self.end_tests()
            output.seek(0)
            text = output.read()
        if code == 0:
            return None
        if failed.exists():
            return failed.read_text("utf-8")
        are_missing = code in _NO_TESTS and "Error" not in text
        functions = list(dict.fromkeys(test.partition("[")[0] for test in tests))
        if are_missing and is_changed and functions != tests:  # ids of cases show a value that the fault has changed
            return self._run(functions, MORE_CASES * limit_s, is_changed=True)
        # A fault may end pytest itself, with an interrupt of its thread. Without a fault, the tests cannot run here.
        if are_missing or (code == _INTERNAL_ERROR and not is_changed):
            raise RuntimeError(f"pytest cannot run these tests: {text[-2000:]}")
        return f"pytest exit code {code}"

    def end_tests(self) -> None:
        """End the tests that run, and the processes that they have started. May be called from any thread."""
        if (process := self._process) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
