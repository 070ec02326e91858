"""Planted faults of pools and of commits that do not wait. `planted.py` runs them."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted_faults import Fault

POOL_FAULTS: Final = (
    Fault(
        "the excess of a pooled guard is not settled",
        "cycles/_flows/pool/in_chunk.py",
        "                await self._settle_separately(io, guard, ending, separate)\n",
        "                pass\n",
    ),
    Fault(
        "the end of a pooled guard is not synced",
        "cycles/_flows/pool/in_chunk.py",
        "            await self._sync(io)\n",
        "            pass\n",
    ),
    Fault(
        "the amount of a sealed chunk's guard is dropped",
        "cycles/_flows/pool/in_chunk.py",
        "        pool.book, ending.separate = after_book, whole\n",
        "        pool.book = after_book\n",
    ),
    Fault(
        "a chunk is committed for what its guards held, not for what they spent",
        "cycles/_core/pool/sums.py",
        "(spent + amount, tokens_in,",
        "(spent + held, tokens_in,",
    ),
    Fault(
        "an end of a guard is not written into the cell of its chunk",
        "cycles/_flows/pool/pool.py",
        "            chunk.log.write(sums.totals)\n",
        "            pass\n",
    ),
    Fault(
        "the log of a dead process is removed without its record",
        "cycles/_journal/files/chunk_cells.py",
        "                if record is None or save(record):\n",
        "                if record is not None:\n",
    ),
    Fault(
        "what has left a chunk is not subtracted from its log",
        "cycles/_core/pool/chunk_record.py",
        "max(0, totals.ahead - moved_from(header.reservation_id))",
        "totals.ahead",
        most=1_000,
    ),
    Fault(
        "chunks stay when their client closes",
        "cycles/_flows/pool/chunks.py",
        "            left.append((record, chunk.lease))\n",
        "            pass\n",
    ),
    Fault(
        "hand_over drops what a loop is to settle",
        "cycles/_drivers/work/queue.py",
        "            item = self._add(key, work, now=now, loop=None if self._schedule.is_outage else loop)\n",
        "            if loop is not None:\n                return True\n"
        "            item = self._add(key, work, now=now)\n",
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
    Fault(
        "a waiter of a pool that a signal handler has served is removed again",
        "cycles/_flows/pool/pool.py",
        "        if sub.waiters and sub.waiters[0] is waiter:  # else a signal handler was faster\n",
        "        if waiter:\n",
        most=4_000,
    ),
)
