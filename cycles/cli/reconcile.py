"""`cycles reconcile`: the bill of a provider beside the ledger, every difference with its causes, and imports."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import click

import cycles
from cycles.billing import _anthropic, _compare, _ledger, _openai
from cycles.billing._compare import Row
from cycles.billing._imports import Import, Importer
from cycles.billing._rows import BillRow
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import subject_option
from cycles.journal import inspect

PROVIDERS: Final[dict[str, Any]] = {"openai": _openai, "anthropic": _anthropic}
MOST_DAYS: Final = 30
"""A server lists a reservation for so many days."""
MOST_IMPORT_DAYS: Final = 28
"""Days whose imports a server still lists for a while after they were made."""
_DEFAULT_DAYS: Final = 7
_UNIT: Final = cycles.Unit.USD_MICROCENTS
_EVENTS: Final = "events cannot be listed: spend that was recorded with cycles record, or as an event, is missing"


def _day(ctx: click.Context, param: click.Parameter, text: str | None) -> date | None:
    """Return a day that is over, or that begins today; a period like ``7d`` ends today."""
    if text is None:
        return None
    age = re.fullmatch(r"(\d{1,4})d", text)
    if age is not None and param.name == "since":
        found = today() - timedelta(days=int(age[1]))
        if int(age[1]) == 0:
            raise click.BadParameter("0d has no day; write it like 7d", ctx, param)
        return found
    example = "2026-11-24" if param.name == "until" else "7d or 2026-11-24"
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is None:
            raise ValueError(text)
        found = date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r:.80} is no day; write it like {example}", ctx, param) from None
    if found > today():
        raise click.BadParameter(f"{text} lies in the future; write a day that is over, like {example}", ctx, param)
    return found


def _tolerance(ctx: click.Context, param: click.Parameter, text: str) -> Fraction:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%", text.strip())
    if found is None or Fraction(found[1]) > 100:
        raise click.BadParameter(f"{text!r:.80} is not a percentage; write it like 0.1%", ctx, param)
    return Fraction(found[1]) / 100


def _aliases(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    found = []
    for text in values:
        billed, equals, name = text.partition("=")
        if not equals or not billed or not name:
            raise click.BadParameter(f"{text!r:.80} is not BILL=LEDGER; write it like gpt-4o=my-deployment", ctx, param)
        found.append((billed, name))
    return found


@frame.command("reconcile")
@click.option("--provider", type=click.Choice(tuple(PROVIDERS)), required=True, help="Whose bill is read.")
@click.option("--since", metavar="7d|DATE", callback=_day, help="The first day, in UTC; by default 7 days.")
@click.option("--until", metavar="DATE", callback=_day, help="The day after the last one; by default today.")
@click.option(
    "--tolerance",
    metavar="PERCENT",
    default="0.1%",
    show_default=True,
    callback=_tolerance,
    help="How much of its bill a row may differ.",
)
@click.option(
    "--alias",
    metavar="BILL=LEDGER",
    multiple=True,
    callback=_aliases,
    help="A model of the bill that has another name in the ledger; may be repeated.",
)
@subject_option
@click.option("--upstream", metavar="URL", help="The address of the provider without /v1, for gateways.")
@click.option("--import", "imports", is_flag=True, help="Charge what is on the bill only.")
@frame.yes_option
def command(
    cli: Cli,
    provider: str,
    since: date | None,
    until: date | None,
    tolerance: Fraction,
    alias: list[tuple[str, str]],
    subject: dict[str, Any] | None,
    upstream: str | None,
    imports: bool,
    yes: bool,
) -> int:
    """Compare the bill of a provider with the ledger, by day (UTC) and model. Exits 4 if they differ."""
    since, until = _period(since, until, imports=imports)
    if imports and not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal for a prompt; pass --yes to confirm the import")
    report = PROVIDERS[provider]
    api = report.admin_api(upstream, _key(report.VARIABLE))
    cli.server_config()
    of_ledger, of_bill = _ledger.aliases_of(alias)
    with cli.client() as client:
        bill: list[BillRow] = report.read(api, since, until)
        billed = frozenset(of_bill.get(row.model, row.model) for row in bill if row.is_model)
        names = _ledger.Names(provider, billed, of_ledger)
        side = _ledger.read(client, names, since, until, subject)
        rows = _compare.compare(bill, side, tolerance, of_bill)
        done: list[Import] = []
        if imports:
            done = _import(cli, Importer(client, provider, subject), rows, tolerance, yes=yes)
    _print(cli, provider, since, until, tolerance, rows, done)
    return frame.DONE if all(row.ok for row in rows) else frame.UNSETTLED


def _period(since: date | None, until: date | None, *, imports: bool) -> tuple[date, date]:
    now = today()
    until = until or now
    since = since or until - timedelta(days=_DEFAULT_DAYS)
    if since >= until:
        which = "today is not over" if since >= now else f"--until {until} is not after it"
        raise click.UsageError(f"--since {since} leaves no day: {which}; write a day that is over, like 7d")
    if (until - since).days > MOST_DAYS or (now - since).days > MOST_DAYS:
        first = now - timedelta(days=MOST_DAYS)
        raise click.UsageError(
            f"--since {since} is more than {MOST_DAYS} days ago, and a server lists a reservation for so long; "
            f"write {first} or later"
        )
    if imports and (now - since).days > MOST_IMPORT_DAYS:
        first = now - timedelta(days=MOST_IMPORT_DAYS)
        raise click.UsageError(
            f"--import with --since {since}: days more than {MOST_IMPORT_DAYS} days ago cannot be imported, because "
            f"the server soon lists that import no more; write {first} or later"
        )
    return since, until


def today() -> date:
    """Return the day that is not over."""
    return datetime.now(UTC).date()


def _key(variable: str) -> str:
    key = os.environ.get(variable)
    if not key:
        raise cycles.ConfigurationError(f"there is no admin key: set {variable} to an admin key of the provider")
    return key


def _import(cli: Cli, importer: Importer, rows: list[Row], tolerance: Fraction, *, yes: bool) -> list[Import]:
    wanted = [row for row in rows if not row.ok and row.may_be_imported]
    if not wanted:
        return []
    total = _dollars(sum(row.difference for row in wanted))
    noun = "difference" if len(wanted) == 1 else "differences"
    cli.confirm(f"charge {len(wanted)} {noun} of together {total}?", yes=yes)
    done = []
    for row in wanted:
        done += importer.run(row)
        _compare.settle(row, tolerance)
    return done


def _print(
    cli: Cli, provider: str, since: date, until: date, tolerance: Fraction, rows: list[Row], done: list[Import]
) -> None:
    sums = _compare.sums(rows)
    is_ok = all(row.ok for row in rows)
    if cli.out.json:
        cli.out.document(
            {
                "provider": provider,
                "since": since.isoformat(),
                "until": until.isoformat(),
                "unit": str(_UNIT),
                **sums,
                "ok": is_ok,
                "rows": [row.to_dict() for row in rows],
                "imports": [each.to_dict() for each in done],
            }
        )
        return
    differing = [row for row in rows if not row.ok]
    for line in _lines(differing):
        cli.out.line(line)
    for each in done:
        what = f"{each.day}  {each.model}  {_dollars(each.charged)} of {_dollars(each.amount)} charged"
        cli.out.line(f"{what}: {each.status}")
    days, models = (until - since).days, len({row.model for row in rows})
    counted = f"{_count(days, 'day')}, {_count(models, 'model')}: bill {_dollars(sums['bill'])}"
    imported = f", imported {_dollars(sums['imported'])}" if sums["imported"] else ""
    differ = "differs" if len(differing) == 1 else "differ"
    part = f"{len(differing)} of {_count(len(rows), 'row')} {differ} by more than {float(tolerance * 100):g}%"
    cli.out.line(f"{counted}, ledger {_dollars(sums['ledger'])}{imported}; {part}")
    pending = [
        record for record in inspect(cli.config().journal_dir) if record.state in ("pending", "sent", "deferred")
    ]
    if pending:
        verb = "is" if len(pending) == 1 else "are"
        cli.out.line(f"{_count(len(pending), 'record')} of this machine {verb} pending and not in the ledger yet")
    cli.out.line(_EVENTS)


def _lines(rows: list[Row]) -> list[str]:
    amounts = [(f"bill {_dollars(row.bill)}", f"ledger {_dollars(row.ledger)}") for row in rows]
    widths = [max((len(pair[index]) for pair in amounts), default=0) for index in (0, 1)]
    name = max((len(row.model) for row in rows), default=0)
    lines = []
    for row, (bill, ledger) in zip(rows, amounts, strict=True):
        where = "more on the bill" if row.difference > 0 else "more in the ledger"
        imported = f"imported {_dollars(row.imports.amount)}  " if row.imports.amount else ""
        causes = ", ".join(
            f"{cause.detail} ({_dollars(cause.amount)})"
            if cause.cause in _WITH_AMOUNT and cause.amount
            else cause.detail
            for cause in row.causes
        )
        start = f"{row.day}  {row.model:<{name}}  {bill:<{widths[0]}}  {ledger:<{widths[1]}}  {imported}"
        lines.append(f"{start}{_dollars(abs(row.difference))} {where}: {causes}")
    return lines


_WITH_AMOUNT: Final = ("expired", "estimate", "fallback_price", "discount")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _dollars(microcents: int) -> str:
    """Return an amount with four decimals, and more if it has more."""
    shown = _format.number_of(cycles.SignedAmount(_UNIT, microcents))
    whole, _, cents = shown.partition(".")
    return f"{whole}.{cents.ljust(4, '0')}"
