"""The protocol of a journal store: where records are kept, in files or in a database that several machines share.

A store keeps bytes under keys. It decides nothing about records: `Journal` does. Exactly once comes from the server's
idempotency keys; a claim only keeps two workers from doing the same work.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen


class StoreError(Exception):
    """An operation of a store failed; `__cause__` is what the file system or the database reported."""


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
