"""Store successful responses by idempotency key and return them for repeated requests.

Only successes are stored. The same key with another payload is a mismatch. The same key and payload return the stored
response, except for `remaining_ttl_ms`, which is computed again. See `docs/protocol/server.md#idempotency`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from cycles.embedded.errors import ApiError
from cycles.embedded.records import DAY_MS, RETENTION_MS, Body, Reservation, StoredResponse
from cycles.embedded.tables import Tables

# A day for decide and dry runs, a week for events. Commits and releases live as long as the ended reservation.
LIFETIMES_MS: Final = {
    "decide": DAY_MS,
    "reserve": DAY_MS,
    "event": 7 * DAY_MS,
    "commit": RETENTION_MS,
    "release": RETENTION_MS,
}


class IdempotencyStore:
    """Finds stored responses and makes new ones. The caller saves a new one together with the rest of its change."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def replay(self, operation: str, owner: str, request: Body, now_ms: int) -> Body | None:
        """Return the stored response of this key, or None if the key is new.

        Raises:
            ApiError: IDEMPOTENCY_MISMATCH if the key was used with another payload.
        """
        known = self._tables.responses.get((operation, owner, request["idempotency_key"]))
        if known is None:
            return None
        if known.digest != digest(request):
            raise ApiError("IDEMPOTENCY_MISMATCH", "the idempotency key was used with another payload; send a new key")
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
        observed: bool = False,
    ) -> StoredResponse:
        """Return the record for this key. `reservation` is the lease whose expiry is in the response."""
        if operation == "extend" and reservation is not None:
            until_ms = reservation.expires_at_ms
        else:
            until_ms = now_ms + LIFETIMES_MS[operation]
            if reservation is not None:
                until_ms = max(until_ms, reservation.grace_ends_ms)
        return StoredResponse(
            operation=operation,
            owner=owner,
            idempotency_key=request["idempotency_key"],
            digest=digest(request),
            response=response,
            until_ms=until_ms,
            reservation_id=None if reservation is None else reservation.reservation_id,
            observed=observed,
        )

    def _remaining_ttl_ms(self, known: StoredResponse, now_ms: int) -> int:
        row = self._tables.reservations.get((known.reservation_id or "",))
        if row is None or row.status != "ACTIVE":
            return 0
        expires_at_ms: int = known.response["expires_at_ms"]
        return max(0, expires_at_ms - now_ms)


def digest(request: Body) -> str:
    """Return a hash that two requests share if they have the same payload.

    Validation has put the fixed fields in order, dropped nulls and filled `dry_run` and `grace_period_ms`, so a dry run
    and a live reservation always differ. Inside free maps the order counts, as on the reference server.
    """
    return hashlib.sha256(json.dumps(request, separators=(",", ":")).encode()).hexdigest()
