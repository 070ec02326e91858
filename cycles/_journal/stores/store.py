"""The protocol of a journal store, which keeps the records of several machines. It compares and sets.

A store keeps bytes under keys. It decides nothing about records: the journal does. Each record has a fence, an opaque
string that is never used twice: a put or a delete that arrives late, or after a failover, changes nothing. Exactly
once comes from the server's idempotency keys; a take only keeps two workers from doing the same work.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from attrs import evolve, frozen

from cycles._config import Durability
from cycles._core.settlement.record import Record, RecordError, decode, encode
from cycles._errors import ConfigurationError, StoreError as StoreError
from cycles._journal.files.record_files import SETTLED_KEPT_MS

POISON_TAKES: Final = 10
"""So many takes without a put: the record stops each process that takes it, and is quarantined."""

PAGE: Final = 1_000
"""Records of one `list`; no operation reads more than a page."""

KeptState: TypeAlias = Literal["rejected", "quarantined"]
KEPT: Final[dict[str, KeptState | None]] = {"": None, "rejected": "rejected", "quarantined": "quarantined"}
"""The words of databases, which have an empty one in place of None."""

Owned: TypeAlias = tuple[str, str]
"""A key, and the fence that this client knows of its record."""


@frozen
class Put:
    """A record to save.

    Attributes:
        key: The 64 hex digits of its file name (`file_name` in `_core/settlement/record.py`).
        record: Its bytes, kept unchanged.
        fence: Replace only the record that has this fence; None: save it only if no record has the key.
        due_ms: Milliseconds until another worker may take it.
        kept: A record that is never taken: the server has ``rejected`` its amount, or it is ``quarantined``.
    """

    key: str
    record: bytes
    fence: str | None = None
    due_ms: int = 0
    kept: KeptState | None = None


@frozen
class Stored:
    """A record in the store. `due_ms` is the time on the store's clock when it may be taken; `kept` as in `Put`."""

    key: str
    record: bytes
    fence: str
    due_ms: int
    kept: KeptState | None = None


class JournalStore(Protocol):
    """Keeps the records of one partition. Blocking; called from threads, never on an event loop.

    Every operation raises `StoreError` and nothing else. After it, the outcome of the operation is unknown.
    """

    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        """Save records. Returns the new fence of each one; None: the store has another fence, and nothing changed."""
        ...

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys, also kept ones; None for each key without a record."""
        ...

    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        """Return at most `limit` due records, each with a new fence; no other client gets them for `claim_ms`.

        A record that was taken ten times without a put is quarantined and not returned.
        """
        ...

    def renew(self, items: Sequence[Owned], claim_ms: int) -> builtins.list[str]:
        """Keep records for `claim_ms` milliseconds more. Returns the keys that another client has, or none."""
        ...

    def delete(self, items: Sequence[Owned]) -> None:
        """Delete records that have these fences; nothing happens to others."""
        ...

    def list(self, after: str = "", limit: int = PAGE, kept: KeptState | None = None) -> builtins.list[Stored]:
        """Return the next records in the order of their keys: those with this `kept`, after a key, a page at most."""
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
class CheckedStore(Protocol):
    """A store that can say what in its configuration loses records; a client reports that at its start."""

    def problems(self) -> list[str]:
        """Return what in the configuration of the database can lose records, one sentence each."""
        ...


StoreFactory = Callable[[], JournalStore]


def package(module: str, advice: str) -> Any:
    """Return a module of the database's package, which is imported only if a store needs it.

    Raises:
        ConfigurationError: it is not installed. `advice` ends the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise ConfigurationError(f"journal_store needs the package {name}: it is not installed{advice}") from None


def new_fence() -> str:
    """Return a fence that no other put or take has."""
    return os.urandom(12).hex()


def pages(store: JournalStore, kept: KeptState | None = None) -> Iterator[Stored]:
    """Yield all records with this `kept`, read page by page.

    Raises:
        StoreError: the store does not respond.
    """
    after = ""
    while found := store.list(after, PAGE, kept):
        yield from found
        after = found[-1].key


def without_parameter(url: str, name: str) -> tuple[str, str | None]:
    """Return a URL without a parameter of our own, which the package of the database rejects, and its last value."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    values = [value for each, value in query if each == name]
    if "://" not in url or not values:  # a connection string of libpq; and a URL without it stays as it is written
        return url, None
    return urlunsplit(parts._replace(query=urlencode([each for each in query if each[0] != name]))), values[-1]


def decoded(raw: bytes) -> Record | None:
    """Return a record as a value; None if this release cannot read it."""
    with contextlib.suppress(RecordError):
        return decode(raw)
    return None


def with_reason(raw: bytes, reason: str) -> bytes:
    """Return a record that the server rejected, with the reason; one that cannot be read is unchanged."""
    record = decoded(raw)
    return raw if record is None else encode(evolve(record, rejected=reason))


def settled_by_hand(key: str, rejected: bytes, since_ms: int) -> Put:
    """Return the put of a rejected record that an operator has settled at a time, in milliseconds from now."""
    record = decoded(rejected)
    raw = rejected if record is None else encode(evolve(record, settled=record.actual.amount))
    return Put(key, raw, None, max(0, SETTLED_KEPT_MS + since_ms))
