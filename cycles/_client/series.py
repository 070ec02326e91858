"""Work that outlasts one lease: consecutive reservations, each committed before the next is made.

A server limits how often it extends a lease (10 times on the reference server). A series reserves one part after the
other and commits the spend of each, so that no part becomes old and at most one estimate is held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from cycles._client.guard import AsyncGuard, Guard
from cycles._client.options import AnyAction, SeriesOptions
from cycles._client.reservation import Reservation
from cycles._core.amounts import Amount
from cycles._core.messages.requests import DEFAULT_TTL_MS
from cycles._core.settlement.settlement import Settlement
from cycles._errors import InvalidRequestError
from cycles._version import public

G = TypeVar("G", Guard, AsyncGuard)

PART_TTLS: Final = 4  # age of a part in ttls: at most 10 extensions, also if each adds only half a ttl


class _Parts(Generic[G]):
    """The parts of a series, which are the same for sync and async code."""

    def __init__(self, reservation: Reservation, part_ms: int) -> None:
        self._reservation = reservation
        self._part_ms = part_ms
        self._settlements: list[Settlement] = []
        self._guard: G | None = None

    @property
    def guard(self) -> G | None:
        """The guard of the part in progress, or None between parts."""
        return self._guard

    @property
    def settlements(self) -> list[Settlement]:
        """The settlements of the parts that have ended, in order. A part without spend has none."""
        # That of a part that its caller has committed, too.
        current: Settlement | None = None if self._guard is None else self._guard.settlement
        return [*self._settlements, *([] if current is None else [current])]

    @property
    def spent(self) -> Amount | None:
        """The total that all parts have spent; None if nothing."""
        amounts = [each.actual for each in self.settlements]
        if self._guard is not None and self._guard.spent is not None and not self._guard._state.finalized:
            amounts.append(self._guard.spent)
        return sum(amounts[1:], amounts[0]) if amounts else None

    def _is_over(self, guard: G) -> bool:
        """Return whether the next piece of work needs a new part: this one ended, lost its lease or spent its share."""
        # By age too, and not only by spend: a server limits how often it extends one lease.
        age_ms = guard._runtime.blocking.clock.now_ms() - guard._state.opened_ms
        full = guard.spent is not None and guard.spent >= guard.estimate
        is_open = guard.state in ("active", "unreserved", "observed") and not guard._state.finalized
        return not is_open or full or age_ms >= self._part_ms

    def _ended(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None and guard.settlement is not None:
            self._settlements.append(guard.settlement)


class Series(_Parts[Guard]):
    """The series that `with client.lease_series(...)` returns."""

    def next(self) -> Guard:
        """Return the guard for the next piece of work: the same as before, or that of a new part.

        Raises:
            ReservationDeniedError: There is no budget for another part. The spend of the earlier parts is settled.
            LeaseLostError: The part that ended had lost its lease, under ``fail_on_finalize`` or ``cancel``.
        """
        if self._guard is not None and self._is_over(self._guard):
            self._end(None)
        if self._guard is None:
            self._guard = self._reservation.__enter__()
        return self._guard

    def _end(self, raised: BaseException | None) -> None:
        if self._guard is not None:
            # The settlement is kept also if the exit raises, for example because the lease was lost.
            try:
                self._reservation.__exit__(None, raised, None)
            finally:
                self._ended()


class AsyncSeries(_Parts[AsyncGuard]):
    """The series that `async with client.lease_series(...)` returns."""

    async def next(self) -> AsyncGuard:
        """As `Series.next`."""
        if self._guard is not None and self._is_over(self._guard):
            await self._end(None)
        if self._guard is None:
            self._guard = await self._reservation.__aenter__()
        return self._guard

    async def _end(self, raised: BaseException | None) -> None:
        if self._guard is not None:
            try:
                await self._reservation.__aexit__(None, raised, None)
            finally:
                self._ended()


class LeaseSeries:
    """Describes a series. Nothing is sent until its first `next()`. ``with`` and ``async with`` begin it."""

    def __init__(self, reservation: Reservation, part_ms: int) -> None:
        self._reservation = reservation
        self._part_ms = part_ms
        self._begun: Series | AsyncSeries | None = None

    def __enter__(self) -> Series:
        self._begun = series = Series(self._reservation, self._part_ms)
        return series

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        assert isinstance(self._begun, Series)
        self._begun._end(raised)

    async def __aenter__(self) -> AsyncSeries:
        self._begun = series = AsyncSeries(self._reservation, self._part_ms)
        return series

    async def __aexit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        assert isinstance(self._begun, AsyncSeries)
        await self._begun._end(raised)

    def __repr__(self) -> str:
        return f"<LeaseSeries of {self._reservation!r}>"


def series_of(
    reserve: Callable[..., Reservation],
    estimate: Amount,
    action: AnyAction,
    part_ms: int | None,
    options: SeriesOptions,
) -> LeaseSeries:
    """Return the result of `Cycles.lease_series`."""
    for name in ("idempotency_key", "actual"):
        if name in options:
            raise InvalidRequestError(
                f"{name} is not an option of lease_series: each part has its own key and commits its spend"
            )
    # By default a part ends before the server stops to extend it: each extension adds at least half a ttl.
    if part_ms is None:
        part_ms = PART_TTLS * options.get("ttl_ms", DEFAULT_TTL_MS)
    return LeaseSeries(reserve(estimate, action=action, **options), part_ms)


public(AsyncSeries, LeaseSeries, Series)
