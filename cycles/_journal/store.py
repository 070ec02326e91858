"""The protocol of a journal store: where records are kept, in files or in a database that several machines share.

A store keeps bytes under keys. It decides nothing about records: the journal does. Exactly once comes from the server's
idempotency keys; a claim only keeps two workers from doing the same work.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, runtime_checkable

from attrs import frozen

from cycles._config import Durability
from cycles._errors import StoreError as StoreError

POISON_CLAIMS: Final = 10
"""So many claims without the end of an attempt: the record stops each process that claims it, and is quarantined."""
POISON_REASON: Final = f"poison: claimed {POISON_CLAIMS} times, and no attempt ended"

SETTLED_KEPT_MS: Final = 30 * 86_400_000
"""How long a rejected record stays after an operator has settled it."""


@frozen
class Put:
    """A record to save.

    Attributes:
        key: The 64 hex digits of its file name (`file_name` in `_core/records.py`).
        record: Its bytes, kept unchanged.
        fence: Save it only if the stored record has this fence; None: insert or replace.
        due_ms: Milliseconds until another worker may claim it.
    """

    key: str
    record: bytes
    fence: int | None = None
    due_ms: int = 0


@frozen
class Claimed:
    """A record that now belongs to this client. `fence` counts the claims of its key and only grows."""

    key: str
    record: bytes
    fence: int


@frozen
class Stored:
    """A record in the store. `due_ms` is the time on the store's clock when it may be claimed."""

    key: str
    record: bytes
    due_ms: int
    fence: int


@frozen
class Kept:
    """A record that is never claimed: the server has rejected its amount, or it is quarantined.

    Attributes:
        at_ms: When that was, in milliseconds since the epoch on the store's clock; 0 if it is unknown.
        settled_at_ms: When an operator settled a rejected amount, in milliseconds since the epoch.
    """

    key: str
    record: bytes
    reason: str
    state: Literal["rejected", "quarantined"]
    at_ms: int = 0
    settled_at_ms: int | None = None


class JournalStore(Protocol):
    """Keeps the records of one partition. Blocking; called from threads, never on an event loop.

    Every operation raises `StoreError` and nothing else.
    """

    def put(self, items: Sequence[Put]) -> builtins.list[bool]:
        """Save records; False for each one whose fence another client has changed."""
        ...

    def settle(self, keys: Sequence[str]) -> None:
        """Delete finished records; unknown keys are ignored."""
        ...

    def claim(self, limit: int, claim_ms: int) -> builtins.list[Claimed]:
        """Return at most `limit` due records, which belong to this client for `claim_ms` milliseconds."""
        ...

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys, and None for each one that the store does not have to settle."""
        ...

    def renew(self, keys: Sequence[str], claim_ms: int) -> builtins.list[str]:
        """Keep claims for `claim_ms` milliseconds more. Returns the keys that no longer exist."""
        ...

    def list(self, limit: int = 1000) -> builtins.list[Stored]:
        """Return at most `limit` records, without claiming them."""
        ...

    def quarantine(self, key: str, reason: str) -> None:
        """Keep a record that no client can read, and never return it from `claim` again."""
        ...

    def reject(self, key: str, reason: str) -> None:
        """Keep a record that the server rejected, and never return it from `claim` again."""
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


@runtime_checkable
class BindableStore(Protocol):
    """A store that several servers and principals share: a client uses the part that `bind` returns."""

    def bind(self, partition: str, *, durability: Durability, timeout_s: float) -> JournalStore:
        """Return the store of one partition. `timeout_s` bounds each operation, in seconds."""
        ...


@runtime_checkable
class OperatedStore(Protocol):
    """What a store may have in addition, for the command line and for what a client reports at its start."""

    def kept(self, limit: int = 1000) -> list[Kept]:
        """Return records that are rejected or quarantined."""
        ...

    def restore(self, key: str) -> bool:
        """Let a rejected or quarantined record be claimed again, with no claims counted. False: there is none."""
        ...

    def discard(self, key: str) -> None:
        """Delete a record in any state."""
        ...

    def problems(self) -> list[str]:
        """Return what in the configuration of the database can lose records, one sentence each."""
        ...


@runtime_checkable
class SettledStore(Protocol):
    """What a store may have in addition, to keep a rejected record for a time after an operator has settled it."""

    def keep_settled(self, kept: Kept) -> bool:
        """Keep a rejected record that is settled. False: the store has a record under its key, which is unchanged."""
        ...

    def remove_settled(self, before_ms: int) -> None:
        """Delete what was settled by hand before a time, in milliseconds since the epoch."""
        ...


StoreFactory = Callable[[], JournalStore]
