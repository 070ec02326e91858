"""`cycles flush`: settle what is pending for the configured server and principal."""

from __future__ import annotations

import sys

import click
from rich.progress import Progress

import cycles
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import Seconds
from cycles.cli._output import console
from cycles.journal import _commands, _places, inspect


@frame.command("flush")
@click.option("--timeout", type=Seconds(0, 86_400), default=10.0, show_default=True, help="Seconds to wait.")
def command(cli: Cli, timeout: float) -> int:
    """Settle what is pending for the configured server and principal; exits 4 if something is left or quarantined.

    It exits 4 too if the journal could not be read to the end in time, because then more may be left.

    Exits 2 if the store of the journal does not respond.
    """
    config = cli.server_config()
    waiting = [entry for entry in inspect(config.journal_dir) if entry.base_url == config.base_url]
    with cli.client(journal=True) as client, _progress() as progress:
        task = progress.add_task("settling", total=len(waiting) or None)

        def advance(event: object) -> None:
            if isinstance(event, cycles.events.Settled):
                progress.advance(task)

        stop = client.on_event(advance)
        report = client.flush(timeout)
        stop()
    status = _commands.print_flush(cli.out, report)
    _places.require_store(config)
    return status


def _progress() -> Progress:
    errors = console(sys.stderr)
    return Progress(console=errors, transient=True, disable=not errors.is_terminal)
