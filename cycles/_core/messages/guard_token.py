"""The token of a detached guard: a string without secrets, safe to put into a job or a message.

It is a version, a colon, and URL-safe base64 of compact JSON: what was reserved and for what, and the server's
response. The token alone grants nothing: `attach` needs a key that owns the reservation.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from cycles._errors import InvalidRequestError

_PREFIX: Final = "cycles-guard-1:"


def token_of(members: Mapping[str, Any]) -> str:
    """Return the token that carries these members."""
    # Members in place of a pickle: a token comes from outside, and reading it must run no code.
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    return _PREFIX + base64.urlsafe_b64encode(text.encode()).decode("ascii")


def members_of(token: str) -> dict[str, Any]:
    """Return the members that a token carries.

    Raises:
        InvalidRequestError: the string is not a token of this SDK, or is one of a newer version.
    """
    # The version is in the prefix, so a token of another version is named as such and not as damaged.
    if not isinstance(token, str) or not token.startswith(_PREFIX):
        raise InvalidRequestError(
            f"not a token of guard.detach(), or of a newer version of this SDK: {token!r:.60}; "
            f"pass a string that begins with {_PREFIX}"
        )
    try:
        members = json.loads(base64.b64decode(token[len(_PREFIX) :], altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as problem:
        raise InvalidRequestError(f"the token is damaged: {problem}; pass the returned string unchanged") from None
    if not isinstance(members, dict):
        raise InvalidRequestError("the token is damaged: not an object; pass the returned string unchanged")
    return members
