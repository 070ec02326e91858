"""`guard.wrap(stream)`: passes chunks through, reads their token counts, and settles the guard when the stream ends.

A stream ends when it is exhausted, raises, is closed or is garbage-collected. Each wrapper contains a generator that is
started immediately, so that Python closes it, and with it the guard, when the wrapper is garbage-collected.
"""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

from cycles._client.closing import close_stream
from cycles._core.values.notes import add_note
from cycles._core.values.usage import Usage
from cycles._errors import InvalidRequestError
from cycles._http.running_loop import run_to_first_yield
from cycles._version import public

T = TypeVar("T")
UsageReader: TypeAlias = Callable[..., Any]


class Ends(Protocol):
    """A guard, as a sync stream needs it."""

    @property
    def usage(self) -> Usage: ...
    def _end(self, raised: BaseException | None) -> None: ...


class EndsLater(Protocol):
    """A guard, as an async stream needs it."""

    @property
    def usage(self) -> Usage: ...
    async def _end(self, raised: BaseException | None) -> None: ...


def reader(given: UsageReader | None, usage: Usage) -> Callable[[Any], None]:
    """Return the function that reads each chunk.

    Args:
        given: The caller's ``usage=``. It takes the chunk, and the guard's usage if it has a second parameter. A
            mapping that it returns is added to the usage (``{"tokens_output": 3}``).
        usage: The guard's usage.

    Raises:
        InvalidRequestError: It is not callable.
    """
    if given is None:
        return lambda chunk: None
    if not callable(given):
        raise InvalidRequestError(f"usage must be a callable such as cycles.usage.openai, got {given!r:.80}")
    account = usage.for_stream()
    both = _takes_two(given)

    def read(chunk: Any) -> None:
        counts = given(chunk, account) if both else given(chunk)
        if isinstance(counts, Mapping):
            account.add(**{name: _integral(value) for name, value in counts.items()})

    return read


def _integral(value: Any) -> Any:
    """Return 5 for 5.0: some providers report counts as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _takes_two(given: UsageReader) -> bool:
    try:
        inspect.signature(given).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a built-in function whose parameters are unknown
        return False
    return True


class _Wrapped:
    """A wrapper that passes attributes it does not have to its stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also on copies that are not complete yet
            raise AttributeError(name)
        return getattr(self._stream, name)


class GuardedStream(_Wrapped, Generic[T]):
    """An iterator over a stream whose end settles a guard."""

    def __init__(self, guard: Ends, stream: Iterable[T], usage: UsageReader | None, settle: bool) -> None:
        if not isinstance(stream, Iterable):
            hint = ": an async stream needs `async with client.reserve(...)`" if hasattr(stream, "__aiter__") else ""
            raise InvalidRequestError(f"stream must be iterable, got {stream!r:.80}{hint}")
        super().__init__(stream)
        self._chunks = _chunks(guard if settle else None, stream, reader(usage, guard.usage))
        next(self._chunks)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return cast(T, next(self._chunks))  # only the first one, read above, is no chunk

    def close(self) -> None:
        """Close the stream early. Known spend is committed; if there is none, the budget is released."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        self.close()


def _chunks(guard: Ends | None, stream: Iterable[T], read: Callable[[Any], None]) -> Generator[T | None, None, None]:
    # Started before the wrapper is returned: a generator that never ran would not be closed with it.
    try:
        yield None
        for chunk in stream:
            read(chunk)
            yield chunk
    except BaseException as raised:
        try:
            _close(stream)
        except Exception as error:  # a failing close must not hide the reason for closing
            add_note(raised, f"cycles: closing the stream failed too: {error!r}")
        finally:
            if guard is not None:
                guard._end(raised)
        raise
    # Outside of `try`: an error of the settlement must reach the caller as it is.
    if guard is not None:
        guard._end(None)


def _close(stream: Any) -> None:
    close = getattr(stream, "close", None)
    if callable(close):
        close()


class AsyncGuardedStream(_Wrapped, Generic[T]):
    """An async iterator over a stream whose end settles a guard."""

    def __init__(self, guard: EndsLater, stream: AsyncIterable[T], usage: UsageReader | None, settle: bool) -> None:
        if not isinstance(stream, AsyncIterable):
            hint = ": a sync stream needs `with client.reserve(...)`" if isinstance(stream, Iterable) else ""
            raise InvalidRequestError(f"stream must be iterable with `async for`, got {stream!r:.80}{hint}")
        super().__init__(stream)
        self._chunks = _async_chunks(guard if settle else None, stream, reader(usage, guard.usage))
        run_to_first_yield(self._chunks)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        chunk = await anext(self._chunks)
        return cast(T, chunk)  # only the first one, read above, is no chunk

    async def aclose(self) -> None:
        """Close the stream early. Known spend is committed; if there is none, the budget is released."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, at: object) -> None:
        await self.aclose()


async def _async_chunks(
    guard: EndsLater | None, stream: AsyncIterable[T], read: Callable[[Any], None]
) -> AsyncGenerator[T | None, None]:
    try:
        yield None
        async for chunk in stream:
            read(chunk)
            yield chunk
    except BaseException as raised:
        try:
            await close_stream(stream)
        except Exception as error:  # a failing close must not hide the reason for closing
            add_note(raised, f"cycles: closing the stream failed too: {error!r}")
        finally:
            if guard is not None:
                await guard._end(raised)
        raise
    if guard is not None:
        await guard._end(None)


public(AsyncGuardedStream, GuardedStream)
