"""The real servers that `tests.live.run` started: ended and started again, and their Redis stopped and emptied."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from tests.contract.live_redis import Redis
from tests.support.waiting import until

# How long a Java server may take to start on a busy machine.
START_S = 120.0
POLL_S = 0.2
# What an operator sets up again in an empty store: tenants, keys and budgets, but no reservations.
SET_UP_AGAIN = ("tenant", "tenants", "apikey", "apikeys", "budget", "budgets")


class Program:
    """A process that a pid file names, started again with the command and environment of the first one.

    `command` is for a process that changes what the system shows as its command.
    """

    def __init__(self, folder: Path, name: str, command: list[str] | None = None) -> None:
        self._pid_file = folder / f"{name}.pid"
        self._log = folder / f"{name}.log"
        process = Path("/proc") / self._pid_file.read_text().strip()
        self._command = command or (process / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
        entries = (process / "environ").read_bytes().decode().split("\0")
        self._environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        self._started: subprocess.Popen[bytes] | None = None

    def end(self, number: signal.Signals) -> None:
        """Send the signal and wait until the process has ended."""
        pid = int(self._pid_file.read_text())
        os.kill(pid, number)
        if self._started is not None:
            self._started.wait(START_S)
            self._started = None
        else:
            wait_until(lambda: has_ended(pid))

    def start(self) -> None:
        """Start the process again. `servers.py stop` ends it, like the first one."""
        with self._log.open("ab") as log:
            self._started = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file.write_text(str(self._started.pid))


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, reaped by its parent or not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(is_true: Any) -> None:
    """Wait for another process. There is no event for it, so this polls."""
    until(is_true, START_S, step_s=POLL_S, what=lambda: "(the start or the end of a process)")


def redis_command(folder: Path, port: str) -> list[str]:
    """Return the command that starts Redis on the data in `folder`."""
    where = ["--bind", "127.0.0.1", "--port", port, "--dir", str(folder)]
    return ["redis-server", *where, "--save", "", "--appendonly", "yes"]


class ReferenceServers:
    """The runtime server with its Redis. Budgets are made and read over the admin API."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.url = settings["URL"]
        self.key = settings["KEY"]
        self.tenant = settings["TENANT"]
        self._runtime = Program(folder, "runtime")
        self._redis_url = settings["REDIS"]
        port = self._redis_url.rpartition(":")[2]
        self._redis = Program(folder, "redis", redis_command(folder, port))
        headers = {"X-Admin-API-Key": settings["ADMIN_KEY"]}
        self._admin = httpx.Client(base_url=settings["ADMIN_URL"], headers=headers, timeout=60.0)
        self._saved: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Close the connections. The servers keep running."""
        self._admin.close()

    def make_budgets(self, agents: Iterable[str], amount: int) -> None:
        """Make a budget for each agent."""
        for agent in agents:
            tokens = {"unit": "TOKENS", "amount": amount}
            body = {"tenant_id": self.tenant, "scope": self._scope(agent), "unit": "TOKENS", "allocated": tokens}
            response = self._admin.post("/v1/admin/budgets", json=body)
            assert response.status_code == 201, response.text

    def numbers(self, agents: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return spent and reserved of each agent's budget."""
        found = {}
        for agent in agents:
            query = {"scope": self._scope(agent), "unit": "TOKENS"}
            response = self._admin.get("/v1/admin/budgets/lookup", params=query)
            assert response.status_code == 200, response.text
            budget = response.json()
            found[agent] = (budget["spent"]["amount"], budget["reserved"]["amount"])
        return found

    def _scope(self, agent: str) -> str:
        return f"tenant:{self.tenant}/agent:{agent}"

    # --- faults ---------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the runtime server with kill -9."""
        self._runtime.end(signal.SIGKILL)

    def stop(self) -> None:
        """End the runtime server with SIGTERM."""
        self._runtime.end(signal.SIGTERM)

    def start(self) -> None:
        """Start the runtime server again and wait until it is ready."""
        self._runtime.start()
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/actuator/health/readiness", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def stop_redis(self) -> None:
        """Stop Redis; its data stays on disk."""
        self._redis.end(signal.SIGTERM)

    def start_redis(self) -> None:
        """Start Redis again and wait until both servers use it."""
        self._redis.start()
        wait_until(self._are_connected)

    def _are_connected(self) -> bool:
        headers = {"X-Cycles-API-Key": self.key}
        query = {"tenant": self.tenant}
        balances = httpx.get(f"{self.url}/v1/balances", params=query, headers=headers, timeout=30.0)
        tenant = self._admin.get(f"/v1/admin/tenants/{self.tenant}")
        return (balances.status_code, tenant.status_code) == (200, 200)

    def empty_redis(self) -> None:
        """Delete everything, as after a failover to an empty store."""
        redis = Redis(self._redis_url)
        keys = [key for key in redis.call("KEYS", "*") if key.decode().partition(":")[0] in SET_UP_AGAIN]
        self._saved = {key: redis.call("DUMP", key) for key in keys}
        redis.call("FLUSHALL")
        redis.close()

    def set_up_again(self) -> None:
        """Restore tenants, keys and budgets, as an operator would, but no reservation."""
        redis = Redis(self._redis_url)
        for key, value in self._saved.items():
            redis.call("RESTORE", key, "0", value)
        redis.close()
        wait_until(self._are_connected)
