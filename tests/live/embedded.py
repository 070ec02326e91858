"""The embedded server as a process that a fault run kills, stops, and restores from an older file.

Run as a program, it serves a ledger file with a clock that is ahead of the machine's by a given number of milliseconds.
So a test moves the server's clock at a restart and need not wait.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from pathlib import Path

import cycles
from cycles.embedded import EmbeddedServer, SystemClock
from tests.stores.servers import free_port
from tests.support import warm

TENANT = "acme"
KEY = "cyc_live_fault_run"
BUDGET = 100_000
DAY_MS = 86_400_000


class ShiftedClock(SystemClock):
    """The machine's clock, moved forward."""

    def __init__(self, shift_ms: int) -> None:
        self._shift_ms = shift_ms

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return super().now_ms() + self._shift_ms


class EmbeddedProcess:
    """A server process on a fixed port, with one budget for each guard."""

    def __init__(self, folder: Path, guards: int) -> None:
        self._folder = folder
        self._file = folder / "ledger.db"
        self._shift_ms = 0
        self._process: warm.Started | None = None
        self._port = free_port()
        with EmbeddedServer(path=self._file, api_keys={KEY: TENANT}) as server:
            for number in range(guards):
                server.ledger.set_budget(f"tenant:{TENANT}/agent:g{number}", cycles.tokens(BUDGET))
        self.url = f"http://127.0.0.1:{self._port}"
        self.key = KEY
        self.tenant = TENANT

    def start(self, *, later_ms: int = 0) -> None:
        """Start the server; its clock moves forward by `later_ms`."""
        self._shift_ms += later_ms
        arguments = (str(self._file), str(self._port), str(self._shift_ms))
        self._process = warm.start(__name__, *arguments, warnings=["error"])
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the server did not start"

    def kill(self) -> None:
        """End the server with kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server with SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate(timeout=300)
        self._process = None

    def close(self) -> None:
        """End the server if it runs."""
        if self._process is not None:
            self.kill()

    def copy(self) -> None:
        """Copy the ledger of the stopped server."""
        for path in self._folder.glob("ledger.db*"):
            shutil.copy(path, self._folder / f"older-{path.name}")

    def restore(self) -> None:
        """Replace the ledger of the stopped server with the copy."""
        for path in self._folder.glob("ledger.db*"):
            path.unlink()
        for path in self._folder.glob("older-ledger.db*"):
            shutil.copy(path, self._folder / path.name.removeprefix("older-"))

    def numbers(self) -> dict[str, tuple[int, int]]:
        """Return spent and reserved of each scope, read from the stopped server's file after all leases have ended."""
        clock = ShiftedClock(self._shift_ms + DAY_MS)
        with EmbeddedServer(path=self._file, clock=clock) as server:
            found = {}
            for scope in server.ledger.scopes():
                balance = server.ledger.balance(scope)
                assert balance.spent is not None
                assert balance.reserved is not None
                found[scope.rpartition(":")[2]] = (balance.spent.amount, balance.reserved.amount)
            return found


def main(file: str, port: str, shift_ms: str) -> None:
    """Serve until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with (
        EmbeddedServer(path=file, clock=ShiftedClock(int(shift_ms))) as server,
        server.listen(port=int(port)),
    ):
        print("ready", flush=True)
        stop.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
