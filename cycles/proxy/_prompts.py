"""The soft limits of a run: lines on stderr, and questions on the terminal."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Final

import cycles
from cycles._core.amounts import Amount
from cycles._errors import InvalidRequestError
from cycles.events import BudgetThreshold
from cycles.proxy._asking import Question

TERMINAL: Final = "/dev/tty"


def has_terminal() -> bool:
    """Return whether this process is in the group that its terminal signals."""
    try:
        terminal = os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def warn_at(clients: Iterable[cycles.Cycles], fractions: Iterable[float], say: Callable[[str], None]) -> None:
    """Say once for each budget and fraction when that much of the budget is used."""
    said: set[tuple[str, str, float]] = set()

    def warn(event: BudgetThreshold) -> None:
        key = (event.scope, event.unit, event.threshold)
        if key not in said:
            said.add(key)
            say(f"{event.fraction:.0%} of {event.scope} is used, {event.remaining} of {event.allocated} is left")

    for client in clients:
        client.on_threshold(tuple(fractions), warn)
    # The client logs the same event, each time.
    logging.getLogger("cycles").addFilter(lambda record: getattr(record, "cycles_event", "") != "BudgetThreshold")


class Prompt:
    """Prompts on the terminal, one reservation at a time. The terminal belongs to the command otherwise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, question: Question) -> bool | Amount:
        """Return the reply: no, yes for this call, or an amount up to which calls pass without a question."""
        with self._lock, open(TERMINAL, "r+b", buffering=0) as terminal:  # noqa: PTH123 - it is no file
            while True:
                terminal.write(_text_of(question).encode())
                reply = _read_reply(_typed(terminal.fileno()))
                if reply is not None:
                    return reply


def _typed(descriptor: int) -> str | None:
    """Return one line, or None at the end of the input."""
    found = b""
    while not found.endswith(b"\n"):
        part = os.read(descriptor, 1024)
        if not part:
            return None
        found += part
    return found.decode("utf-8", "replace").strip()


def _text_of(question: Question) -> str:
    waiting = f"; {question.waiting} more wait, {question.total}" if question.waiting else ""
    model = "".join(character if character.isprintable() else "?" for character in question.model)
    example = "500 tokens" if question.estimate.unit == "TOKENS" else "2USD"
    return (
        f"cycles: {question.used}. {model:.120} may cost {question.estimate}{waiting}. "
        f"Spend it? [y/N/amount, like {example}] "
    )


def _read_reply(typed: str | None) -> bool | Amount | None:
    """Return what was typed; None if it means nothing. The end of the input is a no."""
    if typed is None or typed.lower() in ("", "n", "no"):
        return False
    if typed.lower() in ("y", "yes"):
        return True
    try:
        return Amount.parse(typed)
    except InvalidRequestError:
        return None
