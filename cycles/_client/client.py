"""The client: one object for scripts and services. It owns the configuration and, in each process, a runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from cycles._client import operations
from cycles._client.evidence import evidence_verdict
from cycles._client.methods import OperationContext, blocking, iterating, iterating_async, suspending
from cycles._client.options import (
    AnyAction,
    AnySubject,
    Settings,
    checked_actual,
    checked_policy,
    checked_unavailable,
    checked_wait,
)
from cycles._client.raw import raw
from cycles._client.reservation import Reservation
from cycles._config import Config, LeasePolicy
from cycles._core.amounts import Amount
from cycles._core.json_values import clean_object
from cycles._core.lifecycle import Actual
from cycles._core.requests import DEFAULT_TTL_MS, check_key
from cycles._core.reserve_request import ReserveRequest, Unavailable
from cycles._core.results import ReservationSummary
from cycles._core.settlement import FlushReport, PendingSettlement
from cycles._core.subjects import as_action
from cycles._drivers.reporting import Observer, Reporter
from cycles._errors import CyclesError, InvalidRequestError
from cycles._flows.reserve import create_call
from cycles._version import public

if TYPE_CHECKING:
    import httpx

    from cycles._client.decorator import F
    from cycles._client.options import ActionOption, ActualOption, AmountOption, GuardedOptions, SeriesOptions
    from cycles._client.series import LeaseSeries
    from cycles._drivers.runtime import Runtime


class Cycles:
    """A client of one Cycles server, for threads and for any number of event loops, side by side.

    Args:
        config: A whole configuration; without one it is read from the environment (``CYCLES_BASE_URL``, ...).
        http_client: Your own `httpx.Client`, for proxies, mTLS and tests. Serves blocking calls, their heartbeats and
            the background settlement of both worlds; it stays yours to close.
        async_http_client: Your own `httpx.AsyncClient`; serves async calls. Give both where a proxy or mTLS is needed.
        settings: Any attribute of `Config`; these win over `config` and the environment.

    Raises:
        ConfigurationError: saying which setting is missing or wrong, and how to give it.
    """

    decide = blocking(operations.decide)
    preview = blocking(operations.preview)
    record = blocking(operations.record)
    balances = iterating(operations.balances)
    reservations = iterating(operations.reservations)
    reservation = blocking(operations.reservation)
    find = blocking(operations.find)
    commit_reservation = blocking(operations.commit_reservation)
    release_reservation = blocking(operations.release_reservation)
    extend_reservation = blocking(operations.extend_reservation)
    evidence = blocking(operations.evidence)
    evidence_keys = blocking(operations.evidence_keys)
    evidence_verdict = blocking(evidence_verdict)
    raw = blocking(raw)

    def __init__(
        self,
        config: Config | None = None,
        *,
        http_client: httpx.Client | None = None,
        async_http_client: httpx.AsyncClient | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        self._config = Config.from_env(**given) if config is None else config.with_settings(**given)
        self._config.endpoint()  # say at once what is missing
        self._http_clients = (http_client, async_http_client)
        self._reporter = Reporter()
        self._lock = threading.Lock()
        self._runtime_: Runtime | None = None
        self.aio = AsyncOperations(self)
        if self._config.journal:
            self._runtime()  # what an earlier process left is settled from now on, in the background

    @classmethod
    def embedded(cls, budgets: Mapping[str, Any], tenant: str | None = None, **settings: Any) -> Cycles:
        """A client with an embedded server of its own, in this process: for trying things out, and for tests.

        Args:
            budgets: What each scope has, for example ``{"tenant:acme": cycles.usd(10)}``.
            tenant: The tenant the client acts for; the first one in `budgets` if left out.
            settings: As for `Cycles`.
        """
        from cycles.embedded import EmbeddedServer

        client: Cycles = EmbeddedServer(budgets=budgets).client(tenant=tenant, **settings)
        return client

    @property
    def config(self) -> Config:
        """The configuration; its repr hides the key."""
        return self._config

    def reserve(
        self,
        estimate: Amount,
        *,
        action: AnyAction,
        subject: AnySubject = None,
        ttl_ms: int = DEFAULT_TTL_MS,
        grace_period_ms: int | None = None,
        overage_policy: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        actual: Actual = None,
        lease_policy: LeasePolicy | None = None,
        shadow: bool | None = None,
        on_unavailable: Unavailable | None = None,
        wait: float | None = None,
    ) -> Reservation:
        """Describe a reservation; nothing is sent until it is entered, acquired or awaited.

        Args:
            estimate: What the action may cost; held until it is settled.
            action: What is done: an `Action` or a ``(kind, name)`` pair.
            subject: Whose budget pays; what it leaves out comes from `cycles.subject(...)` and the configuration.
            ttl_ms: How long the lease lasts without a heartbeat, 1,000 to 86,400,000 milliseconds.
            grace_period_ms: How long after its end a commit is still taken, 0 to 60,000 milliseconds.
            overage_policy: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT: what happens when it costs more.
            metadata: Plain JSON values to keep with the reservation.
            idempotency_key: A key of your own makes a re-run safe: the work does not run a second time.
            actual: What it cost, for blocks that do not say it: an amount, or a callable of ``guard.usage``.
            lease_policy: ``"warn"``, ``"fail_on_finalize"`` or ``"cancel"``: what a lost lease does.
            shadow: Only evaluate, hold nothing, and run the block whatever the answer.
            on_unavailable: ``"raise"``, or ``"allow"``: run unreserved where no server can be reached.
            wait: Seconds to wait for budget where the answer is no; None raises at once.

        Raises:
            InvalidRequestError: naming the member and the bound it breaks; nothing was sent.
        """
        if not isinstance(estimate, Amount):
            raise InvalidRequestError(f"estimate: give an amount such as cycles.usd('0.05'), got {estimate!r}")
        runtime = self._runtime()
        here = OperationContext(runtime.blocking, self._config, runtime.channel.wire)
        request = ReserveRequest(
            estimate=estimate,
            action=as_action(action),
            subject=here.subject(subject),
            ttl_ms=ttl_ms,
            grace_period_ms=grace_period_ms,
            overage_policy=overage_policy,
            metadata=clean_object(metadata, "metadata") if metadata is not None else None,
            idempotency_key=None if idempotency_key is None else check_key(idempotency_key),
            actual=checked_actual(actual, estimate),
            lease_policy=checked_policy(lease_policy or self._config.lease_policy),
            shadow=self._config.shadow if shadow is None else shadow,
            on_unavailable=checked_unavailable(on_unavailable or "raise"),
            wait=checked_wait(wait),
        )
        runtime.channel.wire.check(create_call(request, "k"))
        return Reservation(self._runtime, request)

    def lease_series(
        self, estimate: Amount, *, action: AnyAction, part_ms: int | None = None, **options: Unpack[SeriesOptions]
    ) -> LeaseSeries:
        """Describe work that outlasts one lease: consecutive reservations, each committed before the next is made.

        ``with`` (or ``async with``) gives the series; its ``next()`` gives the guard for the next piece of work, the
        same one until a part has spent its estimate, is `part_ms` old, or has lost its lease.

        Args:
            estimate: What one part may cost.
            action: As for `reserve`.
            part_ms: How old a part may grow before the next piece of work begins another; four ttls if left out.
            options: Any other option of `reserve`, but for `idempotency_key` and `actual`.

        Raises:
            InvalidRequestError: as `reserve` does; nothing was sent.
        """
        from cycles._client.series import series_of

        return series_of(self.reserve, estimate, action, part_ms, options)

    def guarded(
        self,
        estimate: AmountOption,
        *,
        action: ActionOption,
        actual: ActualOption = None,
        **options: Unpack[GuardedOptions],
    ) -> Callable[[F], F]:
        """Guard every call of a function, a coroutine function, a generator function or an async generator function.

        A generator reserves at its first step and settles when it is exhausted or closed. `current_guard()` is the
        guard of the call that is running.

        Args:
            estimate: An amount, or a callable that gets the call's arguments by their names.
            action: What is done; likewise.
            actual: What the call cost: an amount, or a callable that gets what the function returned (a generator's
                gets ``guard.usage``), and arguments by name if it asks. Left out, the estimate is committed, marked
                ``actual_source: "estimate"``; so it is where the callable fails.
            options: Any other option of `reserve`, or a callable of the call's arguments that answers one.

        Raises:
            InvalidRequestError: at decoration time, for what cannot be guarded or what no call could satisfy.
        """
        from cycles._client.decorator import guarded_by

        return guarded_by(lambda: self, estimate, action, actual, options)

    def attach(
        self,
        token: str | ReservationSummary,
        *,
        actual: Actual = None,
        lease_policy: LeasePolicy | None = None,
    ) -> Reservation:
        """Go on with a guard that `detach` gave away, or with a reservation that `find` told of.

        To be entered, acquired or awaited like a new one; that extends the lease once, which proves that it is alive.

        Args:
            token: What `guard.detach()` answered, or a row of `find`, `reservation` or `reservations`.
            actual: As for `reserve`; it cannot travel with a token.
            lease_policy: Another policy than the one it was made with.

        Raises:
            InvalidRequestError: if it is no token.
        """
        from cycles._flows import transfer as handover

        policy = None if lease_policy is None else checked_policy(lease_policy)
        if isinstance(token, ReservationSummary):
            serialized = handover.found(token, actual, policy or self._config.lease_policy)
        else:
            serialized = handover.deserialize(token, actual, policy)
        checked_actual(actual, serialized.request.estimate)
        return Reservation(self._runtime, serialized.request, lambda io, _: handover.attach(io, serialized))

    def on_event(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` with each event (see `cycles.events`); the callable that comes back ends that.

        Observers run where the event happens: keep them short. What they raise is logged and breaks nothing.
        """
        return self._reporter.add(observer)

    def pending(self) -> list[PendingSettlement]:
        """The settlements that are known here and not yet proven at the server, oldest first."""
        return self._runtime().background.pending()

    def flush(self, timeout: float = 10.0) -> FlushReport:
        """Settle what is pending now, waiting `timeout` seconds at most; what is left stays where it is."""
        return self._runtime().background.flush(timeout)

    def close(self) -> None:
        """Settle what is pending, waiting `flush_timeout` seconds at most, and let go of threads and connections."""
        runtime = self._own_runtime()
        if runtime is not None:
            runtime.close()

    async def aclose(self) -> None:
        """The same from async code."""
        runtime = self._own_runtime()
        if runtime is not None:
            await runtime.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        tenant = f", tenant {self._config.tenant}" if self._config.tenant else ""
        return f"<Cycles {self._config.base_url}{tenant}>"

    def _own_runtime(self) -> Runtime | None:
        """The runtime of this process, if it has one: never that of a parent."""
        runtime = self._runtime_
        return runtime if runtime is not None and runtime.pid == os.getpid() else None

    def _runtime(self) -> Runtime:
        runtime = self._runtime_
        if runtime is None or runtime.pid != os.getpid():
            runtime = self._make_runtime()
        if runtime.closed:
            raise CyclesError("this client is closed; make a new one")
        return runtime

    def _make_runtime(self) -> Runtime:
        from cycles._drivers.runtime import Runtime

        inherited = self._runtime_
        if inherited is not None and inherited.pid != os.getpid():
            self._lock = threading.Lock()  # a thread of the parent may have held it at the fork
        with self._lock:
            runtime = self._own_runtime()
            if runtime is None:
                runtime = self._runtime_ = Runtime(self._config, self._reporter, *self._http_clients)
            return runtime

    def _here(self) -> OperationContext:
        runtime = self._runtime()
        return OperationContext(runtime.blocking, self._config, runtime.channel.wire)


class AsyncOperations:
    """The client's operations as coroutines, and its lists as async iterators: ``await client.aio.decide(...)``."""

    decide = suspending(operations.decide)
    preview = suspending(operations.preview)
    record = suspending(operations.record)
    balances = iterating_async(operations.balances)
    reservations = iterating_async(operations.reservations)
    reservation = suspending(operations.reservation)
    find = suspending(operations.find)
    commit_reservation = suspending(operations.commit_reservation)
    release_reservation = suspending(operations.release_reservation)
    extend_reservation = suspending(operations.extend_reservation)
    evidence = suspending(operations.evidence)
    evidence_keys = suspending(operations.evidence_keys)
    evidence_verdict = suspending(evidence_verdict)
    raw = suspending(raw)

    def __init__(self, client: Cycles) -> None:
        self._client = client

    async def pending(self) -> list[PendingSettlement]:
        """As `Cycles.pending`."""
        return await self._client._runtime().pending_async()

    async def flush(self, timeout: float = 10.0) -> FlushReport:
        """As `Cycles.flush`; the loop goes on meanwhile."""
        return await self._client._runtime().flush_async(timeout)

    async def aclose(self) -> None:
        """As `Cycles.aclose`."""
        await self._client.aclose()

    def _here(self) -> OperationContext:
        runtime = self._client._runtime()
        return OperationContext(runtime.tasks(), self._client.config, runtime.channel.wire)


public(Cycles)
