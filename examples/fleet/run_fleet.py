"""A fleet on this machine: a server dies, two of four workers are killed with their disks, and no amount is lost.

`make demo-fleet` runs it. It starts an embedded server, a private Redis and four workers, prints a line every half
second, and compares the sums at the end. Pass `--redis URL` to use a Redis of yours.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
KEY, TENANT, BUDGET = "cyc_live_demo_key_of_the_fleet", "acme", 100_000_000
CLAIM_MS = 2_000
LONGEST_WAIT_S = 3 * CLAIM_MS / 1000 + 15


class Worker:
    """A worker process with its own disk. It knows what the worker has printed."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.disk = folder / name
        self.spent = self.kept = 0
        own = {**environment, "CYCLES_JOURNAL_DIR": str(self.disk)}
        words = [sys.executable, str(HERE / "worker.py")]
        self.process = subprocess.Popen(words, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, amount = line.partition(" ")
            if word == "spent":
                self.spent += int(amount)
            elif word == "kept":
                self.kept += int(amount)

    def kill(self) -> None:
        """End the worker without warning, and delete its disk."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        shutil.rmtree(self.disk, ignore_errors=True)

    def stop(self) -> None:
        """Ask the worker to finish, and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self._reader.join()


class Server:
    """An embedded server in its own process, with its ledger in a file."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._database = folder / "ledger.db"
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it responds."""
        words = [sys.executable, "-m", "cycles.embedded", "--budget", f"tenant:{TENANT}={BUDGET}TOKENS"]
        words += ["--api-key", f"{KEY}={TENANT}", "--port", str(self._port), "--db", str(self._database)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.spent() is not None, 20, "the server did not start")

    def kill(self) -> None:
        """End the server without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def spent(self) -> int | None:
        """Return what the ledger has charged, or None if the server does not respond."""
        with contextlib.suppress(httpx.HTTPError, KeyError, IndexError):
            found = httpx.get(
                f"{self.url}/v1/balances", params={"tenant": TENANT}, headers={"X-Cycles-API-Key": KEY}, timeout=2
            )
            return int(found.json()["balances"][0]["spent"]["amount"])
        return None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(holds: Any, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"demo-fleet: {otherwise} within {seconds:.0f} s")
        time.sleep(0.1)


@contextlib.contextmanager
def redis(folder: Path, url: str | None) -> Iterator[tuple[Any, str]]:
    """Yield a client of Redis and its URL; start a private one if there is no URL."""
    import redis as package

    process = None
    if url is None:
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("demo-fleet: redis-server is not installed; install it, or pass --redis URL")
        port = free_port()
        words = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        process = subprocess.Popen([*words, "--appendonly", "yes"], stdout=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{port}/0"
    client = package.Redis.from_url(url)
    try:
        until(lambda: _responds(client), 10, "Redis did not start")
        yield client, url
    finally:
        client.close()
        if process is not None:
            process.kill()
            process.wait()


def _responds(client: Any) -> bool:
    try:
        return bool(client.ping())
    except Exception:
        return False


def pending(client: Any) -> int:
    """Return how many records are in the store: the keys are described in docs/fleets.md."""
    return sum(client.zcard(key) for key in client.scan_iter("cycles:j2:*:due"))


class Table:
    """Prints what is pending and what is settled."""

    def __init__(self, server: Server, store: Any, workers: list[Worker]) -> None:
        self._server, self._store, self._workers = server, store, workers
        self._began = time.monotonic()
        print(f"{'s':>5}  {'server':8} {'workers':>7} {'pending':>7} {'kept':>9} {'settled':>9}  what happens")

    def line(self, what: str = "") -> None:
        spent = self._server.spent()
        alive = sum(worker.process.poll() is None for worker in self._workers)
        kept = sum(worker.kept for worker in self._workers)
        at, state, settled = time.monotonic() - self._began, "down" if spent is None else "up", spent or ""
        print(f"{at:5.1f}  {state:8} {alive:7} {pending(self._store):7} {kept:9} {settled:>9}  {what}", flush=True)

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.line()
            time.sleep(0.5)


def run(folder: Path, store: Any, url: str) -> int:
    server = Server(folder)
    server.start()
    environment = {
        **os.environ,
        "CYCLES_BASE_URL": server.url,
        "CYCLES_API_KEY": KEY,
        "CYCLES_TENANT": TENANT,
        "CYCLES_JOURNAL_URL": url,
        "CYCLES_JOURNAL_CLAIM_MS": str(CLAIM_MS),
        "CYCLES_TIMEOUT": "1",
        "CYCLES_RETRY_MAX_DELAY": "2",
    }
    workers = [Worker(f"worker-{number}", folder, environment) for number in range(1, 5)]
    try:
        return _story(server, store, workers)
    finally:
        for worker in workers:
            worker.process.kill()
        server.kill()


def _story(server: Server, store: Any, workers: list[Worker]) -> int:
    until(lambda: all(worker.kept for worker in workers), 30, "the workers did not start")
    table = Table(server, store, workers)
    table.watch(1.5)
    server.kill()
    table.line("the server is killed, with guards open")
    until(lambda: pending(store) >= 4, 10, "no commit became pending")
    table.watch(1.0)
    for worker in workers[:2]:
        worker.kill()
    table.line("two workers are killed, and their disks are deleted")
    table.watch(1.0)
    server.start()
    back = time.monotonic()
    table.line("the server is back")
    table.watch(CLAIM_MS / 1000)
    for worker in workers[2:]:
        worker.stop()
    until(lambda: pending(store) == 0, LONGEST_WAIT_S, "the store is not empty") if pending(store) else None
    table.line("two workers have finished")
    return _compared(server, workers, time.monotonic() - back)


def _compared(server: Server, workers: list[Worker], seconds: float) -> int:
    settled = server.spent() or 0
    kept, spent = sum(worker.kept for worker in workers), sum(worker.spent for worker in workers)
    print(f"\nkept by the workers: {kept}, charged by the server: {settled}; the store was empty after {seconds:.1f} s")
    if not kept <= settled <= spent:
        print("these sums differ: an amount was lost or charged twice")
        return 1
    if settled != kept:
        print(f"{settled - kept} more were saved by a worker that was killed before it could say so")
    print("no amount was lost, none was charged twice")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill half of a fleet, and compare the sums.")
    parser.add_argument("--redis", metavar="URL", help="a Redis to use; a private one is started by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with redis(folder, options.redis) as (store, url):
            return run(folder, store, url)


if __name__ == "__main__":
    sys.exit(main())
