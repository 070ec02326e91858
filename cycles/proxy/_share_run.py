"""Run a command with a share of the run around it: no second proxy is started."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import cycles
from cycles._core.amounts import Amount
from cycles._errors import CyclesError
from cycles.proxy._agents import for_agents
from cycles.proxy._around import ask
from cycles.proxy._child import Child, CommandError
from cycles.proxy._run import Ended
from cycles.proxy._shares import share_line

_CAPTURED = "CODEX_CA_CERTIFICATE"
"""A run that captures Codex sets it."""


def run_share(
    name: str,
    limit: Amount | str,
    command: Sequence[str],
    *,
    agent_settings: bool,
    cycles_env: bool,
    say: Callable[[str], None],
) -> Ended:
    """Run a command with a share; signals must be blocked.

    Raises:
        ConfigurationError: if there is no run around this process.
        InvalidRequestError: if the name or the limit is wrong, or the share has another limit.
    """
    share = cycles.delegate(name, limit)
    environment = share.environment
    if agent_settings:
        captured = _CAPTURED in environment
        command, environment = for_agents(command, environment, share.proxy_url, captured=captured, say=say)
    if not cycles_env:
        environment = {name: value for name, value in environment.items() if not name.startswith("CYCLES_")}
    started = time.monotonic()
    lines: list[str] = []
    sys.stdout.flush()
    try:
        status = Child(command, environment).wait()
    except CommandError as error:
        status = error.status
        lines.append(str(error))
    took = round(time.monotonic() - started, 3)
    document: dict[str, Any] = {"share": name, "seconds": took, "exit": status}
    try:
        used = ask(share.proxy_url)
    except CyclesError as error:
        return Ended(status, document, [*lines, str(error)])
    lines.append(f"{share_line(name, used)}, {took} s")
    return Ended(status, {**used, **document}, lines)
