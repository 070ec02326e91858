"""A described reservation, which sends nothing until it is entered, acquired or awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from cycles._client.guard import AsyncGuard, Guard
from cycles._core.reserve_request import ReserveRequest
from cycles._errors import InvalidRequestError
from cycles._flows import reserve as leases
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io, run
from cycles._version import public

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime


Opens: TypeAlias = Callable[[Io, ReserveRequest], Coroutine[Any, Any, GuardState]]


class Reservation:
    """A described reservation; nothing is sent for it until it is entered, acquired or awaited. May be used again.

    ``with`` gives a `Guard`, ``async with`` an `AsyncGuard`; without a block `acquire()` and ``await`` give them.
    """

    __slots__ = ("_guard", "_open", "_request", "_runtime")

    def __init__(
        self, runtime: Callable[[], Runtime], request: ReserveRequest, open_: Opens = leases.open_lease
    ) -> None:
        self._runtime = runtime
        self._request = request
        self._open = open_
        self._guard: Guard | AsyncGuard | None = None

    def acquire(self) -> Guard:
        """Reserve now; the guard that comes back is yours to commit or release.

        Raises:
            ReservationDeniedError: where the answer is no.
            ReservationNotActiveError: where `idempotency_key` replays a reservation that is over.
            CyclesError: for anything else that is no reservation.
        """
        runtime = self._runtime()
        return Guard(runtime, run(self._open(runtime.blocking, self._request)))

    async def _acquire_async(self) -> AsyncGuard:
        runtime = self._runtime()
        io = runtime.tasks()
        return AsyncGuard(runtime, await io.to_the_end(self._open(io, self._request)))

    def __await__(self) -> Generator[Any, None, AsyncGuard]:
        return self._acquire_async().__await__()

    def __enter__(self) -> Guard:
        self._not_twice()
        guard = self.acquire()
        self._guard = guard
        return guard.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        guard, self._guard = self._guard, None
        assert isinstance(guard, Guard)
        guard.__exit__(kind, raised, tb)

    async def __aenter__(self) -> AsyncGuard:
        self._not_twice()
        guard = await self._acquire_async()
        self._guard = guard
        return await guard.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        guard, self._guard = self._guard, None
        assert isinstance(guard, AsyncGuard)
        await guard.__aexit__(kind, raised, tb)

    def _not_twice(self) -> None:
        if self._guard is not None:
            raise InvalidRequestError("this reservation is in use; call client.reserve(...) again for another one")

    def __repr__(self) -> str:
        request = self._request
        return f"<Reservation of {request.estimate} for {request.action.kind} {request.action.name}, nothing sent>"


public(Reservation)
