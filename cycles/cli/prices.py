"""`cycles prices`: the prices that are used, newer ones, and the models that have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cycles._errors import ConfigurationError, UnknownModelError
from cycles.cli import _frame as frame, _newer_prices
from cycles.cli._frame import Cli
from cycles.prices import Origin, PriceBook


@frame.command("show", settings=False)
@click.argument("model")
@click.option("--url", metavar="URL", help="The base URL of the client, which may belong to a gateway or a cloud.")
def _show(cli: Cli, model: str, url: str | None) -> None:
    """Print the rates of MODEL, and the rules that supply those that the data lacks."""
    book = PriceBook.genai()
    try:
        found = book.look_up(model, Origin(url=url))
    except UnknownModelError:
        raise UnknownModelError(
            f"no price is known for the model {model!r:.80}{book._near(model)}: cycles prices update FILE downloads "
            "newer prices; add your own to the file, and name it in CYCLES_PRICES_FILE"
        ) from None
    members, rules = _newer_prices.members_of(found.price), dict(found.rules)
    if cli.out.json:
        cli.out.document({"model": model, "provider": found.provider, "price": members, "rules": rules})
        return
    rows = [(f"tokens_{name}", rate, "USD per million") for name, rate in members.items() if isinstance(rate, str)]
    rows += [(name, rate, "USD for one") for name, rate in members.get("per_call", {}).items()]
    cli.out.line(f"{model}: prices of {found.provider or 'no provider'}")
    cli.out.table(["count", "rate", "unit", "rule"], [(*row, rules.get(row[0], "")) for row in rows], right=("rate",))
    for start in members.get("above", {}):
        cli.out.line(f"above {start} input tokens other rates apply; --json prints them")


@frame.command("update", settings=False)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--from", "source", metavar="URL", help="Where the newest data is; by default that of genai-prices.")
def _update(cli: Cli, file: str, source: str | None) -> None:
    """Download the newest data once, and write the models whose price differs to FILE.

    CYCLES_PRICES_FILE, PriceBook.genai(file=...) and --prices read it.
    """
    changed = _newer_prices.changed_models(source)
    text = json.dumps({"models": changed}, indent=1, sort_keys=True)
    try:
        Path(file).write_text(text + "\n", "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error}; pass another file") from error
    if cli.out.json:
        cli.out.document({"file": file, "models": changed})
        return
    for model, members in changed.items():
        cli.out.line(f"{model}: input {members['input']}, output {members['output']} USD per million tokens")
    cli.out.line(f"wrote {len(changed)} models to {file}")


@frame.command("check", settings=False)
@click.option(
    "--provider",
    type=click.Choice(list(_newer_prices.LISTS)),
    help="Whose list of models; its key comes from the environment. By default each whose key is set.",
)
@click.option("--models", "file", type=click.Path(dir_okay=False), help="A file with one model in a line, instead.")
def _check(cli: Cli, provider: str | None, file: str | None) -> None:
    """List the models that have no price; exit status 1 if there are any."""
    if provider is not None and file is not None:
        raise click.UsageError(f"--provider {provider} and --models {file} are both given: pass one of them")
    listed = _newer_prices.models_in(file) if file is not None else _newer_prices.models_of(provider)
    book, missing = PriceBook.genai(), list[dict[str, Any]]()
    for owner, model in listed:
        if not book.has(model, Origin(provider=owner)):
            missing.append({"provider": owner, "model": model})
    if cli.out.json:
        cli.out.document({"checked": len(listed), "missing": missing})
    else:
        for one in missing:
            cli.out.line(f"{one['model']}: no price")
        cli.out.line(f"checked {len(listed)} models, {len(missing)} without a price")
    if missing:
        click.get_current_context().exit(1)


@frame.group("prices")
def command() -> None:
    """Show prices, write newer ones to a file, and find models without a price."""


command.add_command(_show)
command.add_command(_update)
command.add_command(_check)
