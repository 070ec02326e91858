"""`Reservation`: describes a reservation, and sends nothing until it is entered, acquired or awaited.

`RequestCache` keeps the requests of `reserve` that were checked: most calls of a program differ only in their amounts.
To check a request and to merge its subject costs as much as all that `reserve` does otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator, Hashable
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from attrs import evolve

from cycles._client.context import SUBJECT
from cycles._client.guard import AsyncGuard, Guard, GuardBase
from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import Actual, ReserveRequest
from cycles._core.subjects import Subject
from cycles._errors import GuardFinalizedError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io, run
from cycles._flows.reserve import Take, open_lease
from cycles._version import public

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime


G = TypeVar("G", bound=GuardBase)
Opens: TypeAlias = Callable[[Io, ReserveRequest, Take], Coroutine[Any, Any, GuardState]]

MOST: Final = 256  # a program has few kinds of calls; one with more checks some of them again
LONGEST_METADATA: Final = 1_024  # characters of the metadata in a key

Key: TypeAlias = tuple[Hashable, ...]


class RequestCache:
    """The checked requests of one client or view.

    A key has all that a request depends on, except for its amounts. Values that can be changed later, or that equal a
    value which is rejected (1 for True, 60000.0 for 60000), have no key: such calls are checked each time. Metadata
    of a few strings is copied into the key, because each request of a guarded client has some.
    """

    def __init__(self) -> None:
        self._requests: dict[Key, ReserveRequest] = {}

    def find(self, key: Key | None, estimate: Amount, actual: Actual) -> ReserveRequest | None:
        """Return the request with this key and these amounts, or None."""
        if key is None:
            return None
        try:
            request = self._requests.get(key)
        except TypeError:  # a part of it has no hash, so it is no valid value
            return None
        if request is None or (request.actual is actual and request.estimate.amount == estimate.amount):
            return request
        request = self._requests[key] = evolve(request, estimate=estimate, actual=actual)
        return request

    def keep(self, key: Key | None, request: ReserveRequest) -> None:
        """Keep a checked request."""
        if key is not None:
            if len(self._requests) >= MOST:
                self._requests.clear()
            self._requests[key] = request


def cache_key(
    action: Any, subject: Any, estimate: Amount, ttl_ms: Any, metadata: Any, choices: Key, others: tuple[Any, ...]
) -> Key | None:
    """Return the key of a call of `reserve`, or None.

    Args:
        action: As given by the caller, like all others; a pair of names has a key.
        subject: None and a subject without dimensions have a key.
        estimate: Its unit is part of the key.
        ttl_ms: An int has a key.
        metadata: None and a small dict of strings have a key.
        choices: Options that are part of the key.
        others: The other options: a call that has one of them has no key.
    """
    around = SUBJECT.get()
    if (
        type(action) is not tuple
        or len(action) != 2
        or type(ttl_ms) is not int
        or others.count(None) != len(others)
        or not (subject is None or (type(subject) is Subject and not subject.dimensions))
        or not (around is None or not around.dimensions)
    ):
        return None
    if metadata is not None:
        metadata = tuple(chain(*metadata.items())) if type(metadata) is dict else (metadata,)
        if not all(type(text) is str for text in metadata) or sum(map(len, metadata)) > LONGEST_METADATA:
            return None
    return (*action, subject, around, estimate.unit, ttl_ms, metadata, *choices)


class NotEnteredError(InvalidRequestError, AttributeError):
    """A method of the guard was called on the reservation. An AttributeError too, so that `hasattr` works."""


class Reservation:
    """Describes a reservation. Nothing is sent until it is entered, acquired or awaited.

    ``with`` returns a `Guard`, and ``async with`` an `AsyncGuard`. Without a block, `acquire()` and ``await`` return
    them. It can be used again after its block, but only one block of it can run at a time.
    """

    __slots__ = ("_entered", "_guard", "_open", "_request", "_runtime")

    def __init__(self, runtime: Callable[[], Runtime], request: ReserveRequest, open_: Opens = open_lease) -> None:
        self._runtime = runtime
        self._request = request
        self._open = open_
        self._guard: Guard | AsyncGuard | None = None
        self._entered = threading.Lock()  # two threads or tasks may enter at the same time

    def acquire(self) -> Guard:
        """Reserve now, and return the guard. The caller commits or releases it.

        Raises:
            ReservationDeniedError: The reservation was denied.
            ReservationNotActiveError: `idempotency_key` replays a reservation that has ended.
            CyclesError: There is no reservation for another reason.
        """
        runtime = self._runtime()
        guard = Guard(runtime)  # made before the flow, so that no interrupt comes between response and guard
        try:
            guard._take(run(self._open(runtime.blocking, self._request, guard._take)))
        except BaseException:
            guard._abandon()
            raise
        return guard

    async def _acquire_async(self) -> AsyncGuard:
        runtime = self._runtime()
        io = runtime.tasks()
        guard = AsyncGuard(runtime)
        try:
            guard._take(await io.to_the_end(self._open(io, self._request, guard._take)))
        except BaseException:
            guard._abandon()
            raise
        return guard

    def __await__(self) -> Generator[Any, None, AsyncGuard]:
        return self._acquire_async().__await__()

    def __enter__(self) -> Guard:
        # One block at a time: a second one would overwrite the guard that the first block has to end.
        self._claim()
        try:
            guard = self.acquire()
            self._guard = guard
            return guard.__enter__()
        except BaseException:
            self._leave_early()
            raise

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        self._left(Guard).__exit__(kind, raised, tb)

    async def __aenter__(self) -> AsyncGuard:
        self._claim()
        try:
            guard = await self._acquire_async()
            self._guard = guard
            return await guard.__aenter__()
        except BaseException:
            self._leave_early()
            raise

    async def __aexit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        await self._left(AsyncGuard).__aexit__(kind, raised, tb)

    def _left(self, kind: type[G]) -> G:
        """Return the guard of the block that ends."""
        guard = self._guard
        assert isinstance(guard, kind), (
            "a reservation that was entered with `with` must be left so, and the same for `async with`"
        )
        # Free before the end: a settlement that raises must not leave the reservation entered for ever.
        self._free()
        return guard

    def _claim(self) -> None:
        if not self._entered.acquire(blocking=False):
            raise GuardFinalizedError(
                "this reservation is entered already, by another thread or task or by an outer block: "
                "call client.reserve(...) again for each use"
            )

    def _free(self) -> None:
        self._guard = None
        self._entered.release()

    def _leave_early(self) -> None:
        guard = self._guard
        self._free()
        if guard is not None:
            guard._abandon()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or not hasattr(Guard, name):
                raise AttributeError(f"'Reservation' object has no attribute {name!r}")
            raise NotEnteredError(
                f"a Reservation has no {name}, its guard has: write `with client.reserve(...) as guard:` "
                f"(or `async with`) and guard.{name}, or guard = client.reserve(...).acquire()"
            )

    def __repr__(self) -> str:
        request = self._request
        return f"<Reservation of {request.estimate} for {request.action.kind} {request.action.name}, nothing sent>"


public(Reservation)
