"""A reserve request whose idempotency key replays a reservation that has ended: say how the first run ended."""

from __future__ import annotations

from datetime import UTC, datetime

from cycles._core.messages.outcome import RejectedResponse, Success
from cycles._core.messages.requests import Call, CallOptions
from cycles._core.results import ReservationDetail
from cycles._core.settlement.record import Record
from cycles._errors import ReservationNotActiveError
from cycles._flows.io import Io

_ADVICE = "so the block does not run again; use a new key for new work"


async def replay_error(io: Io, key: str, reservation_id: str, options: CallOptions) -> ReservationNotActiveError:
    """Read the reservation, and return the error for a replay: it contains status, amount and time of the first run.

    One attempt is made. Without a usable response, the error only says that the reservation has ended.
    """
    outcome = await io.send(Call("getReservation", {"reservation_id": reservation_id}, options=options))
    start = f"idempotency_key {key!r:.80} was used before: reservation {reservation_id}"
    if isinstance(outcome, RejectedResponse) and outcome.expired:
        return ReservationNotActiveError(
            f"{start} expired without a commit, {_ADVICE}", reservation_id=reservation_id, status="EXPIRED"
        )
    if not isinstance(outcome, Success):
        return ReservationNotActiveError(f"{start} has ended, {_ADVICE}", reservation_id=reservation_id)
    first = ReservationDetail.read(outcome.body)
    amount = f" {first.committed}" if first.committed is not None else ""
    return ReservationNotActiveError(
        f"{start} {first.status.lower()}{amount}{_time(first.finalized_at_ms)}, {_ADVICE}",
        reservation_id=reservation_id,
        status=first.status,
        committed=first.committed,
        finalized_at_ms=first.finalized_at_ms,
    )


def pending_error(key: str, record: Record) -> ReservationNotActiveError:
    """Return the error for a replay whose first run has ended, but whose settlement is pending in this process."""
    return ReservationNotActiveError(
        f"idempotency_key {key!r:.80} was used before: reservation {record.reservation_id} has a pending commit of "
        f"{record.actual}, {_ADVICE}",
        reservation_id=record.reservation_id,
    )


def _time(at_ms: int | None) -> str:
    try:
        return "" if at_ms is None else f" at {datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):  # a time that no calendar has
        return ""
