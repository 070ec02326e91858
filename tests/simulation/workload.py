"""What the simulated programs do: guards of every kind, with faults in the middle, and notes of what they reported."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

from attrs import define, field

import cycles
from tests.simulation import loop
from tests.simulation.hub import Hub, Process
from tests.simulation.network import SimServer, amount

ESTIMATE: Final = 100
BUDGET: Final = 1_000_000  # of each use
TIMEOUT_S: Final = 5.0
ACTION: Final = ("llm.completion", "small-model")
NOT_FINAL: Final = (cycles.ServerError, cycles.RateLimitedError, cycles.UnauthorizedError)
POLICY: Final = "ALLOW_IF_AVAILABLE"


class Boom(Exception):
    """The exception of a failing block."""


@define
class Op:
    """One use of a guard, and what its caller reported about it."""

    number: int
    kind: str
    process: Process
    known: int = 0  # what was reported as spent so far, by `spend` or `commit`
    committing: bool = False  # `commit` or the end of the block was called, with `known`
    ended: bool = False  # the call returned to the program
    killed: bool = False
    saved: bool = False  # killed, and the journal holds a record of it
    rejected: str | None = None  # the typed error of an understood rejection
    ran: bool = False
    may_run_unreserved: bool = False
    charges: bool = True  # False: shadow
    releases: bool = False  # the caller released it: nothing is charged
    steps: list[int] = field(factory=list)  # the sums that `known` went through
    problems: list[str] = field(factory=list)

    @property
    def agent(self) -> str:
        """The subject level that only this use has, so that its charges can be read from the ledger."""
        return f"op{self.number}"

    def know(self, value: int) -> None:
        """Note that the caller reports this sum from now on."""
        self.known = value
        self.steps.append(value)


class Program:
    """One simulated program: a client, some threads and one event loop.

    Args:
        hub: The machine.
        server: Where its client sends requests.
        process: Where it runs.
        journal_dir: The directory of its journal, which other programs may share.
        ops: Where it notes its uses; shared by all programs of a run.
    """

    def __init__(self, hub: Hub, server: SimServer, process: Process, journal_dir: str, ops: list[Op]) -> None:
        self.hub = hub
        self.server = server
        self.process = process
        self.journal_dir = journal_dir
        self.ops = ops
        self.finished = False
        self.closed = False
        self.left_pending = 0
        self.client: cycles.Cycles

    def main(self, threads: list[list[str]], tasks: list[str]) -> None:
        """Run the given kinds of uses, each list of `threads` in its own thread and `tasks` in one loop."""
        self.client = client_of(self.server, self.journal_dir)
        self.client.on_event(self._observe)
        workers = [threading.Thread(target=self._in_thread, args=(kinds,)) for kinds in threads]
        if tasks:
            workers.append(threading.Thread(target=self._in_loop, args=(tasks,)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.hub.random.random() < 0.7:
            self.client.close()
            self.closed = True
        self.finished = True

    def _observe(self, event: cycles.events.Event) -> None:
        if isinstance(event, cycles.events.SettlementsLeftPending):
            self.left_pending = event.pending
            self.hub.trace(f"{self.process.name} leaves {event.pending} settlements pending")

    def _in_thread(self, kinds: list[str]) -> None:
        from tests.simulation import uses  # its functions take a Program

        for kind in kinds:
            self.hub.sleep(self.hub.random.random() * 3)
            op = self._note(kind)
            with self._watched(op):
                uses.SYNC[kind](self, op)

    def _in_loop(self, kinds: list[str]) -> None:
        loop.run(self.hub, self._tasks(kinds))

    async def _tasks(self, kinds: list[str]) -> None:
        random = self.hub.random
        tasks = [asyncio.ensure_future(self._in_task(kind, random.random() * 5)) for kind in kinds]
        for task in tasks:
            if random.random() < 0.3:
                delay = random.random() * 12
                for _ in range(random.choice((1, 1, 2, 6))):
                    asyncio.get_running_loop().call_later(delay, task.cancel)
                    delay += random.choice((0.0, 0.001, 0.3))
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_task(self, kind: str, delay_s: float) -> None:

        from tests.simulation import uses

        await asyncio.sleep(delay_s)
        op = self._note(kind)
        with self._watched(op):
            await uses.ASYNC[kind](self, op)

    def _note(self, kind: str) -> Op:
        op = Op(len(self.ops), kind, self.process)
        self.ops.append(op)
        return op

    @contextlib.contextmanager
    def _watched(self, op: Op) -> Iterator[None]:
        """Check what the caller gets: its own exception, a denial, or an understood rejection."""
        self.hub.trace(f"{self.process.name} begins {op.kind} {op.agent}")
        try:
            yield
        except Boom:
            if "raise" not in op.kind:
                op.problems.append("raised an exception of another block")
        except (cycles.ProtocolError, cycles.ReservationNotActiveError) as error:
            if op.ran:
                op.rejected = type(error).__name__
            if op.ran and op.committing and isinstance(error, NOT_FINAL):
                op.problems.append(f"the settlement of a block raised {error!r}")
        except cycles.TransportError as error:
            if op.ran and op.kind not in ("release", "series"):
                op.problems.append(f"a block that ran raised {error!r}")
        except cycles.CyclesError as error:
            op.problems.append(f"unexpected {error!r}")
        else:
            if "raise" in op.kind and op.ran:
                op.problems.append("the exception of the block was swallowed")
        finally:
            if self.process.alive:
                op.ended = True
                self.hub.trace(f"{self.process.name} ended {op.kind} {op.agent}, known {op.known}")

    def reserve(self, op: Op, **options: Any) -> cycles.Reservation:
        """Describe the reservation of a use."""
        ttl_ms = self.hub.random.choice((1_000, 5_000, 60_000))
        subject = {"agent": op.agent}
        return self.client.reserve(
            amount(ESTIMATE), action=ACTION, subject=subject, ttl_ms=ttl_ms, overage_policy=POLICY, **options
        )

    def entered(self, op: Op, guard: Any) -> None:
        """Note that the block runs."""
        op.ran = True
        if guard.state == "unreserved" and not op.may_run_unreserved:
            op.problems.append("the block ran without a reservation")

    def work_s(self) -> float:
        """Return how long a piece of work takes."""
        return self.hub.random.choice((0.0, 0.1, 2.0, 7.0, 30.0))


def client_of(server: SimServer, journal_dir: str) -> cycles.Cycles:
    """Return a client of the simulated server."""
    return cycles.Cycles(
        base_url="http://sim.invalid",
        api_key=server.api_key,
        tenant="acme",
        timeout=TIMEOUT_S,
        journal_dir=journal_dir,
    )
