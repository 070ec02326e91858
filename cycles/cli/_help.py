"""Help texts: the command's own options first, then those of all commands, two examples, and the exit codes."""

from __future__ import annotations

from typing import Final

import click

from cycles._errors import did_you_mean

SHARED: Final = ("json", "profile", "base_url", "admin_base_url", "tenant", "journal_dir", "help", "version")
"""Options that many commands have."""

_SERVER: Final = "0 done, 1 rejected by the server, 2 wrong usage: nothing was sent, 3 no usable response"
_SETTLES: Final = f"{_SERVER}, 4 something is left unsettled"
_LOCAL: Final = "0 done, 2 wrong usage"
_SPEC: Final = "0 nothing breaks, 1 a change breaks users, 2 wrong usage"
_RUN: Final = (
    "that of the command, 128 + N after signal N; 126 not executable, 127 not found; 2 wrong usage, and 3 if --sealed "
    "is not possible: nothing was started; 3 also if the budget server decided no call"
)

HELP: Final[dict[str, tuple[str, str, str]]] = {
    "dev": ("cycles dev --open", "cycles dev --budget tenant:acme=10USD --db ledger.db", _LOCAL),
    "doctor": (
        "cycles doctor",
        "cycles doctor --profile production",
        "0 all is well, 1 a check failed, 2 the configuration is wrong, 3 no response, 4 amounts are pending",
    ),
    "run": (
        "cycles run --budget 5USD -- python my_agent.py",
        "cycles run --fake --budget 50000TOKENS --keep nightly -- sh agents.sh",
        _RUN,
    ),
    "runs": ("cycles runs", "cycles runs reset nightly --yes", _LOCAL),
    "runs list": ("cycles runs list", "cycles runs list --json", _LOCAL),
    "runs reset": ("cycles runs reset nightly", "cycles runs reset nightly --yes", _LOCAL),
    "runs delete": ("cycles runs delete nightly", "cycles runs delete nightly --yes", _LOCAL),
    "proxy": (
        "cycles proxy --budget 5USD",
        "cycles proxy --listen 0.0.0.0:8790 --proxy-key KEY",
        "0 stopped by a signal, 2 wrong usage",
    ),
    "mcp": (
        "cycles mcp --subject agent=researcher --max 1USD",
        "cycles mcp --read-only --http 8791",
        "0 its client has left, 2 wrong usage",
    ),
    "balances": ("cycles balances --tree", "cycles balances --subject agent=planner --watch", _SERVER),
    "budgets": ("cycles budgets", "cycles budgets --status frozen --json", _SERVER),
    "fund": ("cycles fund tenant:acme 5USD", "cycles fund tenant:acme/agent:bot 50000TOKENS --yes", _SERVER),
    "budget": ("cycles budget set tenant:acme 100USD", "cycles budget freeze tenant:acme --unit TOKENS", _SERVER),
    "budget set": (
        "cycles budget set tenant:acme 100USD",
        "cycles budget set tenant:acme/agent:bot 50000TOKENS --yes",
        _SERVER,
    ),
    "budget freeze": (
        "cycles budget freeze tenant:acme",
        "cycles budget freeze tenant:acme --unit TOKENS --reason audit",
        _SERVER,
    ),
    "budget unfreeze": ("cycles budget unfreeze tenant:acme", "cycles budget unfreeze tenant:acme --yes", _SERVER),
    "reservations": (
        "cycles reservations --status active",
        "cycles reservations --since 2h --subject agent=planner",
        _SERVER,
    ),
    "reservation": ("cycles reservation ID", "cycles reservation ID --json", _SERVER),
    "spend": ("cycles spend --by agent", "cycles spend --by day --since 30d", _SERVER),
    "reconcile": (
        "cycles reconcile --provider openai --since 7d",
        "cycles reconcile --provider anthropic --since 30d --import --yes",
        "0 all rows agree, 1 rejected, 2 wrong usage: nothing was sent, 3 no usable response, 4 a difference is left",
    ),
    "measure": (
        "cycles measure -- python my_agent.py",
        "cycles measure --keep nightly -- sh agents.sh",
        _RUN,
    ),
    "report": ("cycles report --keep measure", "cycles report --keep measure --budget 5USD", _LOCAL),
    "release": ("cycles release ID", "cycles release ID --reason stuck --yes", _SERVER),
    "extend": ("cycles extend ID 60000", "cycles extend ID 60000 --yes", _SERVER),
    "commit": ("cycles commit ID 0.05USD", "cycles commit ID 0.05USD --yes", _SETTLES),
    "check": (
        "cycles check 5USD --action llm.completion/gpt-4o",
        "cycles check 500TOKENS --action llm.completion/gpt-4o --subject agent=planner",
        "0 allowed, 1 denied or rejected by the server, 2 wrong usage: nothing was sent, 3 no usable response",
    ),
    "record": (
        "cycles record 0.5USD --action tool.call/search",
        "cycles record 0.5USD --action tool.call/search --idempotency-key invoice-7",
        _SETTLES,
    ),
    "pending": ("cycles pending", "cycles pending --json", "0 nothing is pending, 2 wrong usage, 4 something is"),
    "journal": ("cycles journal list", "cycles journal retry --yes", _SETTLES),
    "journal list": ("cycles journal list", "cycles journal list --rejected", _LOCAL),
    "journal show": ("cycles journal show ID", "cycles journal show ID --json", _LOCAL),
    "journal export": ("cycles journal export", "cycles journal export --journal-dir DIR", _LOCAL),
    "journal retry": ("cycles journal retry", "cycles journal retry ID --as-event --yes", _SETTLES),
    "journal discard": ("cycles journal discard ID", "cycles journal discard ID --yes", _LOCAL),
    "journal move": (
        "cycles journal move DIR redis://HOST/0",
        "cycles journal move DIR OTHER",
        "0 done, 2 wrong usage, 4 records are left",
    ),
    "flush": ("cycles flush", "cycles flush --timeout 60", _SETTLES),
    "top": ("cycles top", "cycles top --once --json", _SERVER),
    "evidence": ("cycles evidence verify FILE", "cycles evidence verify ID --json", "0 authentic, 1 not, 2 none"),
    "evidence verify": (
        "cycles evidence verify FILE --keys KEYS",
        "cycles evidence verify ID",
        "0 authentic, 1 any other disposition, 2 no evidence envelope or wrong usage, 3 no usable response",
    ),
    "spec": ("cycles spec diff OLD NEW", "cycles spec diff OLD NEW --json", _SPEC),
    "spec diff": ("cycles spec diff OLD NEW", "cycles spec diff OLD NEW --json", _SPEC),
    "prices": ("cycles prices show gpt-4o", "cycles prices update prices.json", _LOCAL),
    "prices show": ("cycles prices show gpt-4o", "cycles prices show gpt-4o --json", _LOCAL),
    "prices update": (
        "cycles prices update prices.json",
        "cycles prices update prices.json --json",
        "0 done, 2 wrong usage, 3 no usable data",
    ),
    "prices check": (
        "cycles prices check",
        "cycles prices check --json",
        "0 done, 1 a price is missing, 2 wrong usage",
    ),
    "docs": ("cycles docs", "cycles docs run-under-a-budget", _LOCAL),
}
"""By the words of a command: two examples, and its exit codes."""


class _Helped(click.Command):
    """A command whose help is in the order of this module."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print its own options, and then those that other commands have too."""
        rows: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                rows[param.name in SHARED].append(record)
        for name, found in (("Options", rows[False]), ("Options of many commands", rows[True])):
            if found:
                with formatter.section(name):
                    formatter.write_dl(found)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print two examples and the exit codes."""
        known = HELP.get(ctx.command_path.partition(" ")[2])
        if known is None:
            return
        *examples, codes = known
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        with formatter.section("Exit codes"):
            formatter.write_text(codes)


class Command(_Helped):
    """A command of the table."""


class Group(_Helped, click.Group):
    """A group that suggests a command for a misspelled one."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the commands first."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first argument.

        Raises:
            click.UsageError: if there is none of that name; it names one that is like it.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            ctx.fail(f"no such command {name!r:.80}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)
