"""Run ``python -m cycles.embedded`` as a process, for tests that start, stop and kill it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEY = "cyc_live_process_test"


@contextmanager
def embedded_process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a running server and its URL. The server is killed at the end."""
    command = [sys.executable, "-W", "error", "-m", "cycles.embedded", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise AssertionError(f"the server did not start: {line}{process.communicate(timeout=300)}")
        yield process, found[0]
    finally:
        process.kill()
        process.communicate(timeout=300)
