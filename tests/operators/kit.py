"""Runs `cycles` in this process or as a process, against an embedded server over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.support import warm

ROOT = Path(__file__).parents[2]

AS_PROCESSES = bool(os.environ.get("CYCLES_OPERATORS"))
processes = pytest.mark.skipif(not AS_PROCESSES, reason="starts many processes: make test-operators runs it")


@attrs.frozen
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that it printed."""
        [line] = self.out.splitlines()
        return json.loads(line)


def environment(**more: str) -> dict[str, str]:
    """Return the variables of this process without those that change how Python and colours behave."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, **more}


def run_process(
    *arguments: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 300.0,
    module: str = "cycles",
) -> Ran:
    """Run ``python -m cycles``, or another module, as a process."""
    own = environment() if env is None else env
    ran = warm.run(module, *arguments, environment=own, stdin=stdin, warnings=["error"], timeout=timeout)
    return Ran(ran.returncode, ran.stdout, ran.stderr)
