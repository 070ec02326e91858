"""`client.aio`: the operations of the client as coroutines, and its lists as async iterators."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from cycles._client import lists, operations
from cycles._client.evidence import evidence_verdict
from cycles._client.methods import iterating_async, suspending
from cycles._client.operation_context import OperationContext, Owner
from cycles._client.options import checked_seconds
from cycles._core.settlement.settlement import FlushReport, PendingSettlement


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

    def __init__(self, client: Owner) -> None:
        self._client = client

    async def pending(self, rejected: bool = False) -> list[PendingSettlement]:
        """As `Cycles.pending`."""
        runtime = self._client._runtime()
        return await runtime.in_thread(runtime.background.rejected if rejected else runtime.background.pending)

    async def flush(self, timeout: float = 10.0) -> FlushReport:
        """As `Cycles.flush`. The event loop continues in the meantime."""
        runtime, timeout_s = self._client._runtime(), checked_seconds("timeout", timeout)
        return await runtime.in_thread(lambda: runtime.background.flush(timeout_s))

    async def aclose(self) -> None:
        """As `Cycles.aclose`."""
        await self._client.aclose()

    def _context(self) -> OperationContext:
        return evolve(self._client._context(), io=self._client._runtime().tasks())
