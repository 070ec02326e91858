"""`cycles dev`: a server with a dashboard for development."""

from __future__ import annotations

import signal
import threading
import webbrowser
from pathlib import Path

import click

import cycles
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._output import styled
from cycles.embedded import __main__ as embedded

DEFAULT_BUDGET = {"tenant:acme": [cycles.usd(10)]}


@frame.command("dev", settings=False)
@click.option(
    "--budget",
    metavar="SCOPE=AMOUNT",
    multiple=True,
    help="A budget, like tenant:acme=10USD (the default) or tenant:acme/agent:bot=50000TOKENS; may be repeated.",
)
@click.option("--api-key", metavar="KEY=TENANT", multiple=True, help="An API key of the server; may be repeated.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=embedded.DEFAULT_PORT, show_default=True, help="0 for any."
)
@click.option("--db", type=click.Path(dir_okay=False, path_type=Path), help="Keep the ledger in this SQLite file.")
@click.option("--open", "open_page", is_flag=True, help="Open the dashboard in the browser.")
def command(
    cli: Cli, budget: tuple[str, ...], api_key: tuple[str, ...], port: int, db: Path | None, open_page: bool
) -> None:
    """Run a server with a dashboard, for development, until Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    keys = embedded.read_keys(api_key)
    with cycles.EmbeddedServer(embedded.read_budgets(budget), path=db, api_keys=keys) as server:
        if not server.ledger.scopes():
            for scope, amounts in DEFAULT_BUDGET.items():
                for amount in amounts:
                    server.ledger.set_budget(scope, amount)
        with server.listen(port=port) as url:
            dashboard = server.dashboard_url
            _announce(cli, url, dashboard, embedded.keys_by_tenant(server, keys))
            if open_page and dashboard:
                webbrowser.open(dashboard)
            stop.wait()


def _announce(cli: Cli, url: str, dashboard: str | None, keys: dict[str, str]) -> None:
    if cli.out.json:
        tenants = [{"tenant": tenant, "api_key": key} for tenant, key in keys.items()]
        cli.out.document({"url": url, "dashboard": dashboard, "tenants": tenants})
        return
    tenant, key = next(iter(keys.items()))
    cli.out.line(styled(f"Cycles server for development: {url}", "bold"))
    if dashboard:
        cli.out.line(f"dashboard: {dashboard}")
    for name, own in keys.items():
        cli.out.line(f"tenant {name}: {own}")
    cli.out.line("to use it, paste this into another terminal; Ctrl-C stops it:")
    cli.out.line(f"export CYCLES_BASE_URL={url} CYCLES_API_KEY={key} CYCLES_TENANT={tenant}")
