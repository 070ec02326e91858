"""Planted faults that only the features of swarms find: fleets, mapped memory, failing calls of a disk, proxies."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted_faults import Fault

FEATURE_FAULTS: Final = (
    Fault(
        "the bound of a request in flight is not written ahead",
        "cycles/_drivers/write_ahead.py",
        "            guard.sent += bound\n        self._write(guard, time.monotonic())",
        "            guard.sent += bound",
    ),
    Fault(
        "the bound of a request that is released stays written ahead",
        "cycles/_flows/guard_state.py",
        '        self.apply("release_started", if_accepted=True)\n        self.end_written_ahead()\n',
        '        self.apply("release_started", if_accepted=True)\n',
    ),
    Fault(
        "a store saves whatever fence it is given",
        "cycles/_journal/stores/memory.py",
        "        if (None if row is None else row.fence) != item.fence:\n",
        "        if False:\n",
        most=2_000,
    ),
    Fault(
        "nothing is saved on disk while the store does not respond",
        "cycles/_journal/stores/shared.py",
        '        saved = self._outage != "memory" and self.local.save(record)\n',
        "        saved = True\n",
        most=2_000,
    ),
    Fault(
        "what a dead worker left in the store is never taken",
        "cycles/_journal/stores/shared.py",
        "                taken = self._store.take(limit, self.claim_ms)\n",
        "                taken: list[Stored] = []\n",
        most=1_000,
    ),
    Fault(
        "what the store has lost is not put again",
        "cycles/_journal/stores/shared.py",
        "                    self._put(key, lost.record, claim_ms)  # finds",
        "                    pass  # finds",
        most=4_000,
    ),
    Fault(
        "what was saved during an outage never moves into the store",
        "cycles/_journal/stores/shared.py",
        "            self._move_own(self.claim_ms)\n",
        "            pass\n",
        most=2_000,
    ),
    Fault(
        "the rest of a chunk that another worker has claimed is dropped",
        "cycles/_flows/settle.py",
        "    rest = None if theirs is None else late_record(record, sum_of(theirs), io.clock.wall_ms())\n",
        "    rest = None\n",
        most=4_000,
    ),
    Fault(
        "a file that moves into the store is forgotten if the store has another form of it",
        "cycles/_journal/stores/shared.py",
        "                if guards_of(record) is not None:\n                    rest = theirs",
        "                if guards_of(record) is not None and theirs is None:\n                    rest = theirs",
        most=4_000,
    ),
    Fault(
        "the flag of a slot of the spend log is set before its record is copied",
        "cycles/_journal/files/spend.py",
        "                memory[start : start + length] = entry\n                memory[index] = half\n",
        "                memory[index] = half\n                memory[start : start + length] = entry\n",
        most=4_000,
    ),
    Fault(
        "a new sum of a chunk overwrites the half that is valid",
        "cycles/_journal/files/chunk_cells.py",
        "        begin = self._start + HALF * index\n",
        "        begin = self._start\n",
        most=4_000,
    ),
    Fault(
        "a record is saved although the disk did not take all of it",
        "cycles/_journal/files/file_calls.py",
        "        content = content[os.write(handle, content) :]\n",
        '        content = content[os.write(handle, content) :] and b""\n',
        most=2_000,
        disks=True,
    ),
    Fault(
        "a file that cannot be renamed counts as saved",
        "cycles/_journal/files/record_files.py",
        "            os.replace(spare.path, path)\n"
        "        except BaseException:\n            spare.discard()\n            raise\n",
        "            os.replace(spare.path, path)\n        except BaseException:\n            pass\n",
        most=2_000,
        disks=True,
    ),
    Fault(
        "a settled record keeps its content if its file cannot be examined",
        "cycles/_journal/files/record_files.py",
        "            # Whatever fails now, a start must not take the spare for a record that was saved.\n",
        "            try:\n                os.stat(spare.path)\n"
        "            except OSError:\n                return False\n",
        most=2_000,
        disks=True,
    ),
    Fault(
        "members of a newer version are dropped when a record is saved again",
        "cycles/_core/settlement/record.py",
        "    members |= record.extra\n",
        "    pass\n",
        most=2_000,
    ),
    Fault(
        "a record with members of a newer version is quarantined",
        "cycles/_core/settlement/record.py",
        "    if type(version) is not int or version != VERSION:\n",
        '    if type(version) is not int or version != VERSION or "priority" in members:\n',
        most=400,
    ),
    Fault(
        "a full log of spend is not followed by another one",
        "cycles/_journal/files/spend.py",
        "            except IndexError:\n                file,",
        "            except IndexError:\n                if self._files:\n                    return None\n"
        "                file,",
        most=1_000,
    ),
    Fault(
        "a key that is rejected for a while ends a settlement",
        "cycles/_core/protocol.py",
        '    "UNAUTHORIZED": ErrorCode(401, errors.UnauthorizedError, False,',
        '    "UNAUTHORIZED": ErrorCode(401, errors.UnauthorizedError, True,',
        most=1_000,
    ),
    Fault(
        "the bound of a call of a guarded client is not written ahead",
        "cycles/providers/_settle.py",
        "    call.runtime.ahead.sent(admitted.guard, admitted.amount.amount)\n",
        "",
        most=1_000,
    ),
    Fault(
        "a gateway's page with 410 means that the reservation has expired",
        "cycles/_core/messages/outcome.py",
        "(self.status == 410 and not self.is_page)",
        "(self.status == 410)",
        most=1_000,
    ),
    Fault(
        "a client that is closed leaves its background responses open",
        "cycles/_drivers/runtime.py",
        "        self.closed = True\n        self.guards.end_background()\n",
        "        self.closed = True\n",
        most=1_000,
    ),
    Fault(
        "a retrieved response is charged its estimate",
        "cycles/providers/_call.py",
        "            if end.response is not None:\n",
        "            if False:\n",
        most=400,
    ),
    Fault(
        "a key of a closed tenant ends a settlement",
        "cycles/_core/settlement/rules.py",
        "    # Final by the table of error codes. Everything else is tried again, however long it takes.\n",
        '    if outcome.message == "TENANT_CLOSED":\n        return Rejected(outcome, MAY_BE_CHARGED)\n',
    ),
    Fault(
        "a close counts nothing as pending that a rejected key left",
        "cycles/_drivers/work/queue.py",
        "len(self.unsettled()), quarantined, self._scan_finished)",
        "sum(key not in self._rejected for key in self.unsettled()), quarantined, self._scan_finished)",
    ),
    Fault(
        "a call whose task is cancelled counts as not sent",
        "cycles/providers/_call.py",
        "        lost = self._is_lost(raised)\n",
        "        lost = self._is_lost(raised) and isinstance(raised, Exception)\n",
        most=1_000,
    ),
    Fault(
        "the heartbeat of a guard continues after its settlement",
        "cycles/_flows/settle.py",
        "    if guard.own_heartbeat is not None:\n"
        "        guard.own_heartbeat.end()\n"
        "    if isinstance(result, Settled):\n",
        "    if isinstance(result, Settled):\n",
    ),
    Fault(
        "the queue tries a settlement before its Retry-After is over",
        "cycles/_drivers/work/queue.py",
        "        floor = time.monotonic() + wait_s if wait_s > 0 else 0.0\n",
        "        floor = 0.0\n",
    ),
    Fault(
        "an extend has the key of one that has succeeded",
        "cycles/_flows/heartbeat_state.py",
        "            if step.fresh_key or not self.key:\n",
        "            if not self.key:\n",
    ),
    Fault(
        "a pool denies a guard that its limit has exactly the space for",
        "cycles/_flows/pool/pool.py",
        "        if used + estimate <= limit:\n",
        "        if used + estimate < limit:\n",
    ),
    Fault(
        "a commit that does not wait is sent when it would be sent again",
        "cycles/_drivers/work/queue.py",
        "        due = time.monotonic() + (0.0 if now else self._config.retry_initial_delay)\n",
        "        due = time.monotonic() + self._config.retry_initial_delay\n",
        most=1_000,
    ),
)
