"""`Secret`: bytes that contain the API key. Their repr hides them, because error trackers show variables.

`pattern_of` finds secrets in the text of others, for example of a server that repeats the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

SHORTEST_INSIDE_WORDS: Final = 8
"""A shorter secret is found as a whole word only: a key of one letter would be found in most words."""


def pattern_of(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds each of the secrets; None if there are none."""
    longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)  # one may begin another
    return re.compile("|".join(map(_one, longest_first))) if longest_first else None


def _one(secret: str) -> str:
    found = re.escape(secret)
    return found if len(secret) >= SHORTEST_INSIDE_WORDS else rf"(?<!\w){found}(?!\w)"


class Secret(bytes):
    """Bytes whose repr shows only their length."""

    def __repr__(self) -> str:
        return f"<{len(self)} secret bytes>"
