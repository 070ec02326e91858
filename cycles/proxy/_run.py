"""A run from its start to its summary: ledger, proxy and command, in this order, and closed in the opposite one."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from attrs import evolve, frozen

from cycles.proxy._child import Child, CommandError
from cycles.proxy._ledger import RunLedger
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import VARIABLES, ProxySettings

DRAIN_S: Final = 30
"""How long running calls may take after a signal to stop."""
_LOOPBACK: Final = "127.0.0.1,localhost"
_PATHS: Final = {"openai": "/openai/v1", "anthropic": "/anthropic", "gemini": "/gemini"}


@frozen
class Ended:
    """How a run ended.

    Attributes:
        status: The exit status.
        document: The summary as a JSON document.
        lines: The summary for people, and what they should know.
    """

    status: int
    document: dict[str, Any]
    lines: list[str]


def base_urls(url: str, key: str | None) -> dict[str, str]:
    """Return the variables of the SDKs and their values."""
    prefix = url if key is None else f"{url}/{quote(key, safe='')}"
    return {variable: f"{prefix}{_PATHS[name]}" for name, variable in VARIABLES.items()}


def command_environment(
    environ: Mapping[str, str], url: str, key: str | None, ledger: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the command: the proxy's addresses, the ledger, and no other proxy for loopback."""
    found = dict(environ) | base_urls(url, key) | dict(ledger)
    found["CYCLES_PROXY_URL"] = url if key is None else f"{url}/{quote(key, safe='')}"
    for name in ("NO_PROXY", "no_proxy"):
        given = environ.get(name) or environ.get("NO_PROXY") or environ.get("no_proxy")
        found[name] = f"{given},{_LOOPBACK}" if given else _LOOPBACK
    return found


class Run:
    """One run of the proxy.

    Args:
        settings: How requests are treated.
        ledger: The budgets; closed at the end.
        stops: Whether a denial ends the command.
    """

    def __init__(self, settings: ProxySettings, ledger: RunLedger, *, stops: bool = False) -> None:
        self._ledger = ledger
        self._stops = stops
        self._settings = settings
        self._child: Child | None = None
        self._started = time.monotonic()
        self._server: ProxyServer | None = None

    def run(self, command: Sequence[str], environ: Mapping[str, str], *, cycles_env: bool = True) -> Ended:
        """Run a command behind the proxy, with a new key that only it has; signals must be blocked.

        Args:
            command: The program and its arguments.
            environ: The variables of this process.
            cycles_env: Whether the command gets the ledger's variables.

        Raises:
            ConfigurationError: if the proxy cannot start; the command was not started.
        """
        key = secrets.token_urlsafe(18)
        url = self._start(evolve(self._settings, key=key), "127.0.0.1", 0)
        environment = command_environment(environ, url, key, self._ledger.environment)
        if not cycles_env:
            environment = {name: value for name, value in environment.items() if not name.startswith("CYCLES_")}
        notes: list[str] = []
        sys.stdout.flush()
        try:
            self._child = Child(command, environment)
            status = self._child.wait()
        except CommandError as error:
            status = error.status
            notes.append(str(error))
        return self._ended(status, notes, seconds=0, cycles_env=cycles_env)

    def serve(self, host: str, port: int, announce: Callable[[str], None], stop: threading.Event) -> Ended:
        """Serve until `stop` is set, then let running calls finish.

        Raises:
            ConfigurationError: if the proxy cannot listen.
        """
        announce(self._start(self._settings, host, port))
        stop.wait()
        return self._ended(0, [], seconds=DRAIN_S)

    def _start(self, settings: ProxySettings, host: str, port: int) -> str:
        ledger = self._ledger
        self._server = ProxyServer(
            settings, ledger.client, forwarding=ledger.forwarding, limit=ledger.limit, on_denied=self._denied
        )
        self._started = time.monotonic()
        return self._server.start(host, port)

    def _denied(self) -> None:
        if self._stops and self._child is not None:
            self._stops = False
            self._child.stop()

    def _ended(self, status: int, notes: list[str], *, seconds: int, cycles_env: bool = False) -> Ended:
        assert self._server is not None
        took = time.monotonic() - self._started
        self._server.stop(seconds)
        totals = self._server.app.totals
        known = cycles_env and totals.calls and totals.knows_all
        other = self._ledger.note_of_others(totals.reservations if known else None)
        self._ledger.close()
        document = totals.document(took, status)
        lines = [*notes, totals.line(took, self._ledger.budget)]
        if not totals.requests and not notes:
            lines.append("no call reached the proxy: the command may set its base URL itself")
        lines += [f"not metered: {count} to {path}" for path, count in totals.paths.items()]
        if other is not None:
            lines.append(other)
        return Ended(status, document, lines)
