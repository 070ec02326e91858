"""`client.aio`: the operations of the client as coroutines, and its lists as async iterators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from cycles._client import lists, operations
from cycles._client.call_options import ViewOptions
from cycles._client.evidence import evidence_verdict
from cycles._client.methods import iterating_async, suspending
from cycles._client.operation_context import OperationContext
from cycles._client.options import checked_seconds
from cycles._config import Config
from cycles._core.settlement.settlement import FlushReport, PendingSettlement

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime


class AsyncOperations:
    """The client's operations as coroutines, and its lists as async iterators: ``await client.aio.decide(...)``."""

    decide: Final = suspending(operations.decide)
    preview: Final = suspending(operations.preview)
    record: Final = suspending(operations.record)
    balances: Final = iterating_async(lists.balances)
    reservations: Final = iterating_async(lists.reservations)
    reservation: Final = suspending(operations.reservation)
    find: Final = suspending(lists.find)
    commit_reservation: Final = suspending(operations.commit_reservation)
    release_reservation: Final = suspending(operations.release_reservation)
    extend_reservation: Final = suspending(operations.extend_reservation)
    evidence: Final = suspending(operations.evidence)
    evidence_keys: Final = suspending(operations.evidence_keys)
    evidence_verdict: Final = suspending(evidence_verdict)
    action_kinds: Final = iterating_async(lists.action_kinds)
    action_kind: Final = suspending(operations.action_kind)
    raw: Final = suspending(operations.raw)

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        aclose: Callable[[], Coroutine[Any, Any, None]],
        config: Config,
        options: ViewOptions,
    ) -> None:
        self._runtime = runtime
        self._aclose = aclose
        self._config = config
        self._options = options

    def _of_view(self, options: ViewOptions) -> AsyncOperations:
        """Return the operations of a view of the client."""
        return AsyncOperations(self._runtime, self._aclose, self._config, options)

    async def pending(self, rejected: bool = False) -> list[PendingSettlement]:
        """As `Cycles.pending`."""
        runtime = self._runtime()
        return await runtime.in_thread(runtime.background.rejected if rejected else runtime.background.pending)

    async def flush(self, timeout: float = 10.0) -> FlushReport:
        """As `Cycles.flush`. The event loop continues in the meantime."""
        runtime, timeout_s = self._runtime(), checked_seconds("timeout", timeout)
        return await runtime.in_thread(lambda: runtime.background.flush(timeout_s))

    async def aclose(self) -> None:
        """As `Cycles.aclose`."""
        await self._aclose()

    def _context(self) -> OperationContext:
        runtime = self._runtime()
        return OperationContext(runtime.tasks(), self._config, runtime.channel.wire, self._options)
