"""The planted faults: each is a small change of the real code that the simulation must find. See `planted.py`."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen
class Fault:
    """One planted fault: in `file`, the only occurrence of `old` becomes `new`. At most `most` seeds must find it.

    With `disks`, calls of the disk may fail in its runs.
    """

    name: str
    file: str
    old: str
    new: str
    most: int = 400
    disks: bool = False


FAULTS: Final = (
    Fault(
        "a commit is sent before its record is saved",
        "cycles/_flows/commit.py",
        "    stopped = STOPPED_BY.get(await put(io, record, guard))\n",
        "    guard.end_written_ahead()\n    stopped = None\n",
    ),
    Fault(
        "the record of an open settlement is deleted",
        "cycles/_journal/records.py",
        "        if result is None or isinstance(result, Settled) or is_kept:",
        "        if not isinstance(result, Rejected) or is_kept:",
    ),
    Fault(
        "a commit without a response is recorded as an event too",
        "cycles/_core/settlement/rules.py",
        "    if not isinstance(outcome, RejectedResponse):\n        return Unresolved(outcome)",
        '    if not isinstance(outcome, RejectedResponse) and record.mode == "commit":\n'
        "        return Resend(record.to_event_mode(now_ms))\n"
        "    if not isinstance(outcome, RejectedResponse):\n"
        "        return Unresolved(outcome)",
    ),
    Fault(
        "each attempt of an event has another key",
        "cycles/_core/settlement/settlement.py",
        "    return Call(CREATE_EVENT, body=record.event_fallback_body or {}, options=options)",
        '    body = {**(record.event_fallback_body or {}), "idempotency_key": __import__("uuid").uuid4().hex}\n'
        "    return Call(CREATE_EVENT, body=body, options=options)",
    ),
    Fault(
        "the event charges the estimate",
        "cycles/_core/settlement/settlement.py",
        '"actual": commit["actual"]}\n    if "metrics"',
        '"actual": {**commit["actual"], "amount": 100}}\n    if "metrics"',
    ),
    Fault(
        "a timeout counts as settled",
        "cycles/_core/settlement/rules.py",
        "    if not isinstance(outcome, RejectedResponse):\n        return Unresolved(outcome)",
        "    if not isinstance(outcome, RejectedResponse):\n"
        '        return Settled(Settlement(status="committed", actual=record.actual))',
    ),
    Fault(
        "a failing server counts as a rejection",
        "cycles/_core/settlement/rules.py",
        "    if outcome.understood:\n        return _rejected(outcome)",
        "    if outcome.understood or outcome.status >= 500:\n        return _rejected(outcome)",
    ),
    Fault(
        "an expired reservation has no event",
        "cycles/_core/settlement/rules.py",
        "        has_event = record.event_fallback_body is not None",
        "        has_event = False",
    ),
    Fault(
        "an amount of a lost reservation is dropped",
        "cycles/_core/settlement/rules.py",
        "        return _lost_reservation(record, response, now_ms, boot_ms)",
        '        return Settled(Settlement(status="committed", actual=record.actual))',
    ),
    Fault(
        "spend replaces the sum",
        "cycles/_flows/guard_state.py",
        "after = amount if before is None else before + amount",
        "after = amount",
    ),
    Fault(
        "known spend of a block that raised is released",
        "cycles/_core/settlement/lifecycle.py",
        'BlockEndRow(True, "yes", "any", "commit_spend")',
        'BlockEndRow(True, "yes", "any", "release_raised")',
    ),
    Fault(
        "two records share a file",
        "cycles/_core/settlement/record.py",
        "hashlib.sha256(reservation_id.encode('utf-8', 'surrogatepass')).hexdigest()",
        "'0' * 64",
    ),
    Fault(
        "a shadow guard is charged",
        "cycles/_flows/commit.py",
        "    if guard.sends_nothing:\n        return settle_shadow(io, guard, record.actual)\n",
        "",
    ),
    Fault(
        "records of an earlier process are not found",
        "cycles/_journal/files/record_files.py",
        '        entries = {name for name in names if name.endswith(".json")}',
        "        entries: set[str] = set()",
    ),
    Fault(
        "a detached guard forgets its spend",
        "cycles/_flows/transfer.py",
        "    guard.spent = serialized.spent",
        "    guard.spent = None",
    ),
    Fault(
        "a denial is an allowance",
        "cycles/_flows/reserve.py",
        '        if body["decision"] not in ALLOWING:',
        '        if body["decision"] is None:',
    ),
    Fault(
        "a decorated call commits its estimate",
        "cycles/_client/decorator.py",
        "        self._call_actual: Callable[..., Any] | None = None\n"
        "        self._needs_result = False\n"
        "        if callable(actual):",
        "        self._call_actual: Callable[..., Any] | None = None\n"
        "        self._needs_result = False\n"
        "        self._actual = None\n"
        "        if False:",
    ),
    Fault(
        "the ledger charges a repeated commit again",
        "cycles/embedded/ledger.py",
        '            replay = self._idempotency.replay("commit", reservation_id, request, now)\n'
        "            if replay is not None:\n                return replay\n            self._require_active(row)\n",
        "",
    ),
    Fault(
        "the ledger charges a repeated event again",
        "cycles/embedded/ledger.py",
        '            replay = self._idempotency.replay("event", tenant, request, now)',
        "            replay = None",
    ),
    Fault(
        "the ledger keeps the hold of a release",
        "cycles/embedded/ledger.py",
        "            returned = [budget.moved(reserved=-row.reserved) for budget in self._held(row)]\n"
        "            response",
        "            returned = [budget.moved(reserved=0) for budget in self._held(row)]\n            response",
    ),
    Fault(
        "the ledger keeps the hold of an expired reservation",
        "cycles/embedded/ledger.py",
        "            returned = [budget.moved(reserved=-record.reserved) for budget in self._held(record)]",
        "            returned = [budget.moved(reserved=0) for budget in self._held(record)]",
    ),
    Fault(
        "the ledger charges an event to one scope only",
        "cycles/embedded/ledger.py",
        '            budgeted = self._budgeted(derived, actual["unit"])\n            for budget in budgeted:\n'
        "                _require_usable(budget)\n                if policy",
        '            budgeted = self._budgeted(derived, actual["unit"])[-1:]\n            for budget in budgeted:\n'
        "                _require_usable(budget)\n                if policy",
    ),
    Fault(
        "a rejected amount is not kept",
        "cycles/_journal/journal.py",
        '            self._files.keep_rejected(name, {"reason": reason, "record": json.loads(content)})\n',
        "",
    ),
    Fault(
        "a reservation without a response runs unguarded",
        "cycles/_flows/reserve.py",
        '            if request.on_unavailable == "allow" and uncertain(outcome):',
        "            if uncertain(outcome):",
    ),
    Fault(
        "a cancelled commit is dropped",
        "cycles/_flows/commit.py",
        "settled, with the same key\n        finish_in_background(io, guard)",
        "settled, with the same key\n        pass",
    ),
    Fault(
        "the journal writer ignores its jobs",
        "cycles/_drivers/io/tasks.py",
        "        return await self._writer.put(record)",
        "        return PutResult.SAVED",
    ),
    # Spend that is written ahead, and the end of processes.
    Fault(
        "the spend of a token is not written ahead",
        "cycles/_drivers/runtime.py",
        "        if guard.known is not None:  # a token had it\n            self.ahead.spent(guard)\n",
        "",
    ),
    Fault(
        "the entry of a guard outlives its record",
        "cycles/_flows/settle.py",
        "    if result is PutResult.SAVED:\n        ahead.end()\n    elif",
        "    if",
    ),
    Fault(
        "entries of dead processes are not recovered",
        "cycles/_journal/files/spend.py",
        "for record in latest_records(entries):",
        "for record in latest_records([]):",
    ),
    Fault(
        "spend is written ahead every ten seconds",
        "cycles/_drivers/write_ahead.py",
        "INTERVAL_S: Final = 1.0",
        "INTERVAL_S: Final = 10.0",
    ),
    Fault(
        "usage with a callable actual is not written ahead",
        "cycles/_drivers/runtime.py",
        "    if guard is not None:\n        ahead.counted(guard)",
        "    if guard is None:\n        ahead.counted(guard)",
    ),
    Fault(
        "guards in use at exit are not ended",
        "cycles/_drivers/runtime.py",
        '        self.guards.end_all(self.pools.guards() if "pools" in self.__dict__ else [])\n',
        "",
    ),
    Fault(
        "a dropped guard is forgotten",
        "cycles/_drivers/runtime.py",
        "        self.background.ends.add(lambda _: end_later(self.blocking, guard, raised))",
        "        return",
    ),
    Fault(
        "a closed generator is forgotten",
        "cycles/_client/guard.py",
        "            self._runtime.end_later(self._state, raised)",
        "            return",
    ),
    # Power loss.
    Fault(
        "a record is not fsynced",
        "cycles/_journal/files/locked_file.py",
        "fill(file.descriptor, content, sync=sync)",
        "fill(file.descriptor, content, sync=False)",
    ),
    Fault(
        "a record in a file that is used again is not fsynced",
        "cycles/_journal/files/record_files.py",
        "fill(descriptor, rest, sync=self._sync)",
        "fill(descriptor, rest, sync=False)",
    ),
    Fault(
        "the folder of a record is not fsynced",
        "cycles/_journal/files/record_files.py",
        "            if self._sync:\n                sync_folder(folder)",
        "            if False:\n                sync_folder(folder)",
    ),
    # Age of records.
    Fault(
        "events are sent without regard to the age of their key",
        "cycles/_core/settlement/rules.py",
        "EVENT_KEY_MS: Final = 6 * _DAY_MS",
        "EVENT_KEY_MS: Final = 60 * _DAY_MS",
    ),
    # Responses that may come after an attempt that was received.
    Fault(
        "a mismatch after an unknown attempt counts as a rejection",
        "cycles/_core/settlement/rules.py",
        "    return found or is_known or is_commit_of_chunk",
        "    return False",
    ),
    Fault(
        "the excess of a commit is not kept",
        "cycles/_journal/records.py",
        "            self._reject(result.kept or record, result.reason)",
        "            self._reject(record, result.reason)",
    ),
    Fault(
        "the estimate is not charged when the excess is rejected",
        "cycles/_core/settlement/rules.py",
        '        amount = {"unit": actual.unit, "amount": estimate}',
        '        amount = {"unit": actual.unit, "amount": 0}',
    ),
    # Processes and tenants.
    Fault(
        "a forked child uses the runtime of its parent",
        "cycles/_client/client.py",
        "        if runtime is None or runtime.pid != os.getpid():\n            runtime = self._make_runtime()",
        "        if runtime is None:\n            runtime = self._make_runtime()",
    ),
    Fault(
        "all tenants share the records of a server",
        "cycles/_core/settlement/record.py",
        '    principal = f"tenant\\n{tenant}" if',
        "    principal = 'all' if",
    ),
    Fault(
        "a file that is no record is deleted",
        "cycles/_journal/files/record_files.py",
        "        self._calls.call(self.locate(), lambda _: os.replace(source, target))",
        "        os.unlink(self.path(name))",
    ),
    # What is open after close, and how long a call takes.
    Fault(
        "close leaves the threads of the scheduler",
        "cycles/_drivers/runtime.py",
        "        self.scheduler.close(THREADS_END_S)",
        "        pass",
    ),
    Fault(
        "close leaves the connections of threads",
        "cycles/_drivers/channel.py",
        "        for connections in self._threads.values():\n            connections.close()",
        "        for connections in self._threads.values():\n            connections",
    ),
    Fault(
        "a flush does not cut short the attempt in progress",
        "cycles/_drivers/work/queue.py",
        "        io = self._until(end)\n        self.ends",
        "        io = self._io\n        self.ends",
    ),
    Fault(
        "a create is sent four times",
        "cycles/_flows/reserve.py",
        "repeated(self.io, self._attempt, self.request.max_retries, outcome)",
        "repeated(self.io, self._attempt, self.request.max_retries + 2, outcome)",
    ),
    Fault(
        "finish deletes what was rejected",
        "cycles/_journal/records.py",
        "        self.journal.reject(record, reason)",
        "        self.journal.delete(record)",
    ),
    # A disk that fails between a commit and its event.
    Fault(
        "an event is sent although the disk keeps its commit",
        "cycles/_flows/settle.py",
        "    PutResult.HELD_BACK: Unresolved(_HELD_BACK, is_saved=False),\n",
        "",
        most=4000,  # a disk must fail between the two, and the lease must be over
    ),
    Fault(
        "the thread of the journal is woken once while several tasks are at work",
        "cycles/_drivers/journal/loop_writer.py",
        "        self._will_wake = False\n        self._writer.wake()",
        "        self._writer.wake()",
    ),
    # What callers get.
    Fault(
        "a guard can be ended twice",
        "cycles/_flows/guard_state.py",
        "                raise GuardFinalizedError(\n"
        '                    f"cannot {operation}: {self.name} already ended ({self.claimed}); nothing was sent"',
        "                str(\n"
        '                    f"cannot {operation}: {self.name} already ended ({self.claimed}); nothing was sent"',
    ),
    Fault(
        "caps are lost",
        "cycles/_client/guard_properties.py",
        "        return None if created is None else created.caps",
        "        return None if created is None else None",
    ),
    Fault(
        "the block's own exception is swallowed",
        "cycles/_flows/block_end.py",
        "            if raised is None:\n                raise\n",
        "            if raised is not None:\n                raise\n",
    ),
    Fault(
        "the work of a key runs again while its settlement is pending",
        "cycles/_flows/reserve.py",
        "        if pending is not None:\n"
        '            raise _not_again(self.key, reservation_id, f"has a pending commit of {pending.actual}")\n'
        "        if file_name(reservation_id) in self.unsettled:",
        "        if pending is None and not file_name(reservation_id):",
    ),
    Fault(
        "the log of spend stays open after its last guard has ended",
        "cycles/_journal/files/spend.py",
        "            if not (self._closed and _is_empty(file)):",
        "            if layout:",
    ),
    # The ledger.
    Fault(
        "the ledger charges a commit to the outer scope only",
        "cycles/embedded/ledger.py",
        "        return self._budgeted(row.budgeted, row.unit)",
        "        return self._budgeted(row.budgeted[:1], row.unit)",
    ),
    Fault(
        "a caller waits for a second attempt of its settlement",
        "cycles/_flows/settle.py",
        "    outcome, clock = await io.send(call_of(record, options)), io.clock\n",
        "    outcome, clock = await io.send(call_of(record, options)), io.clock\n"
        "    if type(outcome).__name__ != 'Success':\n"
        "        outcome = await io.send(call_of(record, options))\n",
    ),
)
