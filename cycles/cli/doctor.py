"""`cycles doctor`: checks of settings, server and journal, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cycles
from cycles.cli import _checks, _frame as frame, _server_checks
from cycles.cli._checks import Check
from cycles.cli._frame import DONE, Cli
from cycles.cli._output import Output, styled

_MARKS: Final = {"ok": ("ok", "green"), "fail": ("FAIL", "bold red"), "skip": ("skip", "dim")}


@frame.command("doctor")
def command(cli: Cli) -> int:
    """Check settings, server and journal, with a remedy for each failure. Writes nothing."""
    found = []
    for check in _run(cli):
        found.append(check)
        if not cli.out.json:
            _print(cli.out, check)
    codes = {check.code for check in found if check.status == "fail"}
    if cli.out.json:
        cli.out.document({"ok": not codes, "checks": [check.to_dict() for check in found]})
    return next((code for code in _checks.ORDER if code in codes), DONE)


def _run(cli: Cli) -> Iterator[Check]:
    config: cycles.Config | cycles.ConfigurationError
    try:
        config = cli.config()
    except cycles.ConfigurationError as error:
        config = error
    settings = _checks.configuration(cli.flags, cli.profile_name, config)
    yield settings
    if isinstance(config, cycles.ConfigurationError):
        yield from _server_checks.skipped("the configuration is wrong")
        config = cycles.Config()
    elif not config.base_url or not config.api_key:
        yield from _server_checks.skipped("no server is configured")
    else:
        yield from _server_checks.run(config)
    yield _checks.journal(config)
    yield _checks.pending(config)
    yield _checks.proxies(config)
    yield _checks.versions()


def _print(out: Output, check: Check) -> None:
    mark, style = _MARKS[check.status]
    line = styled(f"{mark:<5}", style)
    line.append_text(styled(f"{check.name:<15} ", "bold"))
    line.append_text(styled(check.detail))
    out.line(line)
    if check.status == "fail" and check.remedy:
        out.line(styled(f"{'':<21}-> {check.remedy}", "yellow"))
