"""Options that several commands take, and how their values are read. A wrong value says what to type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

import cycles

F = TypeVar("F", bound=Callable[..., Any])

LEVELS: Final = ("tenant", "workspace", "app", "workflow", "agent", "toolset")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Seconds(click.FloatRange):
    """A number of seconds; unlike click's type it does not accept ``nan``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a valid float range", param, ctx)
        return found


def amount(text: str) -> cycles.Amount:
    """Return an amount, as `Amount.parse` reads it."""
    try:
        return cycles.Amount.parse(text)
    except cycles.InvalidRequestError as wrong:
        raise click.BadParameter(f"{wrong}; for example 5USD or 50000TOKENS") from None


def action(text: str) -> tuple[str, str]:
    """Return kind and name of an action, like ``llm.completion/gpt-4o``."""
    kind, _, name = text.partition("/")
    if not kind or not name:
        raise click.BadParameter(f"{text!r:.80} is not KIND/NAME; write it like llm.completion/gpt-4o")
    return kind, name


def moment(text: str) -> datetime:
    """Return the time of an age like ``2h`` or ``7d``, or of an ISO time. One without an offset is local."""
    age = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if age is not None:
        return datetime.now(UTC) - timedelta(seconds=int(age[1]) * _UNITS_S[age[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r:.80} is not a time; write an age like 2h or 7d, or 2026-01-31T12:00:00Z"
        ) from None
    return found if found.tzinfo is not None else found.astimezone()


def _as_subject(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any] | None:
    subject: dict[str, Any] = {}
    for text in values:
        level, equals, value = text.partition("=")
        if not equals or not value:
            raise click.BadParameter(f"{text!r:.80} is not KEY=VALUE; write it like agent=planner", ctx, param)
        if level.startswith("dimensions."):
            subject.setdefault("dimensions", {})[level.removeprefix("dimensions.")] = value
        elif level in LEVELS:
            subject[level] = value
        else:
            raise click.BadParameter(
                f"{level!r:.80} is not a level of a subject; use {', '.join(LEVELS)} or dimensions.NAME", ctx, param
            )
    return subject or None


def subject_option(function: F) -> F:
    """Add ``--subject KEY=VALUE``, which may be repeated; the function gets a mapping or None."""
    return click.option(
        "--subject",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_as_subject,
        help="A level of the subject, like agent=planner; may be repeated.",
    )(function)


def action_option(function: F) -> F:
    """Add ``--action KIND/NAME``, which is required."""
    return click.option(
        "--action",
        metavar="KIND/NAME",
        type=action,
        required=True,
        help="The action, like llm.completion/gpt-4o.",
    )(function)
