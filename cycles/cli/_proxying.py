"""What `cycles run` and `cycles proxy` share: their options, and how a run is made of them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import click
from attrs import evolve

import cycles
from cycles._version import INSTALL_COMMAND
from cycles.cli._frame import Cli
from cycles.cli._options import Seconds, amount, subject_option
from cycles.cli._output import say
from cycles.cli._warnings import gathered_warnings

if TYPE_CHECKING:
    from cycles.providers._hosts import FreeHost
    from cycles.proxy._ledger import RunLedger
    from cycles.proxy._run import Ended, Run
    from cycles.proxy._settings import ProxySettings

F = TypeVar("F", bound=Callable[..., Any])

ROUTES: Final = (
    "openai",
    "anthropic",
    "gemini",
    "vertex",
    "azure",
    "groq",
    "mistral",
    "xai",
    "openrouter",
    "deepseek",
    "ollama",
)
"""The routes of `cycles.proxy`, which is imported when it is used."""
UNITS: Final = {"USD": "USD_MICROCENTS", "TOKENS": "TOKENS"}
"""The values of `--unit`, and the units of the protocol."""
PERIODS: Final = ("minute", "hour", "day", "week", "month")
"""The windows of a budget."""
Budget: TypeAlias = cycles.Amount | tuple[cycles.Amount, str] | str | None
"""What --budget may be: an amount, one with the window of its budget, or a percentage."""
_NEEDED: Final = ("uvicorn", "starlette", "genai_prices")


def _upstreams(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = dict[str, str]()
    for text in values:
        name, equals, url = text.partition("=")
        if name in found:
            raise click.BadParameter(f"{name} is there 2 times ({found[name]}, {url}); pass one", ctx, param)
        if not equals or not url or name not in ROUTES:
            raise click.BadParameter(
                f"{text!r:.80} is not PROVIDER=URL; write it like openai=https://HOST/v1 ({', '.join(ROUTES)})",
                ctx,
                param,
            )
        found[name] = url
    return found


def _hosts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> frozenset[str]:
    if not values:
        return frozenset()
    from cycles.proxy._hosts import normalized_host

    found = set()
    for text in values:
        try:
            found.add(normalized_host(text))
        except ValueError:
            raise click.BadParameter(
                f"{text!r:.80} is not a host name; write it like chatgpt.com, without scheme, port, path or wildcard",
                ctx,
                param,
            ) from None
    return frozenset(found)


def _free_hosts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[FreeHost, ...]:
    if not values:
        return ()
    from cycles.providers._hosts import free_hosts_of

    try:
        return free_hosts_of(values)
    except cycles.InvalidRequestError:
        raise click.BadParameter(
            f"{', '.join(values):.80} has what is no host; write it like localhost:11434 or *.gpu.internal", ctx, param
        ) from None


class _DenyOr(click.Choice):  # type: ignore[type-arg]  # click 8.1 has no parameter for it
    """``deny`` or another word. ``refuse``, the former word for it, is accepted."""

    def __init__(self, other: str) -> None:
        super().__init__(["deny", other])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return one of the two words."""
        return super().convert("deny" if value == "refuse" else value, param, ctx)


def _unknown_model(ctx: click.Context, param: click.Parameter, value: str) -> cycles.Amount | None:
    if value in ("deny", "refuse"):  # the former word
        return None
    word, equals, text = value.partition("=")
    if word != "allow" or not equals:
        raise click.BadParameter(
            f"{value!r:.80} is neither deny nor allow=AMOUNT; write it like allow=0.10USD", ctx, param
        )
    return _dollars(ctx, param, amount(text))


def _percent(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", value.strip())
    if found is None or not 0 < float(found[1]) <= 100:
        raise click.BadParameter(f"{value!r:.80} is not a percentage; write it like 80%", ctx, param)
    return float(found[1]) / 100


def _percents(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(found for value in values if (found := _percent(ctx, param, value)) is not None)


def _dollars(ctx: click.Context, param: click.Parameter, value: cycles.Amount | None) -> cycles.Amount | None:
    if value is not None and value.unit != cycles.Unit.USD_MICROCENTS:
        raise click.BadParameter(f"{value} is not in USD; write it like 5USD", ctx, param)
    return value


def _budget(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Budget:
    """Return an amount, one with its window, or a percentage as it was written."""
    if not values:
        return None
    value, *more = values
    if more:
        raise click.BadParameter(f"it is there {len(values)} times ({', '.join(values):.80}); pass one", ctx, param)
    if value.strip().endswith("%"):
        _percent(ctx, param, value)
        return value.strip()
    value, slash, period = value.partition("/")
    if slash and period not in PERIODS:
        raise click.BadParameter(
            f"{period!r:.80} is no window; write it like 5USD/day ({', '.join(PERIODS)})", ctx, param
        )
    found = amount(value)
    if found.unit not in UNITS.values():
        raise click.BadParameter(f"{found} is neither in USD nor in TOKENS; write it like 5USD", ctx, param)
    if found.amount <= 0:
        raise click.BadParameter(f"{value!r:.80} is not above zero; write it like 5USD", ctx, param)
    return (found, period) if slash else found


def budget_and_window(options: dict[str, Any]) -> tuple[cycles.Amount | str | None, cycles.Window | None]:
    """Return the budget and its window.

    Raises:
        UsageError: there is a window without a ledger that is kept, or a zone without a window.
    """
    given: Budget = options["budget"]
    if not isinstance(given, tuple):
        if options["timezone"] is not None:
            raise click.UsageError("--timezone needs a window: pass --budget like 5USD/day")
        return given, None
    budget, period = given
    if options["keep"] is None:
        raise click.UsageError(f"a budget for each {period} needs a ledger that is kept: pass --keep NAME")
    try:
        return budget, cycles.window(budget, cast(Any, period), timezone=options["timezone"] or "UTC")
    except cycles.InvalidRequestError:
        zone = options["timezone"]
        raise click.UsageError(
            f"--timezone {zone!r:.80} is not known; write a name like Europe/Berlin, or UTC"
        ) from None


def _unit_of(options: Mapping[str, Any]) -> str | None:
    """Return the unit of a run, if it was given: by `--unit`, or by an amount of `--budget`."""
    budget, unit = options["budget"], UNITS.get(options["unit"] or "")
    if not isinstance(budget, cycles.Amount):
        return unit
    if unit not in (None, budget.unit):
        raise click.UsageError(f"--unit {options['unit']} is not the unit of --budget {budget}: a run has one unit")
    return budget.unit


_OPTIONS: Final = (
    click.option(
        "--budget",
        metavar="AMOUNT",
        multiple=True,
        callback=_budget,
        help="The budget, like 5USD or 50000TOKENS; with --keep also 5USD/day; inside a run also a part like 20%.",
    ),
    click.option("--timezone", metavar="NAME", help="The zone of a window like 5USD/day, as IANA names it; or UTC."),
    click.option(
        "--unit",
        type=click.Choice(list(UNITS)),
        help="What is counted: by default the unit of --budget, else USD. Tokens need no prices.",
    ),
    click.option("--embedded", is_flag=True, help="Use a ledger in this process, also if a server is configured."),
    click.option("--keep", metavar="NAME", help="Keep that ledger in a file, where the spend of runs adds up."),
    click.option(
        "--upstream", metavar="PROVIDER=URL", multiple=True, callback=_upstreams, help="Where requests are sent."
    ),
    click.option(
        "--fake", is_flag=True, help="Send all requests to a fake provider: no key, no network, nothing is paid."
    ),
    click.option(
        "--allow-host",
        metavar="HOST",
        multiple=True,
        callback=_hosts,
        help="Pass connections to this host of a provider, uncharged; may be repeated.",
    ),
    click.option(
        "--free-host",
        metavar="HOST",
        multiple=True,
        callback=_free_hosts,
        help="Requests to this host cost nothing, like localhost:11434; may be repeated.",
    ),
    click.option("--prices", metavar="FILE", help="Prices in JSON or TOML that override the installed ones."),
    subject_option,
    click.option(
        "--max-output-tokens", metavar="N", type=click.IntRange(1), help="The highest output limit of a request."
    ),
    click.option(
        "--unknown-model",
        metavar="deny|allow=AMOUNT",
        default="deny",
        callback=_unknown_model,
        help="Deny models without a price, or reserve and charge AMOUNT for each call.",
    ),
    click.option(
        "--unmetered",
        type=_DenyOr("allow"),
        default="deny",
        help="Deny or pass requests that may cost money and cannot be metered.",
    ),
    click.option(
        "--lost-attempt",
        type=click.Choice(["bound", "prompt"]),
        default="bound",
        show_default=True,
        help="What a call costs that was sent and got no status: its reserved bound, or an estimate of its prompt.",
    ),
    click.option(
        "--on-denied",
        type=_DenyOr("stop"),
        default="deny",
        help="What a denial does: only the call fails, or the command is stopped.",
    ),
    click.option(
        "--wait",
        metavar="SECONDS",
        type=Seconds(0, 86_400),
        default=240,
        show_default=True,
        help="How long a call waits while nothing of its budget ends; 0: not at all.",
    ),
    click.option(
        "--min-output-tokens",
        metavar="N",
        type=click.IntRange(0),
        default=1_024,
        show_default=True,
        help="The lowest output limit to which a request is lowered to fit its budget; 0: never.",
    ),
    click.option(
        "--warn-at",
        metavar="PERCENT",
        multiple=True,
        callback=_percents,
        help="Print a line when this much of a budget is used, like 80%.",
    ),
    click.option(
        "--ask-at",
        metavar="PERCENT",
        callback=_percent,
        help="Prompt before more is spent from there on, like 90%.",
    ),
    click.option(
        "--verbose", "-v", is_flag=True, help="Print each warning separately, with the id of its reservation."
    ),
)


def budget_of_report(given: tuple[str, ...], timezone: str | None) -> tuple[cycles.Amount | None, cycles.Window | None]:
    """Return the budget and the window of `cycles report`.

    Raises:
        UsageError: it is no amount of a whole run.
    """
    ctx = click.get_current_context()
    param = next(each for each in ctx.command.params if each.name == "budget")
    budget, window = budget_and_window({"budget": _budget(ctx, param, given), "timezone": timezone, "keep": ""})
    if isinstance(budget, str):
        raise click.UsageError(f"--budget {budget} is a part of nothing: write it like 5USD")
    return budget, window


def proxy_options(function: F) -> F:
    """Add the options that `run` and `proxy` share."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def require_packages() -> None:
    """Raise `ConfigurationError` if a package that the proxy needs is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise cycles.ConfigurationError(f"{missing[0]} is not installed: run {INSTALL_COMMAND}")


def make_run(cli: Cli, options: dict[str, Any], *, key: str | None = None) -> Run:
    """Return a run with its ledger and its settings.

    Raises:
        ConfigurationError: a package, a budget or a setting is missing or wrong.
    """
    if options["fake"] and options["upstream"]:
        raise click.UsageError("--fake and --upstream exclude each other: --fake is the upstream of all routes")
    if options["allow_host"] and not options["tunnel"]:
        raise click.UsageError("--allow-host needs the tunnel: pass --tunnel, or leave --no-tunnel out")
    require_packages()
    budget, window = budget_and_window(options)
    with ExitStack() as closing:
        return _make_run(cli, {**options, "budget": budget}, window, key, closing)


def _make_run(
    cli: Cli, options: dict[str, Any], window: cycles.Window | None, key: str | None, closing: ExitStack
) -> Run:
    from cycles.proxy._prompts import warn_at
    from cycles.proxy._run import Run

    settings = _settings_of(options, key, closing)
    ledger = _ledger_of(cli, options, window, settings)
    if options["subject"]:
        ledger.client._context().subject(options["subject"])  # a wrong one would fail each call
    if options["warn_at"]:
        warn_at(ledger.clients, options["warn_at"], lambda message: say(f"cycles: {message}"))
    run_id = None if options["keep"] is None else secrets.token_hex(6)
    return Run(
        evolve(settings, unit=ledger.unit, own_scope=ledger.own_scope, run_id=run_id),
        ledger,
        stops=options["on_denied"] == "stop",
        agent_settings=options.get("agent_settings", False),
        closing=closing.pop_all(),
        say=lambda message: say(f"cycles: {message}"),
    )


def _settings_of(options: Mapping[str, Any], key: str | None, closing: ExitStack) -> ProxySettings:
    """Return how requests are treated."""
    from cycles.proxy._asking import Asking
    from cycles.proxy._caller_proxy import caller_proxy
    from cycles.proxy._prompts import Prompt, has_terminal
    from cycles.proxy._settings import ProxySettings, fake_upstreams, price_book, upstreams_of

    if options["fake"]:
        from cycles.testing._stand_in import FakeModels

        upstreams = fake_upstreams(closing.enter_context(FakeModels()).url)
    else:
        upstreams = upstreams_of(options["upstream"], os.environ)
    settings = ProxySettings(
        **upstreams,
        prices=price_book(options["prices"]),
        subject=options["subject"] or {},
        max_output_tokens=options["max_output_tokens"],
        unknown_model=options["unknown_model"],
        unmetered="allow" if options["unmetered"] == "allow" else "refuse",
        lost_attempt=options["lost_attempt"],
        wait=options["wait"],
        min_output_tokens=options["min_output_tokens"] or None,
        key=key,
        tunnel=options["tunnel"],
        allowed=options["allow_host"],
        free_hosts=options["free_host"],
        sealed=options.get("sealed", False),
        shared_ports=tuple(dict.fromkeys(options.get("share_port", ()))),
        captured_hosts=options.get("captured_hosts", frozenset()),
        caller=caller_proxy(os.environ),
    )
    if options["ask_at"] is None:
        return settings
    if not has_terminal():
        raise click.UsageError("--ask-at needs a terminal: leave it out, or use --warn-at")
    return evolve(settings, asking=Asking(options["ask_at"], Prompt()))


def _ledger_of(
    cli: Cli, options: Mapping[str, Any], window: cycles.Window | None, settings: ProxySettings
) -> RunLedger:
    """Open the ledger that the options name."""
    from cycles.providers._meter import behind_proxy
    from cycles.proxy._ledger import open_ledger

    unit, budget = _unit_of(options), options["budget"]
    if isinstance(budget, str):
        from cycles.proxy._around import part_of_run

        budget = part_of_run(budget, os.environ)
        unit = _unit_of({**options, "budget": budget})
    return open_ledger(
        cli.config(),
        budget,
        embedded=options["embedded"],
        keep=options["keep"],
        nested=any(behind_proxy(url) for url in settings.upstreams.values()),
        unit=unit,
        window=window,
        unlimited=options.get("unlimited", False),
    )


def run_program(cli: Cli, arguments: tuple[str, ...], options: dict[str, Any], *, cycles_env: bool) -> Ended:
    """Run a command behind the proxy of the options.

    Raises:
        ConfigurationError: a package, a budget or a setting is missing or wrong; nothing was started.
        CannotSealError: the command cannot be sealed here; nothing was started.
    """
    from cycles.proxy._child import blocked_signals
    from cycles.proxy._sealing import check_platform

    with blocked_signals(), gathered_warnings(verbose=options["verbose"]):
        if options.get("sealed"):
            check_platform()
        return make_run(cli, options).run(arguments, dict(os.environ), cycles_env=cycles_env)


def print_ended(cli: Cli, ended: Ended) -> int:
    """Print the summary of a run to stderr, and return its exit status."""
    lines = [json.dumps(ended.document)] if cli.out.json else [f"cycles: {message}" for message in ended.lines]
    with contextlib.suppress(OSError):  # the reader of stderr may have ended with the command
        for message in lines:
            say(message)
    return int(ended.status)
