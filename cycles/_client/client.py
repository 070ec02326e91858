"""The client: one object for scripts and services. It has a configuration and, in each process, a `Runtime`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Never, Self, Unpack, cast

from attrs import evolve

from cycles._client import lists, operations
from cycles._client.async_operations import AsyncOperations
from cycles._client.call_options import ViewOptions, keywords_of, no_option
from cycles._client.closing import ClosedByItsBlock
from cycles._client.evidence import evidence_verdict
from cycles._client.methods import blocking, iterating
from cycles._client.operation_context import OperationContext
from cycles._client.options import (
    AnyAction,
    AnySubject,
    Settings,
    check_http_clients,
    checked_actual,
    checked_amount,
    checked_seconds,
    checked_watcher,
    merged,
)
from cycles._client.reservation import RequestCache, Reservation, cache_key
from cycles._client.views import describe, short
from cycles._config import Config, LeasePolicy, OnObserved, Settle, Unavailable
from cycles._core.amounts import Amount
from cycles._core.messages.requests import DEFAULT_TTL_MS
from cycles._core.messages.reserve_request import Actual
from cycles._core.results import ReservationSummary
from cycles._core.settlement.settlement import FlushReport, PendingSettlement
from cycles._core.values.headers import checked_headers
from cycles._drivers.reporting import Observer, Reporter
from cycles._errors import CyclesError, InvalidRequestError
from cycles._flows.reserve import create_call
from cycles._http.first_use import first_use, loading
from cycles._version import public

if TYPE_CHECKING:
    import httpx

    from cycles._client.decorator import F
    from cycles._client.options import ActionOption, ActualOption, AmountOption, GuardedOptions, SeriesOptions
    from cycles._client.pool import Pool
    from cycles._client.series import LeaseSeries
    from cycles._client.tracing import Tracing
    from cycles._drivers.runtime import Runtime
    from cycles.events import BudgetThreshold


class Cycles(ClosedByItsBlock):
    """A client of one Cycles server. Threads and any number of event loops can use it at the same time.

    Args:
        config: A configuration. Without one, the client reads it from the environment (``CYCLES_BASE_URL``, ...).
        http_client: Your own `httpx.Client`, for proxies, mTLS and tests. The client uses it for sync calls, their
            heartbeats and the background settlement. You close it yourself.
        async_http_client: Your own `httpx.AsyncClient`, for async calls. Pass both if a proxy or mTLS is needed.
        settings: Any attribute of `Config`. They override `config` and the environment.

    Raises:
        ConfigurationError: A setting is missing or wrong. The message says how to set it.
        InvalidRequestError: A default header cannot be sent.
    """

    decide: Final = blocking(operations.decide)
    preview: Final = blocking(operations.preview)
    record: Final = blocking(operations.record)
    balances: Final = iterating(lists.balances)
    reservations: Final = iterating(lists.reservations)
    reservation: Final = blocking(operations.reservation)
    find: Final = blocking(lists.find)
    commit_reservation: Final = blocking(operations.commit_reservation)
    release_reservation: Final = blocking(operations.release_reservation)
    extend_reservation: Final = blocking(operations.extend_reservation)
    evidence: Final = blocking(operations.evidence)
    evidence_keys: Final = blocking(operations.evidence_keys)
    evidence_verdict: Final = blocking(evidence_verdict)
    action_kinds: Final = iterating(lists.action_kinds)
    action_kind: Final = blocking(operations.action_kind)
    raw: Final = blocking(operations.raw)

    def __init__(
        self,
        config: Config | None = None,
        *,
        http_client: httpx.Client | None = None,
        async_http_client: httpx.AsyncClient | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        given = cast("dict[str, Any]", settings)
        self._config = merged(config, given)
        given.clear()  # no traceback of a later error may contain the key
        checked_headers("default_headers", self._config.default_headers)
        check_http_clients(http_client, async_http_client)
        self._http_clients = (http_client, async_http_client)
        self._reporter = Reporter()
        self._runtime_: Runtime | None = None
        self._options = ViewOptions()
        self._request_cache = RequestCache()
        self._root: Self | None = None  # the client that a view shares everything with
        self._closed_in: int | None = None  # the process that closed the client: a forked child may still use it
        self.aio: AsyncOperations = AsyncOperations(self)
        if self._config.journal:
            self._runtime()  # settle what an earlier process saved, in the background, from now on

    @classmethod
    def embedded(cls, budgets: Mapping[str, Any], tenant: str | None = None, **settings: Any) -> Cycles:
        """Return a client with its own embedded server in this process, for experiments and tests.

        Args:
            budgets: The budget of each scope, for example ``{"tenant:acme": cycles.usd(10)}``, or a `cycles.window`.
            tenant: The tenant of the client. By default, the first one in `budgets`.
            settings: As for `Cycles`.
        """
        from cycles.embedded import EmbeddedServer

        client: Cycles = EmbeddedServer(budgets=budgets).client(tenant=tenant, **settings)
        return client

    @property
    def config(self) -> Config:
        """The configuration. Its repr hides the API key."""
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
        on_observed: OnObserved | None = None,
        observe: bool = False,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        settle: Settle | None = None,
        **unknown: Never,
    ) -> Reservation:
        """Describe a reservation. Nothing is sent until it is entered, acquired or awaited.

        Args:
            estimate: The largest amount that the action should cost. It is held until it is settled.
            action: The action: an `Action` or a ``(kind, name)`` pair.
            subject: The subject whose budget pays. Levels that it leaves out come from `cycles.subject(...)` and the
                configuration.
            ttl_ms: Duration of the lease without a heartbeat, 1,000 to 86,400,000 milliseconds.
            grace_period_ms: How long after its end the server accepts a commit, 0 to 60,000 milliseconds.
            overage_policy: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT: what happens if the actual amount is
                larger than the estimate.
            metadata: JSON values to store with the reservation.
            idempotency_key: Your own key makes a re-run safe: the work does not run a second time.
            actual: The cost, for blocks that do not commit: an amount, or a callable that takes ``guard.usage``.
            lease_policy: ``"warn"``, ``"fail_on_finalize"`` or ``"cancel"``: what happens if the lease is lost.
            shadow: True only evaluates the reservation: no budget is held, and the block runs with any decision.
            on_unavailable: ``"raise"`` or ``"allow"``: with ``"allow"`` the block runs without a reservation if no
                server can be reached.
            wait: Seconds to wait for budget if the reservation is denied. None raises immediately.
            on_observed: ``"raise"`` or ``"run"``, if the server only observes the reservation and holds nothing.
            observe: True requests that, and the block runs with any decision. Needs protocol 0.1.26.
            timeout: Seconds that one attempt of a request of this reservation may take, in place of the client's.
            extra_headers: Headers that the requests of this reservation have in addition.
            settle: ``"background"``: the end of the block saves the amount and does not wait for the server.

        Raises:
            InvalidRequestError: A value is wrong. The message names it and what is allowed; nothing was sent.
        """
        if unknown:
            raise no_option("reserve", next(iter(unknown)), keywords_of(Cycles.reserve))
        # The usual call needs no check; a wrong value fails here, before anything is sent.
        if estimate.__class__ is not Amount or actual is not None:
            checked_actual(actual, checked_amount(estimate))
        runtime = self._runtime()
        others = grace_period_ms, idempotency_key, shadow, on_unavailable, wait, timeout, extra_headers
        observing = on_observed, observe is not False or None
        choices = overage_policy, lease_policy, settle
        key = cache_key(action, subject, estimate, ttl_ms, metadata, choices, (*others, *observing))
        request = self._request_cache.find(key, estimate, actual)
        if request is not None:
            return Reservation(self._runtime, request)
        # The names of the parameters are those of the options, so none can be left out.
        request = self._context().reserve_request(estimate, locals())
        runtime.channel.wire.check(create_call(request, "k"))
        self._request_cache.keep(key, request)
        return Reservation(self._runtime, request)

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
        **unknown: Never,
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
        if unknown:
            raise no_option("pool", next(iter(unknown)), keywords_of(Cycles.pool))
        with first_use, loading:
            from cycles._client.pool import make_pool

        given = {name: value for name, value in locals().items() if name not in ("self", "make_pool")}
        return make_pool(self, given)

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
        with first_use, loading:
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

        A generator reserves at its first step and is settled when it is exhausted or closed. During a call,
        `current_guard()` returns its guard.

        Args:
            estimate: An amount, or a callable that takes arguments of the call by their names.
            action: The action, or a callable like `estimate`.
            actual: The cost of the call: an amount, or a callable that takes the return value (of a generator:
                ``guard.usage``) and, by their names, arguments of the call. Without `actual`, or if the callable fails,
                the estimate is committed with metadata ``actual_source: "estimate"``.
            options: Any other option of `reserve`, or a callable like `estimate` that returns it.

        Raises:
            InvalidRequestError: When decorating: the object cannot be guarded, or an option is wrong for every call.
        """
        from cycles._client.decorator import guarded_by

        return guarded_by(self.reserve, estimate, action, actual, options)

    def attach(
        self,
        token: str | ReservationSummary,
        *,
        actual: Actual = None,
        lease_policy: LeasePolicy | None = None,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **unknown: Never,
    ) -> Reservation:
        """Describe the continuation of a guard that `detach` transferred, or of a reservation that `find` returned.

        It is entered, acquired or awaited like a new reservation. This extends the lease once, to confirm that the
        reservation is active.

        Args:
            token: The return value of `guard.detach()`, or a row of `find`, `reservation` or `reservations`.
            actual: As for `reserve`; a token does not contain it.
            lease_policy: By default, the policy of the guard that was detached.
            timeout: As for `reserve`; a token does not contain it.
            extra_headers: As for `reserve`; a token does not contain them.

        Raises:
            InvalidRequestError: It is not a token, or an option is wrong.
        """
        if unknown:
            raise no_option("attach", next(iter(unknown)), keywords_of(Cycles.attach))
        with first_use, loading:
            from cycles._flows import transfer

        given = {"lease_policy": lease_policy, "timeout": timeout, "extra_headers": extra_headers}
        options = self._options.over(given).of_request(self._config)
        if isinstance(token, ReservationSummary):
            serialized = transfer.found(token, actual, options["lease_policy"])
        else:
            serialized = transfer.deserialize(token, actual, lease_policy)
        checked_actual(actual, serialized.request.estimate)
        request = evolve(serialized.request, **{**options, "lease_policy": serialized.request.lease_policy})
        continued = evolve(serialized, request=request)
        return Reservation(self._runtime, request, lambda io, _, take: transfer.attach(io, continued, take))

    def with_options(
        self,
        *,
        timeout: float | None = None,
        subject: AnySubject = None,
        overage_policy: str | None = None,
        lease_policy: LeasePolicy | None = None,
        max_retries: int | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a view of this client with other defaults. It shares connections, journal and background worker.

        Closing the view closes the client. A view of a view adds to its options.

        Args:
            timeout: Seconds that one attempt of a call may take.
            subject: Levels of the subject; `cycles.subject(...)` and the `subject` of a call override them.
            overage_policy: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT.
            lease_policy: ``"warn"``, ``"fail_on_finalize"`` or ``"cancel"``.
            max_retries: How often a write is sent again with the same key after an inconclusive response.
            extra_headers: Headers that each request has in addition.

        Raises:
            InvalidRequestError: A value is wrong.
        """
        changes = {name: value for name, value in locals().items() if name != "self"}
        view = object.__new__(type(self))
        # Everything is shared, also what later versions add: only the defaults of the view are its own.
        view.__dict__.update(self.__dict__)
        view._options = self._options.over(changes)
        view._request_cache = RequestCache()
        view._root = self._root or self
        view.aio = AsyncOperations(view)
        return view

    def on_event(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` with each event (see `cycles.events`). Returns a callable that removes the observer.

        The observer runs in the thread or event loop in which the event happens, so it should be short. An exception
        that it raises is logged and changes nothing.
        """
        if not callable(observer):
            raise InvalidRequestError(f"observer must be a callable that takes an event, got {observer!r:.80}")
        return self._reporter.add(observer)

    def trace_with(self, tracing: Tracing) -> Callable[[], None]:
        """Add a tracer. Returns a callable that removes it. See `cycles.Tracing`.

        Raises:
            InvalidRequestError: The client has a tracer already, or it is none.
        """
        if not all(callable(getattr(tracing, name, None)) for name in ("begin", "sending")):
            raise InvalidRequestError(f"tracing must have the methods begin and sending, got {tracing!r:.80}")
        if self._reporter.trace is not None:
            raise InvalidRequestError("this client has a tracer: call what trace_with returned to remove it first")
        from cycles._drivers.tracing import SafeTrace

        trace = self._reporter.trace = SafeTrace(tracing)

        def remove() -> None:
            if self._reporter.trace is trace:
                self._reporter.trace = None

        return remove

    def on_threshold(
        self,
        thresholds: float | Iterable[float],
        callback: Callable[[BudgetThreshold], object],
        scopes: Iterable[str] | None = None,
    ) -> Callable[[], None]:
        """Call `callback` when the used fraction of a budget rises to a threshold. Returns a callable that removes it.

        The fraction comes from the balances in responses to reserve, commit and release; the client sends no request
        for it. The callback gets a `BudgetThreshold`, once per scope, unit and threshold, and again only after the
        fraction fell 0.05 below the threshold. Observers of `on_event` get the same event.

        Args:
            thresholds: Fractions of a budget, for example ``(0.8, 0.95)``.
            callback: Runs like an observer: it should be short, and what it raises is logged.
            scopes: Full scope paths to watch, for example ``["tenant:acme/agent:bot"]``; all by default.

        Raises:
            InvalidRequestError: A value is wrong.
        """
        return self._reporter.watch(checked_watcher(thresholds, callback, scopes))

    def pending(self, rejected: bool = False) -> list[PendingSettlement]:
        """Return the settlements that the server has not confirmed yet, oldest first.

        Args:
            rejected: Return those that the server rejected instead; `last_outcome` is the reason. They are in the
                folder `rejected` of the journal and are not sent again.
        """
        background = self._runtime().background
        return background.rejected() if rejected else background.pending()

    def flush(self, timeout: float = 10.0) -> FlushReport:
        """Settle what is pending, and wait at most `timeout` seconds for it. What is left stays pending.

        Raises:
            InvalidRequestError: `timeout` is not a number of seconds.
        """
        return self._runtime().background.flush(checked_seconds("timeout", timeout))

    def close(self) -> None:
        """Settle what is pending for at most `flush_timeout` seconds, then close threads and connections."""
        runtime = self._closing()
        if runtime is not None:
            runtime.close()

    async def aclose(self) -> None:
        """Close the client from async code, as `close` does."""
        runtime = (self._root or self)._own_runtime()
        if runtime is not None:
            runtime.tasks()  # without an event loop this raises, and the client stays open
        runtime = self._closing()
        if runtime is not None:
            await runtime.aclose()

    def __repr__(self) -> str:
        return short(self._config, self._options)

    def describe(self) -> dict[str, Any]:
        """Return what the client is connected to, as whom and with which options, as JSON values without secrets."""
        client = self._root or self
        own = [type(each).__qualname__ for each in client._http_clients if each is not None]
        closed = client._closed_in == os.getpid()
        return describe(self._config, self._options, http_client=", ".join(own) or None, closed=closed)

    def _own_runtime(self) -> Runtime | None:
        """Return the runtime of this process, never that of a parent process; None if there is none yet."""
        runtime = self._runtime_
        return runtime if runtime is not None and runtime.pid == os.getpid() else None

    def _closing(self) -> Runtime | None:
        """Note that the client is closed, and return the runtime to close."""
        client = self._root or self
        client._closed_in = os.getpid()
        return client._own_runtime()

    def _runtime(self) -> Runtime:
        if self._root is not None:
            return self._root._runtime()
        if self._closed_in == os.getpid():
            raise CyclesError("this client is closed: make a new one with cycles.Cycles(...)")
        runtime = self._runtime_
        if runtime is None or runtime.pid != os.getpid():
            runtime = self._make_runtime()
        return runtime

    def _make_runtime(self) -> Runtime:
        with first_use, loading:
            from cycles._drivers.runtime import Runtime

            runtime = self._runtime_
            if runtime is None or runtime.pid != os.getpid():
                made = Runtime(self._config, self._reporter, *self._http_clients)
                try:
                    made.start()
                    if self._runtime_ is runtime:  # else a signal handler has used the client in the meantime
                        self._runtime_ = made
                finally:
                    if self._runtime_ is not made:  # also if a signal handler has raised: nobody would close this one
                        made.scheduler.close(0.0)
            return self._runtime()

    def _context(self) -> OperationContext:
        runtime = self._runtime()
        return OperationContext(runtime.blocking, self._config, runtime.channel.wire, self._options)


public(Cycles)
