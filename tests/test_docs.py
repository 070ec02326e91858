"""Every code block of the documentation runs: README, CHANGELOG, docs/, and the docstrings of `cycles`.

Authors just write blocks. A page is one test, its blocks run in order in one namespace. What a page finds there:

- ``CYCLES_BASE_URL``, ``CYCLES_API_KEY`` and ``CYCLES_TENANT`` point to an embedded server behind real HTTP, with
  plenty of budget in every unit for ``tenant:acme``; its journal and its working directory are temporary. So
  ``client = cycles.Cycles()`` works as printed. ``server`` is that server. Clients are closed when the page ends.
- ``call_model(prompt)``, ``stream_model(prompt)`` and, for ``await`` and ``async for``, ``acall_model`` and
  ``astream_model``: replacements of a model SDK, which respond in OpenAI's format (see `Model`).
- ``OPENAI_BASE_URL`` points to a fake provider, so that ``openai.OpenAI()`` works as printed.
- ``await``, ``async with`` and ``async for`` are allowed at the top of a block.

Blocks are ``python`` (code, or a session with ``>>>``), ``bash`` (make targets, modules, options and settings must
exist), ``json``, ``toml``, ``yaml`` (must parse) and ``text`` (anything). Set-up the reader need not see goes into
``<!-- invisible-code: python`` ... ``-->``. Nothing can be skipped, but pages of frameworks that are not installed.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import gc
import importlib.util
import inspect
import io
import itertools
import json
import logging
import re
import shlex
import subprocess
import sys
import threading
import tomllib
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import click
import pytest
from ruamel.yaml import YAML
from sybil import Document, Example, Region
from sybil.document import PythonDocStringDocument
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from sybil.typing import Evaluator, Parser

import cycles
from cycles._config import VARIABLES as VARIABLES
from cycles.cli import main
from cycles.cli._app import app
from cycles.testing import FakeProvider

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "*/README.md", "docs/**/*.md", "cycles/SKILL.md")
    for page in ROOT.glob(pattern)
    if page.relative_to(ROOT).parts[0] not in (".venv", "dist")
)
MODULES = sorted(
    path for path in (ROOT / "cycles").rglob("*.py") if re.search(r"^\s*>>> |```\w", path.read_text(), re.M)
)
COMMANDS = re.compile(
    r"cycles|make|export|pip|uv|\.|git|cd|curl|mkdir|rm|ls|cat|docker|(\.venv/bin/)?(python3?|pytest)"
)
SERVING = {"dev", "run", "proxy", "top", "--watch"}
"""Commands of `cycles` that run until they are stopped: the documentation test does not run them."""
FRAMEWORKS = {
    "adk": "google.adk",
    "agent-framework": "agent_framework",
    "litellm": "litellm",
    "opentelemetry": "opentelemetry.trace",
    "langchain": "langchain.agents",
    "fastapi": "fastapi",
    "fastmcp": "fastmcp",
    "pydantic-ai": "pydantic_ai",
    "openai-agents": "agents",
    "celery": "celery",
    "rq": "rq",
    "dramatiq": "dramatiq",
}
"""Pages in docs/integrations, and the library that their blocks import."""
FENCES = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))


class Model:
    """What pages call instead of a model SDK: responses and stream chunks in OpenAI's format."""

    @staticmethod
    def answer(prompt: str = "", max_tokens: int | None = 1024, **_: Any) -> Any:
        used = SimpleNamespace(prompt_tokens=1200, completion_tokens=min(800, max_tokens or 800), total_tokens=2000)
        return SimpleNamespace(id="answer-1", model="small-model", text=f"Answer to {prompt}", usage=used)

    @classmethod
    def chunks(cls, prompt: str = "", max_tokens: int | None = 1024, **_: Any) -> Iterator[Any]:
        for word in ("Once", "upon", "a", "time"):
            yield SimpleNamespace(id="answer-1", model="small-model", text=word, usage=None)
        yield SimpleNamespace(id="answer-1", model="small-model", text="", usage=cls.answer(prompt, max_tokens).usage)

    @classmethod
    async def aanswer(cls, prompt: str = "", max_tokens: int | None = 1024, **_: Any) -> Any:
        await asyncio.sleep(0)
        return cls.answer(prompt, max_tokens)

    @classmethod
    async def achunks(cls, prompt: str = "", max_tokens: int | None = 1024, **_: Any) -> AsyncIterator[Any]:
        for chunk in cls.chunks(prompt, max_tokens):
            yield chunk


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[cycles.Cycles]:
    """Every client a page makes, also those it rebinds the name of."""
    made: list[cycles.Cycles] = []
    initialise = cycles.Cycles.__init__

    def remember(self: cycles.Cycles, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(cycles.Cycles, "__init__", remember)
    return made


@pytest.fixture
def namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clients: list[cycles.Cycles], runner: asyncio.Runner
) -> Iterator[dict[str, Any]]:
    """A page's world; what the page leaves open is closed behind it."""
    plenty = [cycles.usd(10_000), cycles.tokens(10**9), cycles.credits(10**6), cycles.risk_points(10**6)]
    server = cycles.EmbeddedServer(budgets={"tenant:acme": plenty})
    for name in ("HOME", "XDG_STATE_HOME", "CYCLES_JOURNAL_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with server.listen(port=0) as url, FakeProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        monkeypatch.setenv("CYCLES_API_KEY", server.api_key)
        monkeypatch.setenv("CYCLES_TENANT", "acme")
        world: dict[str, Any] = {"__name__": "__docs__", "cycles": cycles, "server": server}
        world |= {"call_model": Model.answer, "stream_model": Model.chunks}
        world |= {"acall_model": Model.aanswer, "astream_model": Model.achunks}
        yield world
        for client in clients:
            runner.run(client.aclose())
        cycles.set_default_client(None)
    server.close()


class PythonBlocks:
    """Python, with ``await`` allowed at the top, or a session of ``>>>`` lines."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.blocks = CodeBlockParser("python", self.run)
        self.sessions = DocTestStringParser(DocTestEvaluator(doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE))

    def __call__(self, document: Document) -> Iterable[Region]:
        for region in self.blocks(document):
            if not region.parsed.lstrip().startswith(">>>"):
                yield region
                continue
            for session in self.sessions(region.parsed, document.path):
                session.adjust(region, region.parsed)
                yield session

    def run(self, example: Example) -> None:
        source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            self.runner.run(eval(code, example.namespace))
        else:
            exec(code, example.namespace)


def runs_json(example: Example) -> None:
    json.loads(example.parsed)


def runs_toml(example: Example) -> None:
    tomllib.loads(example.parsed)


def runs_yaml(example: Example) -> None:
    YAML(typ="safe").load(example.parsed)


def runs_text(example: Example) -> None:
    """Prose and output: nothing to run."""


def runs_shell(example: Example) -> None:
    """Every command names something that is there. A prompt is dropped; lines without one after it are output.

    The command `cycles` after a prompt is run, and must print what the block shows.
    """
    lines = re.sub(r"\\\n", " ", example.parsed).splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    for line in prompted or lines:
        words = shlex.split(line, comments=True)
        if words:
            check_command(words)
    for command, shown in re.findall(r"^\$ (cycles .*)\n((?:(?!\$ ).*\n?)*)", example.parsed, re.M):
        words = shlex.split(command, comments=True)
        if not SERVING & set(words):
            check_output(command, words[1:], shown)


@contextlib.contextmanager
def logs_of_this_thread() -> Iterator[None]:
    """Let a command print no warning of a guard that an earlier test has dropped: a thread may still release it."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # what others left is no error here
        gc.collect()
    own = threading.get_ident()

    def is_own(record: logging.LogRecord) -> bool:
        return record.thread == own

    logger = logging.getLogger("cycles")
    logger.addFilter(is_own)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logger.removeFilter(is_own)


def check_output(command: str, arguments: list[str], shown: str) -> None:
    printed = io.StringIO()
    with logs_of_this_thread(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main(arguments)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(shown, printed.getvalue(), flags), (
        f"{command} prints\n{printed.getvalue()}"
    )


def check_cycles(words: list[str]) -> None:
    """Check that a command of `cycles` and its options exist."""
    command: click.Command = app
    names = itertools.takewhile(lambda word: word != "--", words)
    for word in names:
        if word.startswith("--"):
            known = {name for option in command.params for name in option.opts}
            assert word.partition("=")[0] in known | {"--help"}, f"{command.name} has no {word}"
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"there is no command {word} of {command.name}"
            command = found


def check_command(words: list[str]) -> None:
    while words and (setting := re.fullmatch(r"([A-Z_]+)=.*", words[0])):
        check_setting(setting[1])
        words = words[1:]
    if not words:
        return
    command, rest = words[0], words[1:]
    assert COMMANDS.fullmatch(command), (
        f"the documentation test knows no command {command!r}; teach it, or make this a text block"
    )
    if command == "cycles":
        check_cycles(rest)
    elif command == "make":
        for target in (word for word in rest if "=" not in word and not word.startswith("-")):
            assert target in make_targets(), f"there is no `make {target}`"
    elif command == "export":
        for word in rest:
            check_setting(word.partition("=")[0])
    elif "-m" in rest and "python" in command:
        check_module(rest[rest.index("-m") + 1], rest[rest.index("-m") + 2 :])
    elif "python" in command and rest and rest[0].endswith(".py") and "/" in rest[0]:
        assert (ROOT / rest[0]).exists(), f"there is no {rest[0]}"


def check_setting(name: str) -> None:
    if name.startswith("CYCLES_"):
        known = {VARIABLES.get(setting, setting.upper()) for setting in attrs.fields_dict(cycles.Config)}
        assert name.removeprefix("CYCLES_") in known, f"{name} is not a setting"


def check_module(name: str, options: list[str]) -> None:
    assert importlib.util.find_spec(name) is not None, f"there is no module {name}"
    used = {option.partition("=")[0] for option in options if option.startswith("--")}
    if used and name.startswith("cycles"):
        assert used <= options_of(name), f"python -m {name} has no {', '.join(used - options_of(name))}"


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def options_of(module: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(re.findall(r"--[a-z-]+", told.stdout))


OTHERS: dict[str, Evaluator] = {
    "bash": runs_shell,
    "json": runs_json,
    "toml": runs_toml,
    "yaml": runs_yaml,
    "text": runs_text,
}


def parsers(runner: asyncio.Runner) -> list[Parser]:
    return [PythonBlocks(runner), *(CodeBlockParser(language, run) for language, run in OTHERS.items())]


def run_all(document: Document, namespace: dict[str, Any]) -> int:
    document.namespace.update(namespace)
    examples = list(document.examples())
    for example in examples:
        try:
            example.evaluate()
        except Exception as problem:
            problem.add_note(f"in the block at {Path(example.path).relative_to(ROOT)}:{example.line}")
            raise
        finally:
            namespace.update(document.namespace)
    return len(examples)


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_page(
    page: Path, namespace: dict[str, Any], runner: asyncio.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    fences = FENCES(Document(page.read_text(), str(page)))
    if "import openai" in page.read_text():  # in an environment that is older than pyproject.toml it is missing
        pytest.importorskip("openai", reason="openai is missing: run make test to update the environment")
    if page.name == "more-providers.md":
        pytest.importorskip("boto3", reason="make test-providers runs the page of these clients")
    if page.parent.name == "integrations" and page.stem in FRAMEWORKS:
        pytest.importorskip(FRAMEWORKS[page.stem], reason="make test-integrations runs the pages of all frameworks")
    unknown = {fence.lexemes["info"].strip() or "(no language)" for fence in fences} - {"python", *OTHERS}
    assert not unknown, f"blocks in {', '.join(unknown)}; use python, {', '.join(OTHERS)}"
    run_all(Document.parse(str(page), *parsers(runner)), namespace)


@pytest.mark.parametrize("module", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in MODULES])
def test_docstrings(module: Path, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    sessions = DocTestStringParser(DocTestEvaluator(doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE))
    blocks = CodeBlockParser("python", PythonBlocks(runner).run)

    def parse(document: Document) -> Iterable[Region]:
        yield from (region for region in blocks(document) if ">>>" not in region.parsed)
        yield from sessions(document.text, document.path)

    document = PythonDocStringDocument.parse(str(module), parse)
    assert isinstance(document, PythonDocStringDocument)
    document.pop_evaluator(document.import_document)  # examples see what users see, not the module's insides
    assert run_all(document, namespace), "an example that no parser sees"


def test_the_test_sees_what_is_wrong(tmp_path: Path, runner: asyncio.Runner) -> None:
    wrong = {
        "python": "assert 1 == 2",
        "bash": "$ cycles --version\ncycles 0.0.0",
        "json": "{]",
        "toml": "x =",
        "yaml": "a: [",
    }
    for language, source in wrong.items():
        document = Document(f"```{language}\n{source}\n```\n", str(ROOT / "x.md"))
        for parser in parsers(runner):
            for region in parser(document):
                document.add(region)
        with pytest.raises(Exception, match=r".") as caught:
            run_all(document, {})
        assert "x.md:1" in caught.value.__notes__[0]
    for line in (
        "make nonsense",
        "export CYCLES_NONSENSE=1",
        "python -m cycles.nonsense",
        "frobnicate",
        "cycles nonsense",
        "cycles balances --nonsense",
    ):
        with pytest.raises(AssertionError):
            check_command(shlex.split(line))
