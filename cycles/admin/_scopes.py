"""Check scopes, take the tenant of a scope, and make funding keys. The rules are those of `docs/admin.md`."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from cycles._core.messages.requests import check_key
from cycles._core.subjects import LEVELS
from cycles._errors import InvalidRequestError

_ID: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_LONGEST_KEY: Final = 256


def checked_scope(scope: object) -> str:
    """Return a scope as the server stores it: checked, and in lower case.

    Raises:
        InvalidRequestError: naming the segment that is wrong.
    """
    if not isinstance(scope, str):
        raise InvalidRequestError(f"scope must be a string such as 'tenant:acme/agent:bot': got {scope!r:.80}")
    ranks: list[int] = []
    for segment in scope.split("/"):
        level, _, value = segment.partition(":")
        if level not in LEVELS or not _ID.fullmatch(value):
            raise InvalidRequestError(
                f"scope {scope!r:.120}: {segment!r:.80} is not level:id; write it like 'tenant:acme/agent:bot' with "
                f"levels {', '.join(LEVELS)} and ids of letters, digits, '.', '_' and '-'"
            )
        ranks.append(LEVELS.index(level))
    if ranks != sorted(set(ranks)):
        raise InvalidRequestError(f"scope {scope!r:.120}: levels repeat or are out of order; use {', '.join(LEVELS)}")
    if ranks[0] != 0:
        raise InvalidRequestError(f"scope {scope!r:.120} has no tenant; begin it with tenant:")
    return scope.lower()


def tenant_of(scope: str) -> str:
    """Return the tenant of a checked scope: the id of its first segment."""
    return scope.partition("/")[0].partition(":")[2]


def funding_key(label: str, operation: str, scope: str, unit: str) -> str:
    """Return an idempotency key for funding. It names operation, scope and unit, which the server does not compare.

    Args:
        label: The period, or the caller's key. It makes two intended changes of one budget different.
    """
    key = f"{check_key(label)}:{operation}:{scope}:{unit}"
    return key if len(key) <= _LONGEST_KEY else "sha256:" + hashlib.sha256(key.encode()).hexdigest()
