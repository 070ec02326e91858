"""The methods of a client that make many guards: `pool` and `lease_series`. Both are loaded on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from cycles._client.options import AnyAction, AnySubject
from cycles._config import LeasePolicy, Unavailable
from cycles._core.amounts import Amount
from cycles._core.requests import DEFAULT_TTL_MS
from cycles._http.first_use import loading

if TYPE_CHECKING:
    from cycles._client.options import SeriesOptions
    from cycles._client.pool import Pool
    from cycles._client.series import LeaseSeries


class MakesMany:
    """The part of a client that makes pools and series of leases."""

    reserve: Any

    def pool(
        self,
        max_held: Amount,
        *,
        action: AnyAction,
        subject: AnySubject = None,
        chunk: Amount | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
        grace_period_ms: int | None = None,
        overage_policy: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        lease_policy: LeasePolicy | None = None,
        shadow: bool | None = None,
        on_unavailable: Unavailable | None = None,
        limit: Amount | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Pool:
        """Return a pool: many guards from few reservations, in microseconds and usually without a request.

        Args:
            max_held: The most that the pool holds at the server at any moment, for each set of subject levels. It does
                not limit spending.
            action: The action of the chunks, and of guards without their own.
            subject: As for `reserve`; a guard may override its levels.
            chunk: The amount of one chunk. A quarter of `max_held` by default.
            ttl_ms: Duration of a chunk's lease without a heartbeat, in milliseconds.
            grace_period_ms: As for `reserve`, for chunks.
            overage_policy: As for `reserve`, for an actual that no chunk has space for.
            metadata: JSON values to store with each chunk.
            lease_policy: For guards that do not set their own.
            shadow: As for `reserve`: one dry run for each chunk, nothing is held and nothing is settled.
            on_unavailable: As for `reserve`, if no chunk can be opened.
            limit: The most that the pool may spend in this process. Beyond it `reserve` raises `BudgetExceededError`
                with the code POOL_LIMIT, and sends nothing.
            timeout: Seconds that one attempt of a request of the pool may take, in place of the client's.
            extra_headers: Headers that the requests of the pool have in addition.

        Raises:
            InvalidRequestError: A value is wrong; nothing was sent.
        """
        with loading:
            from cycles._client.pool_options import make_pool

        given = {name: value for name, value in locals().items() if name not in ("self", "make_pool")}
        return make_pool(self, given)  # type: ignore[arg-type]

    def lease_series(
        self, estimate: Amount, *, action: AnyAction, part_ms: int | None = None, **options: Unpack[SeriesOptions]
    ) -> LeaseSeries:
        """Describe work that outlasts one lease: consecutive reservations, each committed before the next is made.

        ``with`` (or ``async with``) returns a series. Its ``next()`` returns the guard for the next piece of work. That
        is the same guard until its part has spent the estimate, is `part_ms` old, or has lost its lease.

        Args:
            estimate: The largest amount that one part should cost.
            action: As for `reserve`.
            part_ms: Age in milliseconds at which the next piece of work begins a new part. Four times `ttl_ms` by
                default.
            options: Any other option of `reserve` except `idempotency_key` and `actual`.

        Raises:
            InvalidRequestError: As `reserve`; nothing was sent.
        """
        with loading:
            from cycles._client.series import series_of

        return series_of(self.reserve, estimate, action, part_ms, options)
