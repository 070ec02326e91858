"""Error responses in the shape of each provider, so that the program's SDK raises its own error."""

from __future__ import annotations

import json
from typing import Final

from cycles._errors import CyclesError, ProtocolError
from cycles.providers._provider import provider_named

DENIED: Final = 402
"""The status of a denial: no SDK retries it."""
REASON_HEADER: Final = "x-cycles-reason"
"""The header with the reason of a denial."""

_FREE: Final = "or --free-host HOST if that host costs nothing"
_REMEDIES: Final = {
    "unknown_model": f"pass its price with --prices, or --unknown-model allow=AMOUNT, {_FREE}",
    "unmetered": f"pass --unmetered allow to send such requests without metering them, {_FREE}",
    "run_limit": "raise --budget of this run",
    "unit_mismatch": "pass --unit TOKENS or --unit USD, or a --budget in that unit",
    "approval_denied": "approve it at the prompt of --ask-at",
    "budget_frozen": "an operator can unfreeze it with cycles budget unfreeze SCOPE",
    "budget_closed": "a closed budget stays closed: use another --subject",
    "debt_outstanding": "an operator can pay the debt with cycles fund SCOPE AMOUNT",
    "overdraft_limit_exceeded": "an operator can pay the debt with cycles fund SCOPE AMOUNT",
}
_REMEDY: Final = "raise the budget"


def error_response(
    provider: str, status: int, message: str, reason: str | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of an error response.

    Args:
        provider: Whose shape it has.
        status: HTTP status.
        message: What happened and what to do.
        reason: The word for a denial, for `REASON_HEADER`.
    """
    status, headers, body = json_response(status, _body(provider, status, message, reason))
    if status == 426:
        headers += [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade")]
    if reason is not None:
        headers += [(b"x-should-retry", b"false"), (REASON_HEADER.encode(), reason.encode())]
    return status, headers, body


def json_response(status: int, document: object) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body of a response of the proxy itself."""
    body = json.dumps(document).encode()
    return status, [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())], body


def _body(provider: str, status: int, message: str, reason: str | None) -> object:
    body = provider_named(provider).error(status, message)
    error = body.get("error")
    if isinstance(error, dict) and "code" in error and error["code"] is None:
        error["code"] = reason
    return body


def reason_of(error: CyclesError) -> str:
    """Return the reason of a denial in lower case, for example ``budget_exceeded``."""
    code = None
    if isinstance(error, ProtocolError):
        code = error.reason_code or error.code
    return (code or "denied").lower()


def denial_text(message: str, reason: str, remedy: str | None = None) -> str:
    """Return the message of a denial, with what would let the call pass; None is what the reason alone says."""
    return f"Cycles denied this call: {message}; {remedy or _REMEDIES.get(reason, _REMEDY)}"


def no_decision_line(error: str) -> str:
    """Return what to print about a run of which the budget server decides no call."""
    return f"no call could be sent, because the budget server decided none: {error}; cycles doctor finds the cause"
