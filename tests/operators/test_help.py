"""Help texts of all commands: own options first, two examples that parse, exit codes; and names that were meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

import cycles
from cycles.cli._app import app
from cycles.cli._help import HELP, SHARED
from tests.operators.conftest import Cycles
from tests.operators.kit import run_process
from tests.operators.proxying import proxied
from tests.operators.terminal import in_terminal


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield " ".join((*words, name)), found
        if isinstance(found, click.Group):
            yield from commands(found, (*words, name))


ALL = dict(commands(app))


def test_every_command_has_a_help_text() -> None:
    assert set(ALL) <= set(HELP)


@pytest.mark.parametrize("path", ALL)
def test_help_begins_with_the_own_options_and_ends_with_examples_and_exit_codes(run_here: Cycles, path: str) -> None:
    text = run_here(*path.split(), "--help").out
    own = [param.opts[0] for param in ALL[path].params if isinstance(param, click.Option) and param.name not in SHARED]
    shared = text.index("Options of many commands:")
    for option in own:
        assert text.index(f" {option}") < shared
    assert 0 < text.index("Examples:") < text.index("Exit codes:")
    assert text.index("Examples:") > shared


@pytest.mark.parametrize("example", [example for path in ALL for example in HELP[path][:2]])
def test_the_examples_parse(example: str) -> None:
    words = shlex.split(example)
    assert words[0] == "cycles"
    if words[1] in ("evidence", "spec"):
        return  # their arguments are files that must exist
    command, rest = app, words[1:]
    context = click.Context(app, info_name="cycles")
    while isinstance(command, click.Group):
        if not rest:
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context = click.Context(found, parent=context, info_name=name)
        command = found  # type: ignore[assignment]
    command.make_context(command.name, list(rest), parent=context.parent)


@pytest.mark.parametrize("option", ["--agent", "--workspace=X"])
def test_a_level_that_is_no_option_names_the_option_for_subjects(run_here: Cycles, option: str) -> None:
    level = option.lstrip("-").partition("=")[0]
    found = run_here("record", "1USD", "--action", "tool.call/x", option, "X")
    assert (found.status, found.err.splitlines()[0]) == (
        2,
        f"error: no such option '--{level}'; write --subject {level}=NAME",
    )
    found = run_here("budgets", option, "X")
    assert (found.status, found.err.splitlines()[0]) == (2, f"error: no such option '--{level}'")


def test_settings_keywords_and_models_name_what_was_probably_meant(embedded_client: cycles.Cycles) -> None:
    client = embedded_client
    with pytest.raises(cycles.ConfigurationError, match="did you mean tenant\\?"):
        cycles.Cycles(tenent="acme")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean subject\\?"):
        client.record(cycles.usd(1), action=("a", "b"), subjct={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean ttl_ms\\?"):
        client.guarded(estimate=cycles.usd(1), action=("a", "b"), tlt_ms=1)  # type: ignore[call-arg]
    with pytest.raises(cycles.UnknownModelError, match="did you mean gpt-4o\\?"):
        cycles.PriceBook.genai().price("gpt-4oo")
    with pytest.raises(cycles.UnknownModelError) as unknown:
        cycles.PriceBook.genai().price("zzzzzzzzzz")
    assert "did you mean" not in str(unknown.value)


@pytest.fixture
def embedded_client() -> Iterator[cycles.Cycles]:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.usd(1)}) as client:
        yield client


def test_a_guarded_client_names_the_option_that_was_probably_meant() -> None:
    openai = pytest.importorskip("openai")
    llm = openai.OpenAI(api_key="k")
    with pytest.raises(TypeError, match="did you mean max_output_tokens\\?"):
        cycles.providers.guard(llm, max_output_token=1)  # type: ignore[call-arg]


def test_the_proxy_names_the_model_that_was_probably_meant() -> None:
    with proxied(prices=cycles.PriceBook.genai()) as place:
        denied = place.post(json={"model": "gpt-4oo", "messages": []})
        assert denied.status_code == 402
        assert "no price is known for the model 'gpt-4oo'; did you mean gpt-4o?" in denied.text


def test_pages_are_formatted_on_a_terminal_only() -> None:
    assert "## " in run_process("docs", "streaming").out
    with in_terminal("docs", "command-line") as terminal:
        assert terminal.wait() == 0
    assert "\x1b[" in terminal.output
    assert "Find out what is wrong" in terminal.text
    assert "## " not in terminal.text
    assert "<!--" not in terminal.text
