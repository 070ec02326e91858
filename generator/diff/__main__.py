"""`python -m generator.diff OLD NEW [--json]`: what changed between two versions of the protocol, and what it means.

Exit status 0: no breaking change. 1: at least one breaking change. 2: a document could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from generator import GenerationError, document, prepare
from generator.diff import Change
from generator.diff.impact import touched
from generator.diff.operations import changes
from generator.protocol import Tables


def main(arguments: list[str] | None = None) -> int:
    """Print the differences, and return the exit status that the module describes."""
    parser = argparse.ArgumentParser(prog="python -m generator.diff", description=__doc__)
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    given = parser.parse_args(arguments)
    try:
        old, new = document.read(given.old), document.read(given.new)
        found = changes(tables(old), tables(new))
    except GenerationError as error:
        print(f"spec-diff: {error}", file=sys.stderr)
        return 2
    versions = (old["info"]["version"], new["info"]["version"])
    print(as_json(found, versions) if given.json else as_text(found, versions))
    return 1 if any(change.breaking for change in found) else 0


def tables(published: document.Json) -> Tables:
    """Return the tables of a published document."""
    return Tables(prepare.normalized(published))


def as_json(found: list[Change], versions: tuple[str, str]) -> str:
    """Return one JSON object: `old`, `new`, `breaking`, and `changes` with the modules that each change touches."""
    entries: list[dict[str, Any]] = []
    for change in found:
        entry = asdict(change)
        del entry["names"]
        entries.append({**entry, "modules": touched(change)})
    breaking = any(change.breaking for change in found)
    summary = {"old": versions[0], "new": versions[1], "breaking": breaking, "changes": entries}
    return json.dumps(summary, indent=2, ensure_ascii=False)


def as_text(found: list[Change], versions: tuple[str, str]) -> str:
    """Return a report to read: breaking changes first, each with its reason and the modules it touches."""
    if not found:
        return f"{versions[0]} -> {versions[1]}: no difference in what is sent or read"
    breaking = [change for change in found if change.breaking]
    rest = [change for change in found if not change.breaking]
    lines = [f"{versions[0]} -> {versions[1]}: {len(found)} changes, {len(breaking)} of them breaking"]
    for title, part in (("Breaking", breaking), ("Not breaking", rest)):
        if part:
            lines += ["", f"{title}:", *(line for change in part for line in _lines(change))]
    return "\n".join(lines)


def _lines(change: Change) -> list[str]:
    detail = f" ({change.detail})" if change.detail else ""
    lines = [f"  {change.subject} {change.action}: {change.where}{detail}"]
    if change.reason:
        lines.append(f"      {change.reason}")
    if modules := touched(change):
        lines.append(f"      touches {', '.join(modules)}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
