"""A run from its start to its summary: ledger, proxy and command, in this order, and closed in the opposite one."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from attrs import evolve, frozen

from cycles.embedded.serve import bound
from cycles.proxy._agents import CODEX_HOST, for_agents
from cycles.proxy._child import Child, CommandError
from cycles.proxy._descriptors import current_limit, restored_limit
from cycles.proxy._environment import command_environment, past_the_proxy, route_variables, tunnel_variables, with_key
from cycles.proxy._errors import no_decision_line
from cycles.proxy._ledger import RunLedger
from cycles.proxy._relay import InFlight
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from cycles.proxy._shown import shown
from cycles.proxy._targets import is_loopback

if TYPE_CHECKING:
    from cycles.proxy._authority import Authority
    from cycles.proxy._totals import Totals

_LOOPBACK: Final = "127.0.0.1"
_PORT: Final = "PORT-OF-RELAY"
NO_DECISION: Final = 3
"""The exit status of a command that ended with 0, if the ledger decided none of its calls."""
DRAIN_S: Final = 30
"""How long running calls may take after a signal to stop, and whole responses after the end of the command."""
_LOOK_S: Final = 0.1
"""How often a wait looks for a signal: they are blocked, and none interrupts it."""


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


def _relayed_ledger(url: str | None) -> tuple[str, tuple[str, int]] | None:
    """Return the address of the ledger through a relay, with a mark for its port, and what it relays to.

    A ledger elsewhere that needs TLS is reached through the tunnel: its certificate names its host.
    """
    parts = urlsplit(url or "")
    host = parts.hostname
    if host is None or not (parts.scheme == "http" or is_loopback(host)):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    name = "localhost" if host == "localhost" else _LOOPBACK
    return urlunsplit(parts._replace(netloc=f"{name}:{_PORT}")), (host, port)


class Run:
    """One run of the proxy.

    Args:
        settings: How requests are treated.
        ledger: The budgets; closed at the end.
        stops: Whether a denial ends the command.
        agent_settings: Whether coding agents get what they need beside variables.
        closing: What is closed at the end, with the run's own files.
        say: Prints a line immediately.
    """

    def __init__(
        self,
        settings: ProxySettings,
        ledger: RunLedger,
        *,
        stops: bool = False,
        agent_settings: bool = False,
        closing: ExitStack | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._agent_settings = agent_settings
        self._say = say
        self._closing = ExitStack() if closing is None else closing
        self._ledger = ledger
        self._stops = stops
        self._settings = settings
        self._stopped: str | None = None
        self._child: Child | None = None
        self._started = time.monotonic()
        self._server: ProxyServer | None = None
        self._port = 0
        self._files = current_limit()

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
        settings = evolve(self._settings, key=key)
        with self._closing:
            self._closing.callback(self._ledger.close)
            authority, trusted = self._authority(settings, environ)
            url = self._start(settings, "127.0.0.1", 0, authority)
            environment = command_environment(environ, url, key, self._ledger.environment, settings) | trusted
            if not cycles_env:
                environment = {name: value for name, value in environment.items() if not name.startswith("CYCLES_")}
            if self._agent_settings:
                hosts = settings.captured_hosts
                captured = hosts is None or CODEX_HOST in hosts
                address = with_key(url, key)
                command, environment = for_agents(command, environment, address, captured=captured, say=self._say)
            for name in past_the_proxy(environ):
                self._say(f"{name} is set: calls to that address do not pass the proxy")
            notes: list[str] = []
            sys.stdout.flush()
            try:
                with restored_limit(self._files):
                    self._child = self._sealed(command, environment) if settings.sealed else Child(command, environment)
                status = self._child.wait()
            except CommandError as error:
                status = error.status
                notes.append(str(error))
            return self._ended(status, notes, seconds=0, cycles_env=cycles_env)

    def _sealed(self, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a command that reaches the proxy, the ledger and the shared ports only.

        Raises:
            CannotSealError: if that is not possible here; nothing was started.
            ConfigurationError: if a shared port is not possible.
            CommandError: if the command cannot be started.
        """
        from cycles.proxy._sealing import SealedChild

        assert self._server is not None
        targets: dict[int, tuple[str, int]] = {port: (_LOOPBACK, port) for port in self._settings.shared_ports}
        changed = dict(environment)
        relayed = _relayed_ledger(environment.get("CYCLES_BASE_URL"))
        outside = bound(_LOOPBACK, 0, "free a port")
        with outside:
            if relayed is not None:
                port = outside.getsockname()[1]
                changed["CYCLES_BASE_URL"], targets[port] = relayed[0].replace(_PORT, str(port)), relayed[1]
            sealed = SealedChild(command, changed, [self._port, *targets])
            self._server.app.totals.sealed = sealed.mode
            if sealed.mode == "landlock":
                self._say("under Landlock the command cannot reach its own servers by TCP")
                if relayed is not None:
                    self._server.relay(outside.dup(), *relayed[1])
            else:
                self._server.serve_also(sealed.sockets[0])
                for sock, target in zip(sealed.sockets[1:], targets.values(), strict=True):
                    self._server.relay(sock, *target)
        return sealed.go()

    def _authority(
        self, settings: ProxySettings, environ: Mapping[str, str]
    ) -> tuple[Authority | None, dict[str, str]]:
        """Return the certificate authority of the run, and the variables with which the command trusts it."""
        if settings.captured_hosts == frozenset():
            return None, {}
        from cycles.proxy._authority import Authority, trust_variables

        authority = Authority()
        return authority, trust_variables(authority, environ, self._closing)

    def variables(self, url: str, key: str | None, *, with_proxy_url: bool = False) -> dict[str, str]:
        """Return the variables that point programs to this proxy."""
        found = route_variables(url, key, os.environ, self._settings)
        if not with_proxy_url:
            del found["CYCLES_PROXY_URL"]
        return found | tunnel_variables(url, key) if self._settings.tunnel else found

    def serve(self, host: str, port: int, announce: Callable[[str], None], stop: threading.Event) -> Ended:
        """Serve until `stop` is set, then let running calls finish.

        Raises:
            ConfigurationError: if the proxy cannot listen.
        """
        with self._closing:
            self._closing.callback(self._ledger.close)
            announce(self._start(self._settings, host, port))
            stop.wait()
            return self._ended(0, [], seconds=DRAIN_S)

    def _start(self, settings: ProxySettings, host: str, port: int, authority: Authority | None = None) -> str:
        ledger = self._ledger
        if settings.fake:
            self._say("--fake: a fake provider responds to all calls, and nothing is paid")
        self._server = ProxyServer(
            settings,
            ledger.client,
            forwarding=ledger.forwarding,
            limit=ledger.limit,
            on_denied=self._denied,
            on_no_decision=self._say,
            authority=authority,
            left=None if ledger.limit is not None else ledger.left,
            opened=lambda share: ledger.add_share(share, share.subject(settings.subject)),
            has_budget=ledger.has_budget,
        )
        self._started = time.monotonic()
        url = self._server.start(host, port)
        self._closing.callback(self._server.stop, 0)
        self._port = int(url.rpartition(":")[2])
        return url

    def _denied(self, message: str) -> None:
        if self._stops and self._child is not None:
            self._stops = False
            self._stopped = f"the command was stopped (--on-denied stop): {message}"
            self._say(self._stopped)
            self._child.stop()

    def _await_whole(self, whole: InFlight) -> None:
        """Let the proxy read the responses that the command has left to their end; another signal ends the wait."""
        if whole.wait(_LOOK_S):  # the command may have one that the proxy is still ending
            return
        self._say(f"waiting for responses that the command has left, at most {DRAIN_S} s; Ctrl-C ends the wait")
        ends_at_s = time.monotonic() + DRAIN_S
        while time.monotonic() < ends_at_s and not signal.sigpending() & {signal.SIGINT, signal.SIGTERM}:
            if whole.wait(_LOOK_S):
                return

    def _ended(self, status: int, notes: list[str], *, seconds: int, cycles_env: bool = False) -> Ended:
        assert self._server is not None
        took = time.monotonic() - self._started
        if self._child is not None:
            self._await_whole(self._server.app.whole)
        self._server.stop(seconds)
        totals = self._server.app.totals
        if totals.is_stuck and self._child is not None and status == 0:
            status = NO_DECISION
        known = cycles_env and totals.calls and totals.knows_all
        other = self._ledger.note_of_others(totals.reservations if known else None)
        kept = self._ledger.kept_total()
        shares = self._server.shares
        document = totals.document(took, status) | {"fake": self._settings.fake, "shares": shares.document()}
        if kept is not None:
            document["kept"] = kept
        lines = [*self._lines(totals, took, status, kept, notes), *([] if other is None else [other])]
        return Ended(status, document, lines)

    def _lines(
        self, totals: Totals, took: float, status: int, kept: Mapping[str, Any] | None, notes: list[str]
    ) -> list[str]:
        """Return the summary for people."""
        assert self._server is not None
        summary = totals.line(took, self._ledger.budget, kept)
        lines = [*notes, summary, *totals.agents.lines(), *self._server.shares.lines()]
        if kept is not None and "window" not in kept:
            spent, budget = shown(**kept["spent"]), self._ledger.budget
            whole = "" if budget is None else f" of {shown(budget.unit, budget.amount, 2)}"
            lines.insert(len(notes) + 1, f"kept as {kept['name']}: {spent}{whole} spent by all its runs")
        if totals.is_stuck:
            lines.append(no_decision_line(str(totals.undecided)))
        if self._stopped is not None:
            lines.append(self._stopped)
        if self._settings.fake:
            lines.append("--fake: the fake provider made the responses, and nothing was paid")
        lines += totals.sealed_lines()
        hosts = totals.host_lines(captures=self._settings.captured_hosts is None)
        if not totals.requests and not notes and not hosts:
            lines.append(
                f"the command ended with status {status}, and no call had reached the proxy"
                if status
                else "no call reached the proxy: the command may set its base URL itself"
            )
        if totals.waited:
            lines.append(
                "calls waited for budget that others held: a lower --max-output-tokens lets more run at the same time"
            )
        lines += hosts
        lines += [f"not metered: {count} to {path}" for path, count in totals.paths.items()]
        return lines
