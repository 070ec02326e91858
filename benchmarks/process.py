"""Python processes of the benchmark: measure the cost of one, and start the stub server in one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Cost(NamedTuple):
    """CPU and wall time of one whole process."""

    cpu_s: float
    wall_s: float
    output: Any
    """The last line it printed, read as JSON (None if it printed nothing)."""


def run(code: str, *arguments: object) -> Cost:
    """Run `code` in a fresh interpreter and wait for its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    # Compiled files are part of any installation, so they are part of what is measured.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"a measured process failed with {process.returncode}: {code}")
    output = json.loads(printed.splitlines()[-1]) if printed else None
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begun, output)


@contextlib.contextmanager
def stub(delay_ms: float = 0.0) -> Iterator[int]:
    """Start the stub server in a separate process, and yield its port. It responds `delay_ms` later."""
    command = [sys.executable, "-m", "benchmarks.server", str(delay_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def counts(port: int) -> dict[str, int]:
    """Return what the stub received since the last call: requests, bytes, connections."""
    return read_json(port, "/counts")


def read_json(port: int, path: str) -> dict[str, Any]:
    """Return the figures of a benchmark server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
        figures: dict[str, Any] = json.load(response)
    return figures
