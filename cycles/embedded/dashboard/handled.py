"""A handled request as the dashboard needs it. Nothing is parsed before a page wants to see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from attrs import define

from cycles.embedded import scopes
from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response
from cycles.embedded.records import Body, Budget

# The operations whose responses are decisions of the ledger.
DECIDING: Final = ("reserve", "decide", "event")
_DECIDED: Final = (200, 201, 404, 409)


@define(kw_only=True, eq=False, slots=False)  # for cached properties
class Handled:
    """One request with its response (None if a fault kept it from the ledger) and the fault, if there is one.

    Attributes:
        number: Place in the order of the responses.
        at_ms: Time of the server's clock.
        took_ms: Duration in the server, in milliseconds.
        is_replay: Whether the response was stored under the request's idempotency key before.
        budgets: The budgets that a denied request needed, at the time of the denial.
    """

    number: int
    at_ms: int
    operation: str | None
    request: Request
    response: Response | None
    fault: Fault | None
    took_ms: float
    is_replay: bool
    budgets: Sequence[Budget] = ()

    @property
    def is_decision(self) -> bool:
        """Return whether the response is a new decision: ALLOW, ALLOW_WITH_CAPS or DENY."""
        if self.operation not in DECIDING or self.is_replay or self.response is None:
            return False
        return self.response.status in _DECIDED and b'"IDEMPOTENCY_MISMATCH"' not in self.response.body

    @property
    def is_denial(self) -> bool:
        """Return whether the response is a decision that denies."""
        if not self.is_decision or self.response is None:
            return False
        return self.response.status >= 400 or b'"decision":"DENY"' in self.response.body

    @property
    def form(self) -> Body:
        """Return the body of the request, empty if it is no JSON object."""
        return json_object(self.request.body)

    @property
    def result(self) -> Body:
        """Return the body of the response, empty if it is no JSON object."""
        return json_object(b"" if self.response is None else self.response.body)

    @property
    def reason(self) -> str:
        """Return why a request was denied: the reason code or the error code."""
        result = self.result
        return str(result.get("reason_code", result.get("error")))

    @property
    def wanted(self) -> tuple[str, int] | None:
        """Return unit and amount that the request names, or None."""
        form = self.form
        named = form.get("estimate", form.get("actual"))
        if not isinstance(named, dict) or not isinstance(named.get("amount"), int):
            return None
        return str(named.get("unit")), named["amount"]

    @cached_property
    def scopes(self) -> tuple[str, ...]:
        """Return the scopes of the request, shallowest first: of its subject, or of the budgets in its response."""
        subject = self.form.get("subject")
        if isinstance(subject, dict):
            return scopes.derive({level: value for level, value in subject.items() if isinstance(value, str)})
        balances = self.result.get("balances")
        if not isinstance(balances, list):
            return ()
        return tuple(row["scope_path"] for row in balances if isinstance(row, dict) and "scope_path" in row)


def json_object(body: bytes) -> dict[str, Any]:
    """Return a body as a JSON object, empty if it is none."""
    try:
        value = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
