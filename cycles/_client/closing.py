"""Close an object at the end of its block: `with` closes it, and `async with` closes it from async code."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class _Closable(Protocol):
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


class ClosedByItsBlock:
    """An object with `close` and `aclose` that `with` and `async with` call."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self: _Closable, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self: _Closable, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()
