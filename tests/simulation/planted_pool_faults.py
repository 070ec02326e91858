"""Planted faults of pools and of commits that do not wait. `planted.py` runs them."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted_faults import Fault

POOL_FAULTS: Final = (
    Fault(
        "the excess of a pooled guard is not settled",
        "cycles/_flows/pool_guard.py",
        "                    await self._settle_separately(io, separate, given, {**labels, **settlement_metadata})\n",
        "                    pass\n",
    ),
    Fault(
        "the slot of a pooled guard is not synced",
        "cycles/_flows/pool_guard.py",
        "                await sync_slot(io, self)\n",
        "                pass\n",
    ),
    Fault(
        "the amount of a sealed chunk's guard is dropped",
        "cycles/_flows/pool_guard.py",
        "                return Separate(amount, is_all=True)\n",
        "                return None\n",
    ),
    Fault(
        "a chunk is committed for what its guards held, not for what they spent",
        "cycles/_core/allotment.py",
        "        self.spent += taken\n",
        "        self.spent += estimate\n",
    ),
    Fault(
        "a slot is written without its first byte",
        "cycles/_journal/pool_log.py",
        "        memory[position] = WRITTEN\n",
        "        memory[position] = 0\n",
    ),
    Fault(
        "the log of a dead process is removed without its record",
        "cycles/_journal/pool_recovery.py",
        "    is_saved = record is None or files.has(file_name(header.reservation_id))\n",
        "    is_saved = True\n",
    ),
    Fault(
        "chunks stay when their client closes",
        "cycles/_flows/pool_chunks.py",
        "            left.append((record, chunk.lease))\n",
        "            pass\n",
    ),
    Fault(
        "hand_over drops what a loop is to settle",
        "cycles/_drivers/work/queue.py",
        "            item = self._add(work, now=now, lane=lane)\n",
        "            if lane is not None:\n                return True\n            item = self._add(work, now=now)\n",
    ),
    Fault(
        "a queued settlement is counted as done before it is sent",
        "cycles/_drivers/work/queue.py",
        "            step = await attempt(io, self._records, item)\n",
        "            step: Step = Done(settled=True)\n",
    ),
    Fault(
        "a loop that ends drops the queued commit that it sends",
        "cycles/_drivers/work/queue.py",
        "                self._schedule.interrupted(item, time.monotonic())\n",
        "                self._schedule.drop(item)\n",
    ),
)
