"""The command `cycles`: one file per command. It uses the SDK as users do, with `import cycles`.

Files that start with an underscore are shared: the table of commands (`_app`), what each command gets (`_frame`), where
its settings come from (`_settings`) and how it prints (`_output`). See `docs/command-line.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cycles._version import INSTALL_COMMAND

_NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        from cycles.cli._app import run
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _NEEDED:
            raise
        message = f"{missing.name} is not installed: run {INSTALL_COMMAND}"
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            print(json.dumps({"error": "WRONG_USAGE", "message": message}))
        else:
            print(f"error: {message}", file=sys.stderr)
        return 2
    return run(arguments)
