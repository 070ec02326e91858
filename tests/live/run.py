"""Run the live tests: ``python -m tests.live.run SCRIPT``. This is what `make test-live` runs.

If CYCLES_CONTRACT_URL names a server, the contract runs against it. Otherwise SCRIPT starts the reference servers in a
temporary folder; the contract and the fault runs use them, and they are stopped at the end, also after a failure.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from .reference import has_ended, wait_until

ROOT = Path(__file__).parents[2]
CONTRACT = "tests/contract"
ADMIN = "tests/admin"
FAULTS = "tests/live/test_reference.py"
EXPORT = re.compile(r"export (CYCLES_CONTRACT_\w+)=(.*)")


def run_tests(path: str, settings: Mapping[str, str]) -> int:
    """Run pytest on the live server and return its exit status."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", path]
    environment = os.environ | settings | {"CYCLES_CONTRACT_ONLY_LIVE": "1"}
    started = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print(f"test-live: {path}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return status


def call(script: Path, *arguments: str) -> str:
    """Run the script and return its output; a failure ends this program with the script's message."""
    done = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"test-live: {script} {' '.join(arguments)} failed with status {done.returncode}; see its message above"
        )
    return done.stdout


def with_servers(script: Path) -> int:
    """Start the reference servers, run contract, administration and fault runs, and stop the servers."""
    call(script, "need")
    with tempfile.TemporaryDirectory(prefix="cycles-live-") as folder:
        try:
            settings = dict(EXPORT.findall(call(script, "start", folder)))
            contract = run_tests(CONTRACT, settings) or run_tests(ADMIN, settings)
            return run_tests(FAULTS, settings | {"CYCLES_REFERENCE_FOLDER": folder}) or contract
        finally:
            processes = [int(file.read_text()) for file in Path(folder).glob("*.pid")]
            call(script, "stop", folder)
            for process in processes:  # they write into the folder until they end
                wait_until(lambda process=process: has_ended(process))


def main(script: Path) -> int:
    """Choose the server, run the tests, and return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    if os.environ.get("CYCLES_CONTRACT_URL"):
        print("test-live: fault runs skipped, because they end and start the server; unset CYCLES_CONTRACT_URL")
        return run_tests(CONTRACT, {})
    if not script.exists():
        sys.exit(f"test-live: no server: {script} does not exist; set REFERENCE_SERVERS or CYCLES_CONTRACT_URL")
    return with_servers(script.resolve())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
