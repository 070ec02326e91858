"""The lists of endpoints of the pages are those of the code."""

from __future__ import annotations

import gc
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.providers import ReserveOptions, guard
from tests.providers.conftest import Desk
from tests.providers.tables import DOCS, PAGES, free, metered, with_tables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_lists_are_those_of_the_files(page: Path) -> None:
    text, names = page.read_text("utf-8"), PAGES[page]
    assert metered(names) in text
    assert free(names) in text
    assert with_tables(text, names) == text, "run python -m tests.providers.tables"


def test_the_options_of_reserve_are_those_of_guard() -> None:
    own = set(inspect.signature(guard).parameters) | {"self", "unknown"}
    reserve = set(inspect.signature(cycles.Cycles.reserve).parameters) - own
    assert reserve <= set(ReserveOptions.__annotations__), "a new option of reserve is missing in ReserveOptions"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the page closes no client, and drops some of them on the way
def test_the_blocks_of_more_providers_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("boto3", "groq", "genai_prices"):
        pytest.importorskip(package)
    monkeypatch.setattr(cycles, "get_default_client", lambda: desk.client)
    settings = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    settings |= {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": desk.provider.url_of("bedrock")}
    settings |= {"GROQ_BASE_URL": desk.provider.url_of("groq"), "GROQ_API_KEY": "k", "CO_API_KEY": "k"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    mistral = pytest.importorskip("mistralai.client")
    if not hasattr(mistral, "Mistral"):
        pytest.skip("the page has the module of version 2 of mistralai")
    sends_to(monkeypatch, mistral.Mistral, server_url=desk.provider.url_of("mistral"))
    sends_to(monkeypatch, pytest.importorskip("cohere").ClientV2, base_url=desk.provider.url_of("cohere"))
    page = (DOCS / "more-providers.md").read_text("utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert len(desk.commits) == desk.provider.count() == len(re.findall(r"^answer = ", page, re.MULTILINE))
    assert desk.commits
    names.clear()
    gc.collect()


def sends_to(monkeypatch: pytest.MonkeyPatch, cls: Any, **address: str) -> None:
    """Let the clients that a page makes send to this address."""
    original = cls.__init__
    monkeypatch.setattr(cls, "__init__", lambda self, **options: original(self, **options, **address))
