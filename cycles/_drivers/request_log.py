"""`CYCLES_LOG`: one readable line per request on stderr, for scripts. No line has a key, a query or a body."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

from cycles._core.messages.outcome import Outcome
from cycles._errors import ConfigurationError

RequestLog: TypeAlias = Callable[[str, str, float, Outcome], None]

_LEVELS: Final = ("info", "debug")


def request_log() -> RequestLog | None:
    """Return what writes the line of one request, or None if `CYCLES_LOG` is not set.

    Raises:
        ConfigurationError: `CYCLES_LOG` is another word than ``info`` or ``debug``.
    """
    level = os.environ.get("CYCLES_LOG", "").strip().lower()
    if not level:
        return None
    if level not in _LEVELS:
        raise ConfigurationError(f"CYCLES_LOG must be info or debug, got {level!r:.60}: correct it or unset it")
    is_debug = level == "debug"

    def write(method: str, target: str, seconds: float, outcome: Outcome) -> None:
        status = getattr(outcome, "status", None) or "no response"
        request_id = getattr(outcome, "request_id", None) or "-"
        message = (
            f"cycles: {method} {target.partition('?')[0]} {status} {seconds * 1000:.0f} ms request {request_id:.128}"
        )
        if is_debug:
            message += f" {type(outcome).__name__}{_detail(outcome)}"
        print(message, file=sys.stderr)

    return write


def _detail(outcome: Outcome) -> str:
    code = getattr(outcome, "code", None)
    if code:
        return f" {code:.80}"
    cause = getattr(outcome, "cause", None)
    return f" {type(cause).__name__}" if cause is not None else ""
