"""What a chunk counts: as immutable values, as the bytes of its cell, and as the audit of its commit.

Each change of a chunk is one store of a new value.

The cell has two halves, each with a serial number, the totals and a checksum. A new state replaces the older half. The
other one stays whole, so a process that dies during the copy leaves the state before. Each state counts one change
more than the state before: the serial number. Both halves are in one sector, which a disk writes as a whole. Cells of
version 2 have no `ahead`, and their serial number is the number of calls.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct, error as StructError
from typing import Any, Final, NamedTuple

from attrs import define, field

from cycles._core.amounts import INT64_MAX

SECTOR: Final = 512  # a cell begins at a multiple of it
HALF: Final = SECTOR // 2
_UINT64_MAX: Final = 2**64 - 1
_NUMBERS: Final = Struct(">8Q")
_WITHOUT_AHEAD: Final = Struct(">6Q")
_CHECK: Final = Struct(">I")

METRIC_MAX: Final = 2**31 - 1  # of the protocol's token counts; `custom` has the exact sums
ACTIONS: Final = 20  # of one commit: the biggest ones
METADATA_BYTES: Final = 4_096
_MIXED: Final = object()

_new: Final = tuple.__new__  # half of the time of a call of the class: these are on the way of every pooled guard


class Totals(NamedTuple):
    """Sums over the guards that ended with an amount: what the cell of the chunk keeps, and its commit sends.

    Attributes:
        ahead: The known spend of live guards: it is charged if the process is killed, and never sent otherwise.
        changes: How many states there were before.
    """

    spent: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    latency_ms: int = 0
    calls: int = 0
    errors: int = 0
    ahead: int = 0
    changes: int = 0

    def with_ahead(self, more: int) -> Totals:
        """Return the state in which the known spend of live guards has grown, or shrunk."""
        return self._replace(ahead=self.ahead + more, changes=self.changes + 1)


class End(NamedTuple):
    """The end of one guard with an amount, as it is counted in a chunk.

    Attributes:
        guard: The guard.
        settlement: What it gets.
        action: The name of its action.
        of_action: Calls and amount of that action in this chunk, with this end.
        model: The model that it used, or None.
        ended_ms: Milliseconds since the epoch.
    """

    guard: Any
    settlement: Any
    action: str
    of_action: tuple[int, int]
    model: str | None
    ended_ms: int


new_end: Final[Callable[[tuple[Any, Any, str, tuple[int, int], str | None, int]], End]] = partial(_new, End)


class Sums(NamedTuple):
    """The state of one chunk: `totals.spent` + `live` + `free` is its amount until it is sealed.

    Attributes:
        free: What it can still admit.
        live: The estimates of its live guards.
        guards: How many of them there are.
        totals: What ended guards have spent.
        last: The latest end with an amount.
    """

    free: int
    live: int = 0
    guards: int = 0
    totals: Totals = Totals()
    last: End | None = None

    def admitted(self, estimate: int) -> Sums:
        """Admit a guard."""
        free, live, guards, totals, last = self
        return _new(Sums, (free - estimate, live + estimate, guards + 1, totals, last))

    def released(self, estimate: int, ahead: int = 0, *, is_sealed: bool = False) -> Sums:
        """End a guard without an amount here. A sealed chunk holds nothing for it, and its totals change no more."""
        free = self.free if is_sealed else self.free + estimate
        live, totals = self.live - estimate, self.totals.with_ahead(-ahead) if ahead and not is_sealed else self.totals
        return Sums(free, live, self.guards - 1, totals, self.last)

    def ended(self, held: int, ahead: int, amount: int, used: Any, latency_ms: int, end: End, *, failed: bool) -> Sums:
        """End a guard with an amount.

        Args:
            held: What is live for it.
            ahead: What is written ahead for it.
            amount: What the chunk takes; it fits.
            used: Its metrics, or its usage, or None.
            latency_ms: How long it took.
            end: What is noted of it.
            failed: Whether its block raised an exception.
        """
        free, live, guards, (spent, tokens_in, tokens_out, latency, calls, errors, all_ahead, changes), _ = self
        if used is not None:
            tokens_in, tokens_out = tokens_in + (used.tokens_input or 0), tokens_out + (used.tokens_output or 0)
        sums = (spent + amount, tokens_in, tokens_out, latency + latency_ms, calls + 1, errors + failed)
        totals = _new(Totals, (*sums, all_ahead - ahead, changes + 1))
        return _new(Sums, (free + held - amount, live - held, guards - 1, totals, end))


def encode(totals: Totals) -> bytes:
    """Return the bytes of a half. Counts that do not fit are the largest that fits; `spent` fits always."""
    try:
        numbers = _NUMBERS.pack(*totals)
    # A count beyond 64 bits must not keep the amount from being written.
    except StructError:
        numbers = _NUMBERS.pack(*(min(number, _UINT64_MAX) for number in totals))
    return numbers + _CHECK.pack(crc32(numbers))


def decode(cell: bytes, *, has_ahead: bool = True) -> Totals:
    """Return the latest state of a cell; zeros if no guard has spent.

    Args:
        cell: Its bytes.
        has_ahead: False for a cell of version 2.
    """
    form = _NUMBERS if has_ahead else _WITHOUT_AHEAD
    found = [Totals()]
    for begin in (0, HALF):
        numbers = cell[begin : begin + form.size]
        check = cell[begin + form.size : begin + form.size + _CHECK.size]
        if len(check) == _CHECK.size and _CHECK.pack(crc32(numbers)) == check:
            found.append(Totals(*form.unpack(numbers)))
    return max(found, key=lambda totals: totals.changes if has_ahead else totals.calls)


@define(eq=False)
class ChunkAudit:
    """What the guards of one chunk did, for the audit of the server. No amount depends on it."""

    released: int = 0
    model: Any = None  # that of all guards; `_MIXED` if they differ
    actions: dict[str, tuple[int, int]] = field(factory=dict)
    first_ms: int | None = None
    last_ms: int | None = None

    def note(self, end: End) -> None:
        """Note the end of a guard. A second call changes nothing."""
        self.actions[end.action] = end.of_action
        self.last_ms = end.ended_ms
        if self.first_ms is None:
            self.first_ms = end.ended_ms
        if end.model is not None:
            self.model = end.model if self.model in (None, end.model) else _MIXED

    def metrics(self, totals: Totals) -> dict[str, Any]:
        """Return the metrics of the commit."""
        model = None if self.model is _MIXED else self.model
        return summed_metrics(totals, released=self.released, model=model)

    def metadata(self, calls: int, of_chunk: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of the commit: that of the chunk and the biggest actions, as many as fit into 4 KiB."""
        # An audit needs the largest amounts; the sum of all is exact in any case.
        biggest = sorted(self.actions.items(), key=lambda item: -item[1][1])[:ACTIONS]
        sums = {"pool_calls": calls, "first_ms": self.first_ms, "last_ms": self.last_ms}
        metadata = {**of_chunk, **{name: value for name, value in sums.items() if value is not None}}
        # The server limits metadata to 4 KiB: the smallest actions are left out first.
        while biggest:
            metadata["actions"] = dict(biggest)
            if len(json.dumps(metadata)) <= METADATA_BYTES:
                break
            biggest.pop()
            del metadata["actions"]
        return metadata


def summed_metrics(totals: Totals, *, released: int, model: str | None) -> dict[str, Any]:
    """Return the metrics of the commit of a chunk: sums over its guards. Sums of latencies are in `custom` only."""
    exact = {
        "pool_calls": totals.calls,
        "pool_released": released,
        "pool_errors": totals.errors,
        "pool_latency_ms": totals.latency_ms,
        "tokens_input": totals.tokens_input,
        "tokens_output": totals.tokens_output,
    }
    metrics: dict[str, Any] = {"custom": {name: min(value, INT64_MAX) for name, value in exact.items()}}
    if totals.tokens_input or totals.tokens_output:
        metrics["tokens_input"] = min(totals.tokens_input, METRIC_MAX)
        metrics["tokens_output"] = min(totals.tokens_output, METRIC_MAX)
    if model is not None:
        metrics["model_version"] = model
    return metrics
