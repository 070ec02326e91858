"""The cell of a chunk as bytes: two halves, each with a serial number, the totals and a checksum.

A new state replaces the older half. The other one stays whole, so a process that dies during the copy leaves the state
before. Each state counts one call more than the state before, so the number of calls is the serial number. Both halves
are in one sector, which a disk writes as a whole.
"""

from __future__ import annotations

from binascii import crc32
from struct import Struct, error as StructError
from typing import Final

from cycles._core.pool.sums import Totals

SECTOR: Final = 512  # a cell begins at a multiple of it
HALF: Final = SECTOR // 2
_UINT64_MAX: Final = 2**64 - 1
_NUMBERS: Final = Struct(">6Q")
_CHECK: Final = Struct(">I")


def encode(totals: Totals) -> bytes:
    """Return the bytes of a half. Counts that do not fit are the largest that fits; `spent` fits always."""
    try:
        numbers = _NUMBERS.pack(*totals)
    except StructError:
        numbers = _NUMBERS.pack(*(min(number, _UINT64_MAX) for number in totals))
    return numbers + _CHECK.pack(crc32(numbers))


def start(calls: int) -> int:
    """Return where the half of a state begins within the cell."""
    return HALF * (calls % 2)


def decode(cell: bytes) -> Totals:
    """Return the latest state of a cell; zeros if no guard has ended."""
    found = [Totals()]
    for begin in (0, HALF):
        numbers = cell[begin : begin + _NUMBERS.size]
        check = cell[begin + _NUMBERS.size : begin + _NUMBERS.size + _CHECK.size]
        if len(check) == _CHECK.size and _CHECK.pack(crc32(numbers)) == check:
            found.append(Totals(*_NUMBERS.unpack(numbers)))
    return max(found, key=lambda totals: totals.calls)
