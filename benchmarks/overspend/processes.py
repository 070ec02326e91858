"""The processes of one cell. Each is ended by the id of the process that this one started, and no other is."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
CELL_S: Final = 300
"""Seconds after which a case is ended."""


class CellError(Exception):
    """A cell could not be measured; the message is its line in the report."""


def variables(**more: str) -> dict[str, str]:
    """Return the environment of a process: without settings of Cycles and of proxies."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("CYCLES_") and not n.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": "", "LITELLM_LOCAL_MODEL_COST_MAP": "True", **more}


@contextlib.contextmanager
def running(command: list[str], folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process until the end of the block, and kill it then."""
    log = (folder / f"{Path(command[-1]).stem[:20]}-{time.monotonic_ns()}.log").open("w")
    process = subprocess.Popen(
        command, cwd=folder, env=variables(**more), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        log.close()


@dataclass(frozen=True)
class Bank:
    """The fake provider."""

    url: str

    def plan(self, plan: dict[str, Any]) -> None:
        """Begin a case."""
        self._request("/_plan", plan)

    def bill(self) -> dict[str, Any]:
        """Return the bill in microcents, the requests, and the responses made."""
        return self._request("/_bill", None)

    def _request(self, path: str, body: Any) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30) as response:
            value: dict[str, Any] = json.load(response)
            return value


@contextlib.contextmanager
def bank(python: str, folder: Path) -> Iterator[Bank]:
    """Start the fake provider."""
    with running([python, str(HERE / "bank.py")], folder) as process:
        yield Bank(f"http://127.0.0.1:{first_line(process)}")


@contextlib.contextmanager
def server(python: str, folder: Path, budget: str) -> Iterator[str]:
    """Start `cycles dev` with a budget, and yield its address."""
    port = free_port()
    command = [python, "-m", "cycles", "dev", "--port", str(port), "--budget", f"tenant:acme={budget}"]
    command += ["--api-key", "key=acme", "--db", str(folder / "ledger.db")]
    with running(command, folder):
        wait_for(port)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def proxy(python: str, folder: Path, of_server: str, of_bank: str, budget: str) -> Iterator[str]:
    """Start `cycles proxy` on a server, and yield its address."""
    port = free_port()
    command = [
        python,
        "-m",
        "cycles",
        "proxy",
        "--listen",
        f"127.0.0.1:{port}",
        "--base-url",
        of_server,
        "--tenant",
        "acme",
    ]
    command += [
        "--upstream",
        f"openai={of_bank}/v1",
        "--upstream",
        f"anthropic={of_bank}",
        "--journal-dir",
        str(folder / "journal"),
    ]
    with running(command, folder, CYCLES_API_KEY="key") as process:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start a private redis-server on loopback."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    try:
        with running(command, folder):
            wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
    except FileNotFoundError as error:
        raise CellError("redis-server is not installed: apt-get install redis-server") from error


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that a process prints."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise CellError("a process ended before it was ready")
    return line


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, seconds: float = 60) -> None:
    """Wait until something listens on a port."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise CellError(f"nothing listens on port {port} after {seconds} s")
