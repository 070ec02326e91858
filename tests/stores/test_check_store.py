"""Every store passes `check_store`, and a store that breaks a rule fails it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cycles._journal.file_store import FileStore
from cycles._journal.store import Claimed, JournalStore, Put
from cycles._journal.stores.check import check_store
from cycles._journal.stores.memory import MemoryStore
from tests.stores.servers import POSTGRES, REDIS


def made(url: str, durability: Any = "process") -> Callable[[], JournalStore]:
    """Return a factory of stores of one new partition."""
    partition = secrets.token_hex(8)
    if url.startswith("redis"):
        from cycles._journal.stores.redis import RedisStore

        return lambda: RedisStore(url, partition=partition, durability=durability, timeout_s=5.0)
    from cycles._journal.stores.postgres import PostgresStore

    return lambda: PostgresStore(url, partition=partition, durability=durability, timeout_s=5.0)


def test_the_memory_store_passes() -> None:
    shared = MemoryStore()
    assert len(check_store(lambda: shared.bind("p"))) == 11


def test_the_file_store_passes(tmp_path: Path) -> None:
    assert len(check_store(lambda: FileStore(tmp_path, lambda: "p", sync=False), exclusive_claims=False)) == 7


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("variable", [REDIS, POSTGRES])
def test_the_stores_of_a_fleet_pass(variable: str, durability: str) -> None:
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set: make test-stores starts the server")
    assert len(check_store(made(url, durability))) == 11


class _Broken(MemoryStore):
    """A store over the records of another one, which breaks one rule."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__()
        self._tables = shared._tables


class _Reencodes(_Broken):
    def put(self, items: Sequence[Put]) -> list[bool]:
        return super().put([Put(item.key, item.record.strip(), item.fence, item.due_ms) for item in items])


class _IgnoresFences(_Broken):
    def put(self, items: Sequence[Put]) -> list[bool]:
        return super().put([Put(item.key, item.record, None, item.due_ms) for item in items])


class _ForgetsToSettle(_Broken):
    def settle(self, keys: Sequence[str]) -> None:
        super().settle(keys[:1])


class _RenewsNothing(_Broken):
    def renew(self, keys: Sequence[str], claim_ms: int) -> list[str]:
        return []


class _ClaimsTwice(_Broken):
    def claim(self, limit: int, claim_ms: int) -> list[Claimed]:
        return super().claim(limit, 0)


class _ClaimsTooEarly(_Broken):
    def put(self, items: Sequence[Put]) -> list[bool]:
        return super().put([Put(item.key, item.record, item.fence, 0) for item in items])


class _KeepsNothing(_Broken):
    def reject(self, key: str, reason: str) -> None:
        self.settle([key])


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (_Reencodes, "bytes of a record unchanged"),
        (_IgnoresFences, "put returns False"),
        (_ForgetsToSettle, "settle deletes"),
        (_RenewsNothing, "renew returns the keys"),
        (_ClaimsTwice, "not claimed again"),
        (_ClaimsTooEarly, "not due"),
        (_KeepsNothing, "kept returns rejected"),
    ],
)
def test_a_broken_store_fails(broken: type[_Broken], rule: str) -> None:
    shared = MemoryStore()
    with pytest.raises(AssertionError, match=rule):
        check_store(lambda: broken(shared))
