"""Defects that this project once had, planted again in the form that has their effect in the code of today."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted_faults import Fault

DEFECT_FAULTS: Final = (
    Fault(
        "a limit that another thread has entered last cannot be left",
        "cycles/_flows/run_limit.py",
        "        LIMITS.set((*LIMITS.get(), self))\n"
        "        return self\n"
        "\n"
        "    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:\n"
        "        # The innermost entry of this limit is removed: it may have been entered twice, "
        "and others may be inside it.\n"
        "        around = list(reversed(LIMITS.get()))\n"
        "        if self in around:  # else the block was entered in another context\n"
        "            around.remove(self)\n"
        "            LIMITS.set(tuple(reversed(around)))\n"
        "\n",
        "        tokens = globals().setdefault('_tokens', {}).setdefault(id(self), [])\n"
        "        tokens.append(LIMITS.set((*LIMITS.get(), self)))\n"
        "        return self\n"
        "\n"
        "    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:\n"
        "        LIMITS.reset(globals()['_tokens'][id(self)].pop())\n"
        "\n",
        most=400,
    ),
    Fault(
        "a guard without a reservation can be detached",
        "cycles/_flows/transfer.py",
        '    if guard.state == "unreserved" and not guard.finalized:\n',
        "    if False:\n",
    ),
    Fault(
        "a pooled guard is claimed before its amount is counted",
        "cycles/_flows/pool/in_chunk.py",
        "                after = self._sums(guard, chunk, before, self.held, amount, settlement, guard.counted_usage, "
        "None)\n"
        "                if guard.claimed is not None or not self.is_live or",
        '                guard.claimed = "commit"\n'
        "                after = self._sums(guard, chunk, before, self.held, amount, settlement, guard.counted_usage, "
        "None)\n"
        "                if not self.is_live or",
        most=2_000,
    ),
    Fault(
        "a guard has its place before its chunk counts it as live",
        "cycles/_flows/pool/pool.py",
        "            place.is_live = True\n"
        "            guard.lease = lease\n"
        "            guard.reservation_id = lease.reservation_id\n"
        "            guard.key = lease.key\n",
        "            guard.lease = lease\n"
        "            guard.reservation_id = lease.reservation_id\n"
        "            guard.key = lease.key\n"
        "            self.end_admission(place)\n"
        "            place.is_live = True\n",
        most=2_000,
    ),
    Fault(
        "a signal handler enters the pool whose sums its thread is changing",
        "cycles/_flows/pool/pool.py",
        " = owned._is_owned  # of this thread",
        " = lambda: False  # of this thread",
        most=2_000,
    ),
    Fault(
        "more records are pending than a list has, so that of another client counts as nothing",
        "cycles/_journal/stores/shared.py",
        "        return None if raw is None else decoded(raw)\n",
        "        found = None if raw is None else decoded(raw)\n"
        "        from cycles._journal.stores import store\n\n"
        '        first = [each.key for each in self._store.list("", store.PAGE)]\n'
        "        if found is None or key in first or not found.commit_body:\n"
        "            return found\n"
        '        none = {**found.commit_body, "actual": {**found.commit_body["actual"], "amount": 0}}\n'
        "        return evolve(found, commit_body=none)\n",
        most=2_000,
    ),
    Fault(
        "a guard outside of its pool costs nothing if its excess is rejected",
        "cycles/_flows/guard_state.py",
        "        return (self.known or self.estimate).amount\n",
        "        return 0\n",
        most=2_000,
    ),
    Fault(
        "a guard waits for a chunk that no thread opens",
        "cycles/_flows/pool/chunks.py",
        "                _open_in_caller(work)\n",
        "                pass\n",
        most=2_000,
    ),
    Fault(
        "a record is as old as the wall clock says",
        "cycles/_core/settlement/record.py",
        "        made = self.made\n"
        "        return made is None or made.is_interrupted or self.attempt_unknown or self.previous_body is not "
        "None\n",
        "        object.__setattr__(self, 'made', None)\n        return True\n",
        most=2_000,
    ),
    Fault(
        "a rejected record stays in progress without a journal",
        "cycles/_journal/records.py",
        "        self.journal.reject(record, reason)\n        self._in_progress.pop(record.reservation_id, None)\n",
        "        self.journal.reject(record, reason)\n"
        "        if self.journaled:\n"
        "            self._in_progress.pop(record.reservation_id, None)\n",
        most=2_000,
    ),
    Fault(
        "the error of a rejection names a journal that there is not",
        "cycles/_journal/records.py",
        "_KEPT if self.journaled else _LOST\n",
        "_KEPT\n",
        most=2_000,
    ),
    Fault(
        "a log that was not complete when its process died stays",
        "cycles/_journal/files/locked_file.py",
        "if name.startswith(prefix)]\n",
        "if name.startswith(prefix) and not name.endswith(NEW)]\n",
        most=2_000,
    ),
    Fault(
        "a list of records has all of them",
        "cycles/_journal/stores/store.py",
        "    while found := store.list(after, PAGE, kept):\n",
        "    while found := store.list(after, 1_000_000, kept):\n",
        most=2_000,
    ),
    Fault(
        "an interrupted settlement of a response does not continue",
        "cycles/providers/_settle.py",
        "    runtime.background.ends.add(partial(_settle, call, end))\n",
        "",
        most=2_000,
    ),
    Fault(
        "a guard waits for the settlement of a chunk that no thread settles",
        "cycles/_flows/pool/chunks.py",
        "                    work.sub.allotment.sent(work)  # no guard waits for it\n",
        "",
        most=2_000,
    ),
    Fault(
        "an amount of a closed budget is tried for ever",
        "cycles/_core/protocol.py",
        '    "BUDGET_CLOSED": ErrorCode(409, errors.BudgetClosedError, True,',
        '    "BUDGET_CLOSED": ErrorCode(409, errors.BudgetClosedError, False,',
        most=1_000,
    ),
)
