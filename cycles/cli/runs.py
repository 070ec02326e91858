"""`cycles runs`: the ledgers that `cycles run --keep NAME` keeps."""

from __future__ import annotations

import click

from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.proxy import _kept


@frame.command("list", settings=False)
def _list(cli: Cli) -> None:
    """List kept runs: file, budget, what was spent, and when each was last used."""
    found = _kept.kept_runs()
    rows = [
        (
            run.name,
            "in use" if run.in_use else _format.amount_of(run.budget),
            _format.amount_of(run.spent),
            _format.moment(run.last_use_ms),
            str(run.path),
        )
        for run in found
    ]
    cli.out.listing(
        {"runs": [run.document() for run in found]},
        ("name", "budget", "spent", "last use", "file"),
        rows,
        none="no run is kept; cycles run --keep NAME keeps one",
        right=("budget", "spent"),
    )


@frame.command("reset", settings=False)
@click.argument("name")
@frame.yes_option
def _reset(cli: Cli, name: str, yes: bool) -> None:
    """Set what the runs of NAME have spent to 0. Their budget stays."""
    found = _kept.existing(name)
    spent = " and ".join(_format.amount_of(run.spent) for run in found)
    cli.confirm(f"set what was spent in {name} ({spent}) to 0?", yes=yes)
    _kept.reset(name)
    _done(cli, name, "reset")


@frame.command("delete", settings=False)
@click.argument("name")
@frame.yes_option
def _delete(cli: Cli, name: str, yes: bool) -> None:
    """Delete the file of NAME: its budget, and what its runs have spent."""
    [run, *_] = _kept.existing(name)
    cli.confirm(f"delete {run.path}?", yes=yes)
    _kept.delete(name)
    _done(cli, name, "deleted")


def _done(cli: Cli, name: str, what: str) -> None:
    cli.out.result({"name": name, "status": what}, f"{what} {name}")


@frame.group("runs", default=_list)
def command() -> None:
    """List kept runs (cycles run --keep NAME), reset what one has spent, or delete it."""


command.add_command(_list)
command.add_command(_reset)
command.add_command(_delete)
