"""`cycles doctor`: checks of settings, server and journal, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.table import Table

import cycles
from cycles.cli import _checks, _frame as frame, _server_checks
from cycles.cli._checks import Check
from cycles.cli._frame import DONE, Cli
from cycles.cli._output import Output, styled

_STATUS_STYLES: Final = {
    "ok": ("ok", "green"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "bold red"),
    "skip": ("skip", "dim"),
}


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
    config, wrong = None, None
    try:
        config = cli.config()
        cli.server_config()
    except cycles.ConfigurationError as error:
        wrong = error
    yield _checks.configuration(cli.flags, cli.profile_name, config, wrong)
    config = config or cycles.Config()
    if wrong is None:
        yield from _server_checks.run(config)
    else:
        yield from _server_checks.skipped("the configuration is wrong")
    yield _checks.journal(config)
    yield _checks.pending(config)
    yield _checks.proxies(config)
    yield _checks.versions()


def _print(out: Output, check: Check) -> None:
    mark, style = _STATUS_STYLES[check.status]
    remedy = f"-> {check.remedy}" if check.status in ("warn", "fail") and check.remedy else None
    if not out.is_terminal:
        out.line(f"{mark:<5}{check.name:<15} {check.detail}")
        if remedy:
            out.line(f"{'':<21}{remedy}")
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=4)
    grid.add_column(width=14)
    grid.add_column(overflow="fold")
    grid.add_row(styled(mark, style), styled(check.name, "bold"), styled(check.detail))
    if remedy:
        grid.add_row("", "", styled(remedy, "yellow"))
    out.draw(grid)
