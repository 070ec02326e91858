"""Results that still have work to do when a guarded call returns them: the guard ends when that work ends.

A generator, an async iterator, an awaitable, a task or future, and the object of a `@contextmanager` function: each is
replaced by one of the same kind that ends the guard. A task or future stays itself and ends the guard when it is done.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from cycles._client.closing import close_stream
from cycles._client.context import running
from cycles._client.guard import AsyncGuard, Guard
from cycles._errors import GuardFinalizedError

_ESTIMATED: Final = {"actual_source": "estimate"}
# What @contextmanager and @asynccontextmanager functions return. Other context managers, such as files and HTTP
# responses, are values that callers may use without entering them.
_MANAGER: Final = contextlib._GeneratorContextManager
_ASYNC_MANAGER: Final = contextlib._AsyncGeneratorContextManager
_VALUES: Final = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict, set})


@frozen
class Returned:
    """How the result of one call becomes the actual amount of its guard.

    Attributes:
        estimated: True if the caller gave no `actual`: the estimate is committed.
        cost: Returns the actual of the result and `guard.usage`; None if `actual` is no callable.
        needs_result: Whether `cost` looks at the result. That of a stream is its usage.
    """

    estimated: bool
    cost: Callable[[Any, Any], Any] | None
    needs_result: bool

    def report(self, guard: Guard | AsyncGuard, result: Any) -> None:
        """Let the guard commit what the call cost, after it ended normally with `result`."""
        state = guard._state
        if state.spent is not None:
            return  # spend that was counted is more precise than an estimate
        if self.estimated:
            state.request = evolve(state.request, actual=state.estimate, settlement_metadata=_ESTIMATED)
        elif self.cost is not None and self.needs_result and not state.is_stream:
            state.request = evolve(state.request, actual=partial(self.cost, result))

    def for_stream(self, guard: Guard | AsyncGuard) -> None:
        """Settle the guard as a stream from now on: its actual is that of `guard.usage`, and it may be closed early."""
        guard._state.is_stream = True
        if self.cost is not None:
            guard._state.request = evolve(guard._state.request, actual=partial(of_usage, self.cost))


def of_usage(cost: Callable[[Any, Any], Any], usage: Any) -> Any:
    """Return the actual of a call that has no result, or whose result is its usage."""
    return cost(usage, usage)


Opened: TypeAlias = Callable[..., Coroutine[Any, Any, tuple[AsyncGuard, Returned, Callable[[], Any]]]]


def is_finished(result: object) -> bool:
    """Return whether the work of a call has ended when it returns `result`."""
    # First, because most calls return one of these.
    if type(result) in _VALUES:
        return True
    if inspect.isgenerator(result) or inspect.isawaitable(result) or _is_async_iterator(result):
        return False
    if callable(getattr(result, "add_done_callback", None)):
        return False
    return not isinstance(result, _MANAGER | _ASYNC_MANAGER)


def _is_async_iterator(result: object) -> bool:
    return hasattr(result, "__anext__") and hasattr(result, "__aiter__")


def guarded_rest(guard: Guard, returned: Returned, result: Any) -> Any:
    """Return the unfinished result of a function, guarded until it ends."""
    if inspect.isgenerator(result):
        return steps(guard, returned, lambda: result)
    if isinstance(result, _MANAGER):
        return _managed(guard, returned, result)
    return guarded_rest_async(_AsyncEnd(guard), returned, result)


def guarded_rest_async(guard: AsyncGuard, returned: Returned, result: Any) -> Any:
    """Return the unfinished result of a coroutine function, guarded until it ends."""
    # A task or future stays itself: its caller may cancel it or compare it, which a wrapper would change.
    if callable(getattr(result, "add_done_callback", None)):
        result.add_done_callback(partial(_done, guard, returned))
        return result
    if isinstance(result, _ASYNC_MANAGER):
        return _managed_async(guard, returned, result)
    if inspect.isawaitable(result):
        return _awaited(guard, returned, result)
    if _is_async_iterator(result):

        async def opened() -> tuple[AsyncGuard, Returned, Callable[[], Any]]:
            return guard, returned, lambda: result

        return async_steps(opened)()
    return guarded_rest(_SyncEnd(guard), returned, result)


class _AsyncEnd(AsyncGuard):
    """The guard of a sync call whose result is async. It keeps the sync guard alive, which would release the budget."""

    __slots__ = ("_guard",)

    def __init__(self, guard: Guard) -> None:
        super().__init__(guard._runtime, guard._state)
        self._guard = guard


class _SyncEnd(Guard):
    """The guard of an async call whose result is sync. It keeps the async guard alive."""

    __slots__ = ("_guard",)

    def __init__(self, guard: AsyncGuard) -> None:
        super().__init__(guard._runtime, guard._state)
        self._guard = guard


def steps(guard: Guard, returned: Returned, start: Callable[[], Any]) -> Generator[Any, Any, Any]:
    """Run a generator step by step, and end the guard with it. Only its own code has the guard as the current one."""
    returned.for_stream(guard)
    try:
        body = start()
        step: Callable[[], Any] = partial(body.send, None)
        while True:
            # Around each step only: between two steps the code of the consumer runs, in the same context.
            try:
                with running(guard):
                    item = step()
            except StopIteration as end:
                result = end.value
                break
            try:
                step = partial(body.send, (yield item))
            except GeneratorExit:
                with running(guard):
                    body.close()
                raise
            except BaseException as thrown:
                step = partial(body.throw, thrown)
        returned.report(guard, result)
    except BaseException as raised:
        guard._end(raised)
        raise
    guard._end(None)
    return result


def async_steps(opened: Opened) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that runs an async iterator step by step, and ends the guard with it.

    Args:
        opened: Gets the arguments of the call. Returns the guard, how it is settled, and what makes the iterator.
    """

    async def guarded_steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        guard, returned, start = await opened(*args, **kwargs)
        returned.for_stream(guard)
        try:
            body = start()
            step: Callable[[], Any] = partial(body.asend, None) if hasattr(body, "asend") else body.__anext__
            while True:
                try:
                    with running(guard):
                        item = await step()
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                    step = partial(body.asend, sent) if hasattr(body, "asend") else body.__anext__
                except GeneratorExit:
                    with running(guard):
                        await close_stream(body)
                    raise
                except BaseException as thrown:
                    if not hasattr(body, "athrow"):
                        await close_stream(body)
                        raise
                    step = partial(body.athrow, thrown)
            returned.report(guard, None)
        except BaseException as raised:
            await guard._end(raised)
            raise
        await guard._end(None)

    return guarded_steps


async def _awaited(guard: AsyncGuard, returned: Returned, awaitable: Awaitable[Any]) -> Any:
    async with guard:
        result = await awaitable
        returned.report(guard, result)
    return result


def _done(guard: AsyncGuard, returned: Returned, future: Any) -> None:
    """End the guard of a task or future that is done. Its callback cannot wait, so this is done in the background."""
    # A cancelled task has raised: its known spend is committed, or its budget released.
    raised = _exception_of(future)
    if raised is None:
        returned.report(guard, future.result())
    with contextlib.suppress(GuardFinalizedError):
        # Claimed here, in the callback, so that no other caller ends it while the thread starts.
        guard._state.claim("end")
        guard._runtime.end_later(guard._state, raised)


def _exception_of(future: Any) -> BaseException | None:
    try:
        error: BaseException | None = future.exception()
    except BaseException as cancelled:  # a future that was cancelled raises CancelledError here
        return cancelled
    return error


@contextlib.contextmanager
def _managed(guard: Guard, returned: Returned, manager: Any) -> Iterator[Any]:
    with guard:
        with manager as value:
            yield value
        returned.report(guard, None)


@contextlib.asynccontextmanager
async def _managed_async(guard: AsyncGuard, returned: Returned, manager: Any) -> AsyncIterator[Any]:
    async with guard:
        async with manager as value:
            yield value
        returned.report(guard, None)
