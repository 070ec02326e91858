"""The parts of a simulated fleet beside its workers: the clock, the server, the disks and the store."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._errors import StoreError
from cycles._journal.journal import Entry
from cycles._journal.stores.memory import MemoryStore


class Broken(AssertionError):
    """An invariant does not hold."""


@define
class Clock:
    """The time of all machines; only the simulation moves it."""

    ms: int = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


@define
class Ledger:
    """A server: keys are charged once. A record's reservation may be over; then only an event settles it."""

    up: bool = True
    charged: dict[str, int] = field(factory=dict)
    expired: set[str] = field(factory=set)
    bodies: dict[str, tuple[str, int]] = field(factory=dict)

    def send(self, record: Record) -> str:
        """Return `ok` or `expired`, or raise ConnectionError."""
        if not self.up:
            raise ConnectionError
        key, amount = record.body["idempotency_key"], record.body["actual"]["amount"]
        if record.mode == "commit" and record.reservation_id in self.expired and key not in self.charged:
            return "expired"
        known = self.charged.setdefault(key, amount)
        if known != amount:
            raise Broken(f"{key} was charged with {known} and sent with {amount}")
        self.bodies[key] = (record.mode, amount)
        return "ok"


class Disk:
    """The files of a worker, as `StoreJournal` uses them."""

    def __init__(self) -> None:
        self.records: dict[Entry, bytes] = {}
        self.quarantined = 0
        self.directory = "disk"

    def save(self, record: Record) -> bool:
        self.records[Entry(file_name(record.reservation_id))] = encode(record)
        return True

    def keeps_commit(self, record: Record) -> bool:
        return False  # this disk takes every record

    def delete_again(self, record: Record) -> None:
        """Delete nothing: this disk has deleted each commit at once."""

    def put(self, record: Record) -> PutResult:
        return PutResult.SAVED if self.save(record) else PutResult.FAILED

    def reject(self, record: Record, reason: str) -> None:
        raise Broken(f"{record.reservation_id} was rejected: {reason}")

    def delete(self, record: Record) -> None:
        self.records.pop(Entry(file_name(record.reservation_id)), None)

    def load(self, entry: Entry) -> Record | None:
        raw = self.records.get(entry)
        return None if raw is None else decode(raw)

    def pending(self) -> list[Entry]:
        return list(self.records)


class Store(MemoryStore):
    """A store in memory that fails when the simulation says so, also after it has done what was asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.wall_ms)
        self.lose_responses = False

    def _answered(self, result: Any) -> Any:
        if self.lose_responses:
            raise StoreError("the response was lost")
        return result

    def put(self, items: Any) -> Any:
        return self._answered(super().put(items))

    def get(self, keys: Any) -> Any:
        return self._answered(super().get(keys))

    def take(self, limit: int, claim_ms: int) -> Any:
        return self._answered(super().take(limit, claim_ms))

    def delete(self, items: Any) -> None:
        self._answered(super().delete(items))

    def list(self, after: str = "", limit: int = 1_000, kept: Any = None) -> Any:
        return self._answered(super().list(after, limit, kept))

    def renew(self, items: Any, claim_ms: int) -> Any:
        return self._answered(super().renew(items, claim_ms))
