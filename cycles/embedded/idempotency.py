"""Idempotency: which keys are remembered, for how long, and what a repeated one is answered (rules of idempotency).

Only successes are remembered. The same key with another payload is a mismatch; the same again is the same answer, but
for `remaining_ttl_ms`, which is told as of now.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from cycles.embedded.errors import ApiError
from cycles.embedded.records import DAY_MS, RETENTION_MS, Body, Reservation, StoredResponse
from cycles.embedded.tables import Tables

# Decide and dry runs a day, events a week, commits and releases as long as the reservation they ended.
LIFETIMES_MS: Final = {
    "decide": DAY_MS,
    "reserve": DAY_MS,
    "event": 7 * DAY_MS,
    "commit": RETENTION_MS,
    "release": RETENTION_MS,
}


class IdempotencyStore:
    """Looks keys up and makes the records that remember them; the caller applies those with the rest of its change."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def replay(self, operation: str, owner: str, request: Body, now_ms: int) -> Body | None:
        """The answer this key had before, or None if it is new.

        Raises:
            ApiError: IDEMPOTENCY_MISMATCH if the key came with another payload.
        """
        known = self._tables.responses.get((operation, owner, request["idempotency_key"]))
        if known is None:
            return None
        if known.digest != digest(request):
            raise ApiError("IDEMPOTENCY_MISMATCH", "the idempotency key was used with another payload")
        if known.reservation_id is None:
            return known.response
        return known.response | {"remaining_ttl_ms": self._remaining_ttl_ms(known, now_ms)}

    def entry(
        self,
        operation: str,
        owner: str,
        request: Body,
        response: Body,
        now_ms: int,
        *,
        reservation: Reservation | None = None,
    ) -> StoredResponse:
        """The record that answers this key from now on; `reservation` is the lease whose expiry the answer tells."""
        if operation == "extend" and reservation is not None:
            until_ms = reservation.expires_at_ms
        else:
            until_ms = now_ms + LIFETIMES_MS[operation]
            if reservation is not None:
                until_ms = max(until_ms, reservation.lapses_ms)
        return StoredResponse(
            operation=operation,
            owner=owner,
            idempotency_key=request["idempotency_key"],
            digest=digest(request),
            response=response,
            until_ms=until_ms,
            reservation_id=None if reservation is None else reservation.reservation_id,
        )

    def _remaining_ttl_ms(self, known: StoredResponse, now_ms: int) -> int:
        row = self._tables.reservations.get((known.reservation_id or "",))
        if row is None or row.status != "ACTIVE":
            return 0
        expires_at_ms: int = known.response["expires_at_ms"]
        return max(0, expires_at_ms - now_ms)


def digest(request: Body) -> str:
    """What two requests have in common when they are the same.

    Validation has put the fixed fields in order, dropped nulls and filled `dry_run` and `grace_period_ms`, so a dry run
    and a live reservation never look the same; inside free maps the order counts, as on the reference server.
    """
    return hashlib.sha256(json.dumps(request, separators=(",", ":")).encode()).hexdigest()
