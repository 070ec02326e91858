"""Reservations that the server only observed, so that nothing is held.

See `docs/protocol/decisions-and-caps.md#observe-mode`.
"""

from __future__ import annotations

from cycles._core.messages.errors import observed_error
from cycles._core.messages.outcome import Outcome, Success
from cycles._core.messages.requests import CallOptions
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.protocol import ALLOWING, DENY
from cycles._core.results import ReservationCreateResponse
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io


def is_observed(outcome: Outcome) -> bool:
    """Return whether the response to a live create has the form of observe mode: a decision, and nothing held.

    The response has no mark of the mode. A response with an id or an expiry, but not both, is ambiguous.
    """
    if not isinstance(outcome, Success):
        return False
    body = outcome.body
    if body.get("reservation_id") is not None:
        return False
    is_known = body["decision"] in ALLOWING or body["decision"] == DENY
    return is_known and body.get("expires_at_ms") is None and bool(body.get("affected_scopes"))


def open_observed(io: Io, request: ReserveRequest, key: str, options: CallOptions, success: Success) -> GuardState:
    """Return the guard of an observed reservation. Its block runs with any decision.

    Raises:
        ObservedReservationError: under ``on_observed="raise"``, unless the caller has requested observe mode.
    """
    if request.observe or request.on_observed == "run":
        return GuardState(request, key, options, io.clock.now_ms(), success, observed=True)
    created = ReservationCreateResponse.read(
        success.body, **{**success.ids, "trace_id": success.trace_id or options.trace_id}
    )
    raise observed_error(created)
