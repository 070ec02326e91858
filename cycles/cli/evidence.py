"""`cycles evidence`: verify what a server signed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

import cycles
from cycles import evidence
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._output import styled

_ID = re.compile(r"[0-9a-f]{64}")


@frame.group("evidence")
def command() -> None:
    """Verify signed evidence of a server."""


@frame.command("verify")
@click.argument("envelope", metavar="FILE|ID")
@click.option("--keys", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="The server's key set.")
def verify(cli: Cli, envelope: str, keys: Path | None) -> int:
    """Verify an evidence envelope: a file, or the id of one that the server has.

    Exits 0 if it is authentic, 1 for any other disposition, 2 if it is no evidence envelope.
    """
    key_set = None if keys is None else keys.read_bytes()
    if _ID.fullmatch(envelope) and not Path(envelope).exists():
        status, result = _of_server(cli, envelope, key_set)
    else:
        status, result = evidence.report(_read(envelope), keys=key_set)
    if cli.out.json:
        cli.out.document(result)
    else:
        _print(cli, result)
    return status


command.add_command(verify)


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise cycles.InvalidRequestError(
            f"the envelope cannot be read: {path:.200} ({error.strerror}); pass a file or an id of 64 hex digits"
        ) from None


def _of_server(cli: Cli, evidence_id: str, key_set: bytes | None) -> tuple[int, dict[str, Any]]:
    with cli.client() as client:
        if key_set is not None:
            return evidence.report(client.evidence(evidence_id), keys=key_set, evidence_id=evidence_id)
        try:
            return evidence.as_report(client.evidence_verdict(evidence_id))
        except cycles.EvidenceRejectedError as error:
            return evidence.as_rejection(error)


def _print(cli: Cli, result: dict[str, Any]) -> None:
    found = str(result.get("disposition") or f"rejected: {result['rejected']}")
    cli.out.line(styled(found, "green" if found == "authentic" else "bold red"))
    cli.out.pairs(
        [
            (name, None if value is None else str(value))
            for name, value in result.items()
            if name not in ("disposition", "rejected")
        ]
    )
