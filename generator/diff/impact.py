"""Find the handwritten modules that depend on a piece of the protocol: those that mention it by name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from generator.diff import Change

HANDWRITTEN: Final = Path(__file__).parent.parent.parent / "cycles"
# If more modules than this use a word (status, amount), a module has to mention its schema too.
COMMON: Final = 4


def touched(change: Change, sources: Path = HANDWRITTEN) -> list[str]:
    """Return the modules to check, such as `cycles/_core/results.py`. The most specific name decides."""
    if not change.names:
        return []
    own = modules_with(change.names[0], sources)
    if len(change.names) == 1 or 0 < len(own) <= COMMON:
        return own
    about = set(modules_with(change.names[-1], sources))
    return [module for module in own if module in about] or sorted(about) or own


@cache
def modules_with(name: str, sources: Path) -> list[str]:
    """Return the modules in which a name occurs as a word."""
    word = re.compile(rf"(?<![\w]){re.escape(name)}(?![\w])")
    files = sorted(path for path in sources.rglob("*.py") if word.search(path.read_text(encoding="utf-8")))
    return [path.relative_to(sources.parent).as_posix() for path in files]
