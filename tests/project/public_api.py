"""The public names of `cycles` with their signatures, as text: `make api` writes it, a test compares it."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

import cycles

SNAPSHOT: Final = Path(__file__).with_name("public_api.txt")


def public_api() -> str:
    """Return one line for each public name and for each public member of a class, sorted."""
    lines = [line for name in cycles.__all__ for line in _described(name, getattr(cycles, name))]
    for module in ("events", "usage"):
        public = getattr(getattr(cycles, module), "__all__", None) or _defined(getattr(cycles, module))
        lines += [
            line for name in public for line in _described(f"{module}.{name}", getattr(getattr(cycles, module), name))
        ]
    return "\n".join(sorted(set(lines))) + "\n"


def _defined(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if not name.startswith("_") and _is_home(value, module)]


def _is_home(value: Any, module: Any) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ in ("cycles", module.__name__)


def _described(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})"
        if issubclass(value, enum.Enum):
            yield from (f"{name}.{member.name} = {member.value!r}" for member in value)
        elif attrs.has(value):
            yield from (f"{name}.{field.name}" for field in attrs.fields(value) if not field.name.startswith("_"))
        if "__init__" in vars(value):
            yield f"{name}{_signature(value)}"
        yield from _members(name, value)
    elif callable(value):
        yield f"{name}{_signature(value)}"
    elif inspect.ismodule(value):
        yield f"module {name}"
    else:
        yield f"{name}: {type(value).__name__}"


def _members(name: str, value: type[Any]) -> Iterator[str]:
    for member in dir(value):
        found = inspect.getattr_static(value, member)
        if member.startswith("_") or hasattr(BaseException, member):
            continue
        if isinstance(found, property):
            yield f"{name}.{member}: property"
        elif inspect.isfunction(found) or isinstance(found, classmethod | staticmethod):
            yield f"{name}.{member}{_signature(getattr(value, member))}"


def _signature(value: Any) -> str:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
    except ValueError:  # a class that is written in C
        return "(...)"


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api(), encoding="utf-8")
    print(f"{SNAPSHOT.name}: {len(SNAPSHOT.read_text(encoding='utf-8').splitlines())} lines")
