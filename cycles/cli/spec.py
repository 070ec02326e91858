"""`cycles spec`: compare two versions of the protocol."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from typing import Any

import click

import cycles
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli


@frame.group("spec")
def command() -> None:
    """Work with protocol documents."""


@frame.command("diff", settings=False)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def diff(cli: Cli, old: str, new: str) -> int:
    """Show what changed between two protocol documents; exits 1 if a change breaks users."""
    try:
        program: Any = importlib.import_module("generator.diff.__main__")
    except ModuleNotFoundError as missing:
        raise cycles.ConfigurationError(
            f"{missing.name} is not installed: run it in a checkout of this project after pip install -e '.[dev]'"
        ) from None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = int(program.main([old, new, *(["--json"] if cli.out.json else [])]))
    if cli.out.json and printed.getvalue():
        cli.out.document(json.loads(printed.getvalue()))
    else:
        for printed_line in printed.getvalue().splitlines():
            cli.out.line(printed_line)
    return status


command.add_command(diff)
