"""Close an object at the end of its block, from sync and async code, and the stream of a caller."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, Self


class _Closable(Protocol):
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


class ClosedByItsBlock:
    """An object with `close` and `aclose` that `with` and `async with` call."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self: _Closable, kind: object, raised: BaseException | None, tb: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self: _Closable, kind: object, raised: BaseException | None, tb: object) -> None:
        await self.aclose()


async def close_stream(stream: Any) -> None:
    """Close a stream that async code reads, if it can be closed. It may be a sync one."""
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if callable(close):
        closing = close()
        if inspect.isawaitable(closing):
            await closing
