"""A provider is one file, one fake, one row and one extra: nothing else of the package knows it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.providers._endpoints import find
from cycles.providers._provider import PROVIDERS, provider_named
from cycles.proxy._errors import error_response
from tests.providers import madeup_fake
from tests.providers.conftest import EXACT, USED, Desk

openai: Any = pytest.importorskip("openai")
PACKAGE = Path(cycles.__file__).parent


class MadeUp(openai.OpenAI):  # type: ignore[misc]
    """The SDK of a provider that does not exist."""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "madeup", "tests.providers.madeup_provider")
    monkeypatch.setitem(sys.modules, "cycles.testing._madeup", madeup_fake)


def test_a_made_up_provider_is_charged_exactly(desk: Desk) -> None:
    llm = MadeUp(api_key="k", base_url=f"{desk.provider.url_of('madeup')}/v9", max_retries=0)
    desk.originals.append(llm)
    guarded = desk.guard(llm, max_output_tokens=300)
    desk.provider.reply(usage=USED)
    guarded.post("/think", body={"model": "m", "longest": 500}, cast_to=object)
    assert desk.commits == [(EXACT, {})]
    assert desk.provider.requests[-1].body["longest"] == 300
    guarded.post("/ponder", body={}, cast_to=object)
    assert len(desk.commits) == 1
    with pytest.raises(cycles.InvalidRequestError, match="unmetered="):
        guarded.post("/act", body={"model": "m"}, cast_to=object)


def test_the_proxy_has_the_shape_of_its_errors() -> None:
    assert error_response("madeup", 402, "no budget", "budget_exceeded")[2] == b'{"oops": "no budget"}'
    assert find("madeup", "POST", "/v9/think") == provider_named("madeup").metered["/think"]


def test_no_other_module_compares_the_name_of_a_provider() -> None:
    own = {provider_named(name).__file__ for name in PROVIDERS}  # type: ignore[attr-defined]
    files = [file for folder in ("providers", "proxy") for file in (PACKAGE / folder).glob("*.py")]
    assert len(files) > len(own) + 5
    assert [file.name for file in files if str(file) not in own and compared_names(file.read_text("utf-8"))] == []


def test_each_form_of_a_comparison_is_found() -> None:
    assert compared_names("if name == 'groq': ...")
    assert compared_names("x = 1 if name not in ('openai', 'azure') else 2")
    assert compared_names("_OWN: Final = 'google'\nif publisher == _OWN: ...")
    assert compared_names("match name:\n    case 'cohere': ...")
    assert compared_names("x = name.startswith('mistral')")
    assert compared_names("Route('openai', 'openai')\nx = {'groq': 1}") == []


def compared_names(source: str) -> list[str]:
    """Return the lines of a module that compare something with the name of a provider."""
    tree = ast.parse(source)
    named = {target.id for target, value in assigned(tree) if isinstance(target, ast.Name) and has_name(value, set())}
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found += [node for part in (node.left, *node.comparators) if has_name(part, named)]
        elif isinstance(node, ast.MatchValue):
            found += [node] if has_name(node.value, named) else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            compares = node.func.attr in ("startswith", "endswith", "count", "index", "find")
            found += [node for part in node.args if compares and has_name(part, named)]
    return [ast.unparse(node) for node in found]


def assigned(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)


def has_name(value: ast.expr, named: set[str]) -> bool:
    """Whether this is the name of a provider, a list of names, or a constant that is one of both."""
    if isinstance(value, ast.Name):
        return value.id in named
    parts = value.elts if isinstance(value, ast.Tuple | ast.List | ast.Set) else [value]
    return any(isinstance(part, ast.Constant) and part.value in PROVIDERS for part in parts)
