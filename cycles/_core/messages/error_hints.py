"""What a caller can do about an error response: the part of the error message that the server cannot know."""

from __future__ import annotations

from typing import Final

from cycles import _errors as errors
from cycles._core.messages.outcome import RejectedResponse

HINT_OF: Final[dict[type[errors.CyclesError], str]] = {
    errors.UnauthorizedError: "the server does not accept this key; check api_key / CYCLES_API_KEY",
    errors.ForbiddenError: "a key is valid for one tenant only; check tenant / CYCLES_TENANT and the key",
    errors.BudgetExceededError: "the remaining budget is smaller than that; client.balances() lists what is left, "
    "cycles fund SCOPE AMOUNT adds to it",
}
FUND_HINT: Final = "a larger budget lets it pass: cycles fund SCOPE AMOUNT; client.balances() lists what is left"
"""For a denial whose message has the amounts already."""
# The messages of a 401, by which the reference server says why it rejects a key (docs/protocol/server.md#api-keys).
_BY_KEY_MESSAGE: Final = {
    "TENANT_SUSPENDED": "the tenant of this key is suspended; the key is right, an operator can reactivate the tenant",
    "TENANT_CLOSED": "the tenant of this key is closed permanently; use a key of another tenant",
    "KEY_REVOKED": "this key was revoked; set api_key / CYCLES_API_KEY to a new one",
    "KEY_EXPIRED": "this key has expired; set api_key / CYCLES_API_KEY to a new one",
    "INTERNAL_ERROR": "the server cannot check keys, probably because its store is down; the key may be right, retry",
}
_NO_BODY: Final = (
    "the response is no error of the protocol: a proxy or the server's web framework rejected the request; "
    "check base_url and what is between"
)


def hint_for(kind: type[errors.ProtocolError], response: RejectedResponse, *, spending: bool) -> str | None:
    """Return what the caller can do, or None if the server's message suffices.

    Args:
        kind: The class of the error.
        response: The error response.
        spending: True if the operation needs a budget for its subject.
    """
    if response.code == "TENANT_SUSPENDED" or response.status == 401:
        by_message = _BY_KEY_MESSAGE.get(response.code or "") or _BY_KEY_MESSAGE.get(response.message)
        if by_message is not None:
            return by_message
    if response.status == 403 and response.code is None:
        return _NO_BODY
    if kind is errors.NotFoundError and spending:
        return "check the subject and base_url, or create a budget for the subject"
    if kind is errors.UnitMismatchError:
        units = (response.details or {}).get("expected_units")
        return f"pass an amount in {' or '.join(map(str, units))}" if isinstance(units, list) and units else None
    return HINT_OF.get(kind)
