"""Import the integration of a library with stand-ins in the place of the library's modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import openai
import pytest

import cycles.integrations
from cycles.testing import FakeProvider

PAID = 30 * 100 + 2 * 1_000
"""Microcents of one request of `real_client`, at 1 and 10 dollars for a million tokens."""


def module(name: str, **members: Any) -> ModuleType:
    """Return a module with these members."""
    made = ModuleType(name)
    made.__dict__.update(members)
    return made


def imported_with(name: str, *modules: ModuleType, parts: Sequence[str] = ()) -> Iterator[Any]:
    """Yield the integration of this name; it and its `parts` are imported again without the stand-ins."""
    names = [f"cycles.integrations.{each}" for each in (name, *parts)]
    with pytest.MonkeyPatch.context() as patch:
        for each in names:
            patch.delitem(sys.modules, each, raising=False)
        for stand_in in modules:
            patch.setitem(sys.modules, stand_in.__name__, stand_in)
        try:
            yield importlib.import_module(names[0])
        finally:
            for each in names:
                sys.modules.pop(each, None)
                vars(cycles.integrations).pop(each.rpartition(".")[2], None)


def noted(seen: list[Any], answer: Any) -> Callable[[Any], Any]:
    """A callable which keeps in `seen` what it was asked about and gives `answer`."""

    def callback(asked: Any) -> Any:
        seen.append(asked)
        return answer

    return callback


@contextmanager
def real_client() -> Iterator[openai.OpenAI]:
    """Make a client of an SDK, whose provider reports other counts than a stand-in of a framework."""
    with FakeProvider() as provider, openai.OpenAI(api_key="k", base_url=provider.openai_url) as llm:
        provider.reply(model="m", usage={"tokens_input": 30, "tokens_output": 2}, times=9)
        yield llm


def ask(llm: openai.OpenAI) -> None:
    """Send one request, as a model of a framework does with the client that it holds."""
    llm.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def named(base: type, package: str, name: str) -> Any:
    """Return a subclass with the name of a class of a framework, whose client is known."""
    return type(base)(name, (base,), {"__module__": f"{package}.models"})
