"""A fault run: mixed guards on a server that fails, and a comparison of the ledger with every guard."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import cycles

from .guards import KINDS, TTL_MS, Batch, Case

FLUSH_S = 240.0


class Server(Protocol):
    """A server that a run may end and start."""

    def start(self) -> None:
        """Start the server that was ended."""
        ...

    def kill(self) -> None:
        """End the server with kill -9."""
        ...

    def stop(self) -> None:
        """End the server with SIGTERM."""
        ...


class Run:
    """The guards of a run and the client that they share. Their numbers begin with `first`."""

    def __init__(self, client: cycles.Cycles, first: int = 0) -> None:
        self.client = client
        self.cases: list[Case] = []
        self._first = first

    def agents(self, size: int) -> list[str]:
        """Return the agents of the first guards, which need a budget each."""
        return [f"g{number}" for number in range(self._first, self._first + size)]

    def batch(self, size: int, ttl_ms: int = TTL_MS) -> Batch:
        """Open the next guards, of all kinds in turn."""
        return self.make_batch(size, ttl_ms).open()

    def make_batch(self, size: int, ttl_ms: int = TTL_MS) -> Batch:
        """Return the next guards, not opened yet."""
        kinds = list(KINDS)
        first = self._first + len(self.cases)
        cases = [Case(number, kinds[number % len(kinds)], self.client, ttl_ms) for number in range(first, first + size)]
        self.cases += cases
        return Batch(cases)

    def settle(self) -> None:
        """Settle what is pending; then nothing may be pending."""
        report = self.client.flush(timeout=FLUSH_S)
        assert (report.pending, self.client.pending()) == (0, [])

    def compare(self, numbers: dict[str, tuple[int, int]], lost: Collection[Case] = ()) -> None:
        """Compare spent and reserved with every guard. `lost`: the server lost their confirmed settlement."""
        found = {(case.agent, case.kind): numbers[case.agent] for case in self.cases}
        expected = {(case.agent, case.kind): (0 if case in lost else case.known, 0) for case in self.cases}
        wrong = {guard: (found[guard], expected[guard]) for guard in found if found[guard] != expected[guard]}
        assert not wrong, f"(spent, reserved) of the ledger and of the guard differ: {wrong}"


def end_during(batch: Batch, server: Server, end: str) -> None:
    """End the guards, and the server (kill or stop) when a quarter of them has begun to end. Start it again."""
    batch.gate.release()
    batch.gate.wait_until_ending(0.25)
    getattr(server, end)()
    batch.finish()
    server.start()
