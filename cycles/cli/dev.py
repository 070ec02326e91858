"""`cycles dev`: an embedded server with its dashboard, until a signal stops it. It prints the keys of that server."""

from __future__ import annotations

import secrets
import threading
import webbrowser
from contextlib import nullcontext
from typing import Any, Final

import click

import cycles
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._output import say
from cycles.cli._proxying import UNITS
from cycles.embedded.options import DEFAULT_PORT, budgets_of, export_command, keys_by_tenant, keys_of, stop_signal
from cycles.proxy._routes import base_urls
from cycles.testing._stand_in import FakeModels

DEFAULT_BUDGET: Final = ("tenant:acme", cycles.usd(10))
# Responses that a fault delays are broken off after this time, so that the process ends within two seconds.
STOP_S: Final = 1.0
# A file may have thousands of tenants; JSON has all of them.
MAX_LINES: Final = 20


@frame.command("dev", settings=False, short_help="Run a server with a dashboard, for development.")
@click.option(
    "--budget",
    "budgets",
    metavar="SCOPE=AMOUNT",
    multiple=True,
    help="A budget, like tenant:acme=10USD; may be repeated.",
)
@click.option(
    "--api-key", "keys", metavar="KEY=TENANT", multiple=True, help="An API key and its tenant; may be repeated."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=DEFAULT_PORT, show_default=True, help="0 for any.")
@click.option("--db", metavar="FILE", help="Keep the ledger in this SQLite file.")
@click.option("--fake", is_flag=True, help="Also run a fake provider of models, and print the variables of its SDKs.")
@click.option("--admin", is_flag=True, help="Also serve the admin operations, and print the variables of their client.")
@click.option("--open", "opens", is_flag=True, help="Open the dashboard in the browser.")
def command(
    cli: Cli,
    budgets: tuple[str, ...],
    keys: tuple[str, ...],
    port: int,
    db: str | None,
    fake: bool,
    admin: bool,
    opens: bool,
) -> None:
    """Run a Cycles server with a dashboard for development, on loopback, until Ctrl-C or SIGTERM.

    Without --budget, and with no budget in the file, the tenant acme has 10 dollars.
    """
    given = keys_of(keys)
    admin_key = f"cyc_admin_{secrets.token_hex(20)}" if admin else None
    provider = FakeModels() if fake else nullcontext()
    with (
        stop_signal() as stop,
        cycles.EmbeddedServer(budgets_of(budgets), path=db, api_keys=given, admin_api_key=admin_key) as server,
        provider as models,
    ):
        if not server.ledger.scopes():
            server.ledger.set_budget(*DEFAULT_BUDGET)
        listener = server.listen(port=port)
        url = listener.start()
        try:
            variables = {} if models is None else _fake_variables(models.url)
            if admin_key is not None:
                variables |= {"CYCLES_ADMIN_BASE_URL": url, "CYCLES_ADMIN_API_KEY": admin_key}
            _announce(cli, server, url, given, variables)
            if opens:
                _open(str(server.dashboard_url))
            stop.wait()
        finally:
            listener.stop(STOP_S)


def _fake_variables(url: str) -> dict[str, str]:
    """Return the variables with which the SDKs reach a fake provider; they require a key, and it reads none."""
    keys = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"), "fake")
    return {**base_urls(url, (), ()), **keys}


def _announce(
    cli: Cli, server: cycles.EmbeddedServer, url: str, given: dict[str, str], variables: dict[str, str]
) -> None:
    keys = keys_by_tenant(server, given)
    if cli.out.json:
        tenants = [{"tenant": tenant, "api_key": key} for tenant, key in keys.items()]
        fake = {"environment": variables} if variables else {}
        cli.out.document({"url": url, "dashboard": server.dashboard_url, "tenants": tenants, **fake})
        return
    rows: list[Any] = [("server", url), ("dashboard", server.dashboard_url)]
    rows += [(f"tenant {tenant}", key) for tenant, key in list(keys.items())[:MAX_LINES]]
    if len(keys) > MAX_LINES:
        rows.append(("", f"and {len(keys) - MAX_LINES} more tenants; --json prints all"))
    for name, value in rows:
        cli.out.line(f"{name:<11}  {value}")
    for line in _without_spending(server):
        cli.out.line(line)
    cli.out.line(export_command(url, keys))
    if variables:
        cli.out.line("export " + " ".join(f"{name}={value}" for name, value in variables.items()))
    cli.out.console.file.flush()
    say("Ctrl-C stops the server")


def _without_spending(server: cycles.EmbeddedServer) -> list[str]:
    """Return a line for each budget that calls draw on only if an option says so: a deeper scope, or another unit."""
    lines = []
    for budget in server.ledger.records()[0]:
        _, *levels = budget.scope.split("/")
        options = [f"--subject {level.replace(':', '=', 1)}" for level in levels]
        if budget.unit != cycles.Unit.USD_MICROCENTS:
            options.append(f"--unit {budget.unit}" if budget.unit in UNITS else "an estimate in its unit")
        if options:
            unit = "" if budget.unit == cycles.Unit.USD_MICROCENTS else f" in {budget.unit}"
            lines.append(f"{budget.scope}{unit}: no call draws on it by default; it needs {' '.join(options)}")
    more = len(lines) - MAX_LINES
    return lines if more <= 0 else [*lines[:MAX_LINES], f"and {more} more budgets on which no call draws by default"]


def _open(address: str) -> None:
    # In a thread, because a browser of the terminal returns only when it is closed.
    def open_browser() -> None:
        if not webbrowser.open(address):
            say("cannot open a browser; open the address of the dashboard yourself")

    threading.Thread(target=open_browser, daemon=True).start()
