"""Import the integration of a library with stand-ins in the place of the library's modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

import cycles.integrations


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
