"""The sibling SDK `runcycles`, if this environment has it: its decorator, with its journal on, over the same stub."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from benchmarks.floors import KEY

IS_HERE = importlib.util.find_spec("runcycles") is not None
MISSING = "runcycles is not installed: its rows are skipped (make bench installs it if the package index has it)"


def module() -> Any:
    """Return the sibling's module. It is no import statement, because type checkers run without it installed."""
    return importlib.import_module("runcycles")


def _config(port: int, journal: str | None) -> Any:
    return module().CyclesConfig(
        base_url=f"http://127.0.0.1:{port}",
        api_key=KEY,
        tenant="acme",
        agent="bot",
        journal_enabled=journal is not None,
        journal_dir=journal,
    )


def _guarded(client: Any, function: Callable[..., Any]) -> Callable[[], Any]:
    decorate = module().cycles(
        5_000_000, actual=lambda _: 3_200_000, action_kind="llm.completion", action_name="gpt-4o", client=client
    )
    guarded: Callable[[], Any] = decorate(function)
    return guarded


@contextlib.contextmanager
def decorator(port: int, journal: str | None) -> Iterator[Callable[[], object]]:
    with module().CyclesClient(_config(port, journal)) as client:
        yield _guarded(client, lambda: None)


@contextlib.asynccontextmanager
async def async_decorator(port: int, journal: str | None) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async def work() -> None:
        return None

    async with module().AsyncCyclesClient(_config(port, journal)) as client:
        yield _guarded(client, work)
