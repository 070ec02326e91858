"""What must hold at the end of a run: ledger and `rejected/` have what each caller reported."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from attrs import define

from cycles._core.protocol import (
    BUDGET_EXCEEDED,
    IDEMPOTENCY_MISMATCH,
    OVERDRAFT_LIMIT_EXCEEDED,
    RESERVATION_FINALIZED,
)
from cycles._core.settlement.rules import MAY_BE_CHARGED
from tests.simulation.accounts import WORKSPACE
from tests.simulation.server import RESERVED, SimServer
from tests.simulation.uses_pool import BLOCKS, LIMITED
from tests.simulation.uses_sync import HELD
from tests.simulation.workload import Op, Program

EXCESS: Final = ":excess"  # ends the key of a rejected excess
BUDGET_FROZEN: Final = "BUDGET_FROZEN"
BUDGET_CLOSED: Final = "BUDGET_CLOSED"
TENANT_CLOSED: Final = "TENANT_CLOSED"
BY_TURNS: Final = (413, 409, 413, 409)  # as too large, without metadata as another payload, and both once more
CHECKPOINT_S: Final = 1.0  # an open chunk is put into the store at most 200 ms after a commit, if it responds
AHEAD_S: Final = 1.1  # spend is written ahead at most once a second: a kill may lose what is younger


@define
class Books:
    """The ledger, the journal and the notes of the callers, to be compared.

    Attributes:
        kept_records: Returns what was rejected: record and reason.
        pending_records: Returns what the clients of closed tenants list as pending when the run ends.
        has_failed: Returns whether the disk did not take a file that contains a text: the journal may not have it.
        events: The agents, by the id of the record of an event.
        forgets_keys: Whether an amount may be kept as `may_be_charged`: the ledger was restored, days have passed on a
            clock, or a file of a worker may be an earlier state of what another one has claimed.
        rejected: How many uses have an amount that the ledger does not have in `rejected/`, or pending.
        exempt: How many amounts may be missing because a disk failed.
        lost: How many amounts a client saw confirmed before a restore of the ledger lost them.
    """

    server: SimServer
    kept_records: Callable[[], Iterable[dict[str, Any]]]
    pending_records: Callable[[], Iterable[dict[str, Any]]]
    programs: list[Program]
    ops: list[Op]
    has_failed: Callable[[str], bool]
    events: dict[str, str]
    forgets_keys: bool
    rejected: int = 0
    exempt: int = 0
    lost: int = 0

    def problems(self) -> Iterator[str]:
        """Yield each difference."""
        kept = self._kept()
        for record in self.pending_records():
            before = kept.get(agent_of(record), {0})
            # If a response was lost, the ledger has it: all of it, or all but what it rejected.
            excess = (record.get("excess") or {}).get("amount", 0)
            kept[agent_of(record)] = {
                each + more for each in before for more in (0, excess, amount_of(record) + excess)
            }
        yield from self.server.store.problems
        for op in self.ops:
            yield from (f"{op.kind} {op.agent}: {problem}" for problem in op.problems)
            scope = op.account.scope
            settled, charged = self.server.settled(scope), self.server.spent(scope)
            if not self._is_right(op, settled, kept.get(op.agent, {0})):
                yield (
                    f"{op.kind} {op.agent}: charged {settled}, kept {sorted(kept.get(op.agent, ()))}, "
                    f"expected one of {sorted(allowed(op))} ({_flags(op)})"
                )
            if op.killed_s is None and self._is_below_bill(op, settled, kept.get(op.agent, {0})):
                yield f"{op.kind} {op.agent}: the provider bills {op.billed}, and {settled} are charged"
            if charged != self.server.charged(scope):
                yield f"{op.kind} {op.agent}: the budget has spent {charged}, its charges {self.server.charged(scope)}"
            if held := self.server.ledger.balance(scope).reserved.amount:
                yield f"{op.kind} {op.agent}: {held} still held"
        yield from self._sums()
        yield from self._unexplained()

    def unsettled(self) -> Iterator[str]:
        """Yield what is not in the ledger although nothing has failed and each program has ended."""
        left = {program.process: program.left_pending for program in self.programs}  # its close was too short
        for op in self.ops:
            settled = self.server.settled(op.account.scope)
            # A chunk of a pool may stay open as long as its client is in use.
            is_kept = op.is_open or op.kind.startswith("pool")
            waits = op.kind == HELD or (is_kept and op.process.alive and not self._is_closed(op))
            if not waits and not self._is_right(op, settled, self._kept().get(op.agent, {0})):
                left[op.process] -= 1
                if left[op.process] >= 0:
                    continue
                yield f"{op.kind} {op.agent}: charged {settled} when its program ended"

    def unsettled_by(self, program: Program) -> Iterator[str]:
        """Yield what a program has not settled that has closed its client and has reported nothing as pending."""
        kept = self._kept()
        in_use = {op.agent for op, _ in program.held if program.closed}
        for op in self.ops:
            settled = self.server.settled(op.account.scope)
            if op.process is not program.process or op.agent in in_use:
                continue
            if not self._is_right(op, settled, kept.get(op.agent, {0})):
                yield f"{op.kind} {op.agent}: charged {settled} after the close, expected one of {sorted(allowed(op))}"

    def _is_closed(self, op: Op) -> bool:
        return next(program for program in self.programs if program.process is op.process).closed

    def _is_right(self, op: Op, settled: int, kept: set[int]) -> bool:
        """Return whether a use is settled, and count what is exempt.

        Args:
            op: The use.
            settled: The sum of the amounts in the ledger. An amount that a small budget was charged in part counts as
                a whole: `MemoryStore` checks that the budget had no more.
            kept: What `rejected/` has in addition: one of these sums.
        """
        right = allowed(op)
        sums = {settled + amount for amount in kept}
        if sums & right:
            self.rejected += settled not in right
            return True
        lost = self.server.lost(op.account.scope)
        reported = {settled + amount for amount in self._reported(op)}
        if lost and {each + lost for each in sums | reported} & right:
            self.lost += 1
            return True
        # Estimates were lost, and whole amounts are charged: their excesses are not missing, but kept.
        if lost and settled in right and self._charged_again(op) in kept:
            self.lost += 1
            return True
        lost_least = checkpointed(op) if op.may_be_lost else 0
        # Asked last: it counts one of the amounts that the program has reported as pending.
        exempt = bool(reported & right) or (
            settled <= max(right)
            and ((op.may_be_lost and any(each >= lost_least for each in sums)) or self._was_left_pending(op))
        )
        self.exempt += exempt
        return exempt

    def _is_below_bill(self, op: Op, settled: int, kept: set[int]) -> bool:
        """Return whether a use is settled, nothing of it is exempt, and its provider bills more."""
        sums = {settled + amount for amount in kept}
        return bool(sums & allowed(op)) and max(sums & allowed(op)) < op.billed

    def _reported(self, op: Op) -> set[int]:
        """Return the amounts that the disk did not keep, but an error reported: the folder cannot be written."""
        if not self.has_failed(op.agent):
            return set()
        sums = {0}
        for program in self.programs:
            for reservation_id, amount in program.rejected.items():
                known_as = reservation_id.removesuffix(":excess")
                if known_as in op.reservations or self.events.get(known_as) == op.agent:
                    sums |= {each + amount for each in sums}
        return sums

    def _charged_again(self, op: Op) -> int:
        """Return the sum of the excesses in `rejected/` whose whole amounts the ledger has: it lost their estimates."""
        store, sums = self.server.store, dict[str, int]()
        for record in (kept["record"] for kept in self.kept_records()):
            key = (record["event_fallback_body"] or {}).get("idempotency_key", "")
            whole = key.removesuffix(EXCESS)
            if agent_of(record) == op.agent and key != whole in store.charges and f"{whole}{RESERVED}" in store.lost:
                sums[key] = amount_of(record)
        return sum(sums.values())

    def _was_left_pending(self, op: Op) -> bool:
        """Return whether the disk did not take its record, and its process was killed or closed with it pending."""
        program = next(program for program in self.programs if program.process is op.process)
        if not self.has_failed(op.agent):
            return False
        if program.killed:
            return True
        program.left_pending -= 1
        return program.left_pending >= 0

    def _sums(self) -> Iterator[str]:
        """Compare the sum of each outer scope with the sum of what is below it."""
        for tenant in sorted({op.account.tenant for op in self.ops}):
            below = [op for op in self.ops if op.account.tenant == tenant]
            spent = self.server.spent(f"tenant:{tenant}")
            total = sum(self.server.spent(op.account.scope) for op in below)
            if spent != total:
                yield f"tenant {tenant} spent {spent}, its agents {total}"
            nested = sum(self.server.spent(op.account.scope) for op in below if op.account.workspace)
            spent = self.server.spent(f"tenant:{tenant}/workspace:{WORKSPACE}")
            if spent != nested:
                yield f"the workspace of {tenant} spent {spent}, its agents {nested}"

    def _unexplained(self) -> Iterator[str]:
        """Yield each rejected amount that no rule of the ledger explains."""
        ops = {op.agent: op for op in self.ops}
        for kept in self.kept_records():
            record, reason = kept["record"], kept["reason"]
            op = ops[agent_of(record)]
            account = op.account
            explained = {
                MAY_BE_CHARGED: self.forgets_keys or self._is_rejected_by_turns(record),
                # The ledger rejected the form without metadata, and lost the other one before the client read it.
                IDEMPOTENCY_MISMATCH: (record["commit_body"] or {}).get("idempotency_key") in self.server.store.lost,
                BUDGET_FROZEN: account.freezes_s is not None,
                BUDGET_CLOSED: account.closes,
                TENANT_CLOSED: self.server.has_closed_tenant,  # after the key was checked
                RESERVATION_FINALIZED: op.kind == BLOCKS and op.killed_s is not None,  # a chunk with no ended guard
                BUDGET_EXCEEDED: op.kind.startswith("overspend")
                or op.kind == LIMITED
                or account.policy == "REJECT"
                or account.is_tight,
                OVERDRAFT_LIMIT_EXCEEDED: account.is_tight,
            }
            if not explained.get(reason, False):
                yield f"{op.kind} {op.agent}: an amount is kept as rejected, and nothing explains {reason}"

    def _is_rejected_by_turns(self, record: dict[str, Any]) -> bool:
        """Return whether a proxy rejected an event twice that the ledger has, and the ledger its form without metadata.

        See `docs/protocol/settlement.md`, "Records that may have been received".
        """
        key = (record["event_fallback_body"] or {}).get("idempotency_key", "")
        received = iter(self.server.of_events[key])
        return key in self.server.store.charges and all(status in received for status in BY_TURNS)

    def _kept(self) -> dict[str, set[int]]:
        """Return, by agent, the sums in `rejected/` that may be missing in the ledger.

        A record with the reason `may_be_charged` may be in the ledger or not, so both sums are possible.
        """
        sums: dict[str, set[int]] = {}
        seen: set[tuple[str, int]] = set()
        for kept in self.kept_records():
            record = kept["record"]
            amount = amount_of(record)
            # On a disk and in the store: two workers have settled its commit. Both copies have one key.
            if (record["reservation_id"], amount) in seen:
                continue
            seen.add((record["reservation_id"], amount))
            before = sums.get(agent_of(record), {0})
            with_it = {each + amount for each in before}
            sums[agent_of(record)] = before | with_it if kept["reason"] == MAY_BE_CHARGED else with_it
        return sums


def allowed(op: Op) -> set[int]:
    """Return the sums of ledger and `rejected/` that are right for a use."""
    if not op.charges or op.releases:
        return {0}
    if not op.ran:  # killed in `attach`: what the token had spent is written ahead before the block begins
        return {0} if op.killed_s is None else {0, op.known, op.reaching}
    if op.interrupted and op.exact and op.killed_s is None:
        return op.exact
    if op.interrupted and op.killed_s is None:  # in a call: its amount counts or not, what was reported before does
        steps = [] if op.kind == "pool" else op.steps  # it notes a commit also if that was interrupted
        least = max([op.returned, *(known for _, known in steps)])
        sums = {0, op.returned, op.known, op.reaching, *(known for _, known in op.steps)}
        return {each for each in sums if each >= least}
    if op.killed_s is None:
        return {op.known}
    if op.saved and op.committing:  # killed before its bound left the log; a start without the store charges that
        return {op.known, op.reaching} if op.is_only_in_store else {op.known}
    # What was saved is settled. Of what was not, any sum that the caller went through may be missing.
    sums = {0, op.known, op.reaching, *(known for _, known in op.steps)}
    written = [known for when_s, known in op.steps if when_s <= op.killed_s - AHEAD_S]
    least = written[-1] if written and op.keeps_spend else 0
    if op.committing:  # less than the estimate that was written ahead
        least = min(least, op.known)
    if op.keeps_commits:
        least = max(least, op.returned)
    if not op.keeps_spend:  # what a signal handler has committed is in a record, also if the log of the chunk is lost
        sums.add(op.returned)
    if op.in_chunk is not None:  # a commit in progress: one part is in the log of the chunk, the other in a record
        value = op.reaching - op.returned
        sums |= {op.returned + part for part in (op.in_chunk, value - op.in_chunk)}
    sums |= {each + op.beside for each in sums}
    return {each for each in sums if each >= least}


def checkpointed(op: Op) -> int:
    """Return the least that is charged for a pool whose disk is lost: its store has the sum of some time before."""
    if not op.checkpointed or op.killed_s is None:
        return 0
    return max((known for when_s, known in op.steps if when_s <= op.killed_s - CHECKPOINT_S), default=0)


def files(folder: Path, pattern: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the JSON objects in files of these names."""
    for path in sorted(folder.rglob(pattern)):
        with contextlib.suppress(ValueError, OSError):
            yield path, json.loads(path.read_bytes())


def agent_of(record: dict[str, Any]) -> str:
    """Return the agent of a record."""
    agent: str = ((record.get("event_fallback_body") or {}).get("subject") or {}).get("agent", "")
    return agent


def amount_of(record: dict[str, Any]) -> int:
    """Return the amount of a record."""
    amount: int = (record["event_fallback_body"] or record["commit_body"])["actual"]["amount"]
    return amount


def _flags(op: Op) -> str:
    flags = [name for name in ("saved", "committing", "ended") if getattr(op, name)]
    if op.killed_s is not None:
        flags.append(f"killed at {op.killed_s - 1000:.3f}")
    return ", ".join([*flags, *([op.rejected] if op.rejected else [])])
