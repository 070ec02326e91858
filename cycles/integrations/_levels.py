"""Check the levels of a subject: their names when a middleware is made, their values for each request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cycles import InvalidRequestError, Subject

LEVELS: Final = ("tenant", "workspace", "app", "workflow", "agent", "toolset")
_VALUE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_DIMENSION: Final = re.compile(r"dimensions\.[A-Za-z0-9_.-]{1,128}")


class InvalidSubject(Exception):
    """The subject of a request is missing or cannot be used."""


def checked_levels(name: str, given: Any) -> dict[str, str]:
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequestError(f"{name} must map names to levels of the subject, got {given!r:.80}")
    return {str(key): checked_level(name, level) for key, level in (given or {}).items()}


def checked_level(name: str, level: Any) -> str:
    if isinstance(level, str) and (level in LEVELS or _DIMENSION.fullmatch(level)):
        return level
    raise InvalidRequestError(f"{name}: {level!r:.80} is not a level; use {', '.join(LEVELS)} or dimensions.<key>")


def checked_callable(name: str, given: Any) -> Any:
    if given is None or callable(given):
        return given
    raise InvalidRequestError(f"{name} must be a callable or None, got {given!r:.80}")


def members_of(given: Any) -> dict[str, str]:
    try:
        given = given.to_dict() if isinstance(given, Subject) else dict(given or {})
        dimensions = given.pop("dimensions", None) or {}
        given |= {f"dimensions.{key}": value for key, value in dimensions.items()}
        return {checked_level("subject", at): checked_value(value) for at, value in given.items() if value is not None}
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidSubject from error


def checked_value(value: Any) -> str:
    if isinstance(value, str) and _VALUE.fullmatch(value):
        return value
    raise InvalidSubject


def to_subject(found: Mapping[str, str]) -> Subject:
    """Return the subject with these levels; a name that is no level is ``dimensions.<key>``."""
    levels = {name: value for name, value in found.items() if name in LEVELS}
    dimensions = {name.partition(".")[2]: value for name, value in found.items() if name not in LEVELS}
    return Subject(**levels, dimensions=dimensions)
