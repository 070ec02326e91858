"""The token of a guard that goes on elsewhere: plain text, no secret, safe to put into a job or a message.

It is a version, a colon, and URL-safe base64 of compact JSON: what was reserved and for what, and what the server
answered. It grants nothing by itself: whoever attaches needs a key that owns the reservation.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from cycles._errors import InvalidRequestError

_PREFIX: Final = "cycles-guard-1:"


def token_of(facts: Mapping[str, Any]) -> str:
    """The token that carries these facts."""
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
    return _PREFIX + base64.urlsafe_b64encode(text.encode()).decode("ascii")


def facts_of(token: str) -> dict[str, Any]:
    """The facts a token carries.

    Raises:
        InvalidRequestError: for text that is no token of this SDK, or one of a newer kind.
    """
    if not isinstance(token, str) or not token.startswith(_PREFIX):
        raise InvalidRequestError("token: not a token of guard.detach(), or one of a newer version of this SDK")
    try:
        facts = json.loads(base64.b64decode(token[len(_PREFIX) :], altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as problem:
        raise InvalidRequestError(f"token: damaged on its way ({problem}); pass it on unchanged") from None
    if not isinstance(facts, dict):
        raise InvalidRequestError("token: damaged on its way; pass it on unchanged")
    return facts
