"""The scripts of `RedisStore` on a Redis, over a client of a few lines: the package `redis` is not needed.

Without a program `redis-server` they are skipped; `make test-stores` installs it.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cycles._journal.stores.check import check_store
from cycles._journal.stores.redis import RedisStore
from cycles._journal.stores.store import POISON_TAKES, Put
from tests.stores.servers import program
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.skipif(program("redis-server") is None, reason="make test-stores installs redis-server")

LONG_MS = 600_000


class RedisError(Exception):
    pass


class NoScriptError(RedisError):
    pass


class MovedError(RedisError):
    pass


class Client:
    """Sends each method as the command of its name, and returns the response."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self.command, name)

    def script_load(self, text: str) -> Any:
        return self.command("script", "load", text)

    def command(self, *words: Any) -> Any:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        with self._lock:
            self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
            return self._response()

    def _response(self) -> Any:
        line = self._file.readline()
        kind, text = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise (NoScriptError if text.startswith("NOSCRIPT") else RedisError)(text)
        if kind == b"$":
            return None if text == "-1" else self._file.read(int(text) + 2)[:-2]
        if kind == b"*":
            return [self._response() for _ in range(int(text))]
        return int(text) if kind == b":" else text

    def end(self) -> None:
        self._file.close()
        self._socket.close()


def accepts(path: Path) -> bool:
    """Return whether a server accepts connections at this path."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # short: the path of a socket has 107 bytes
        path = Path(folder) / "s"
        words = [str(program("redis-server")), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            until(lambda: accepts(path))  # the path exists before the server accepts
            yield path
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def client(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Client]]:
    """Returns a function that connects to an empty Redis."""
    module = ModuleType("redis")
    errors = {"RedisError": RedisError, "NoScriptError": NoScriptError, "MovedError": MovedError}
    module.exceptions = SimpleNamespace(**errors, RedisClusterException=RedisError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "redis", module)
    with contextlib.ExitStack() as ended:

        def connect() -> Client:
            made = Client(path)
            ended.callback(made.end)
            return made

        connect().flushall()
        yield connect


@pytest.fixture
def store(client: Callable[[], Client]) -> RedisStore:
    return RedisStore(client(), partition="p")


def test_a_redis_passes_the_checks_of_stores_and_keeps_nothing_of_them(client: Callable[[], Client]) -> None:
    # One partition for all checks, so that what one of them leaves behind breaks another one.
    assert len(check_store(lambda: RedisStore(client(), partition="p"))) == 13
    assert client().keys("*") == []


def states(store: RedisStore) -> dict[str, list[str]]:
    kinds: dict[str, Any] = {"live": None, "rejected": "rejected", "quarantined": "quarantined"}
    return {name: [each.key for each in store.list(kept=kept)] for name, kept in kinds.items()}


@pytest.mark.parametrize("kept", ["rejected", "quarantined"])
def test_a_record_is_in_the_list_of_its_state_only(store: RedisStore, kept: Any) -> None:
    (fence,) = store.put([Put("a", b"1")])
    store.put([Put("b", b"2")])
    other: Any = {"rejected": "quarantined", "quarantined": "rejected"}[kept]
    (fence,) = store.put([Put("a", b"1", fence, 0, kept)])
    assert states(store) == {"live": ["b"], kept: ["a"], other: []}
    before = store.get(["a"])
    assert store.renew([("a", str(fence))], LONG_MS) == [], "a kept record has no due time to renew"
    assert store.get(["a"]) == before
    assert [each.key for each in store.take(9, LONG_MS)] == ["b"]
    (fence,) = store.put([Put("a", b"1", fence, 0, other)])
    assert states(store) == {"live": ["b"], kept: [], other: ["a"]}
    (fence,) = store.put([Put("a", b"1", fence)])
    assert states(store) == {"live": ["a", "b"], kept: [], other: []}
    assert [each.key for each in store.take(9, LONG_MS)] == ["a"]


def test_times_are_on_the_clock_of_the_server_and_in_milliseconds(store: RedisStore) -> None:
    begin_ms = time.time_ns() // 1_000_000
    (fence,) = store.put([Put("a", b"1", None, 1_000_000)])
    store.put([Put("b", b"2", None, 0)])
    (taken,) = store.take(9, 2_000_000)
    assert store.renew([("a", str(fence))], 3_000_000) == []
    found = {each.key: each.due_ms for each in store.get(["a", "b"]) if each is not None}
    listed = {each.key: each.due_ms for each in store.list()}
    end_ms = time.time_ns() // 1_000_000
    assert found == listed == {**found, "b": taken.due_ms}
    assert begin_ms <= found["a"] - 3_000_000 <= end_ms
    assert begin_ms <= found["b"] - 2_000_000 <= end_ms


def test_the_client_that_took_a_poison_record_last_cannot_bring_it_back(store: RedisStore) -> None:
    store.put([Put("a", b"1")])
    fences = []
    for _ in range(POISON_TAKES):
        fences += [taken.fence for taken in store.take(9, LONG_MS)]
        assert store.renew([("a", fences[-1])], 0) == [], "a renewal does not count from 0"
    assert len(set(fences)) == POISON_TAKES
    assert store.take(9, 0) == []
    assert states(store)["quarantined"] == ["a"]
    assert store.put([Put("a", b"2", fences[-1])]) == [None]
    assert store.renew([("a", fences[-1])], 0) == ["a"]
    (found,) = store.get(["a"])
    assert found is not None
    (fence,) = store.put([Put("a", b"2", found.fence)])  # an operator lets it be taken again, counted from 0
    assert fence is not None
    assert len([taken for _ in range(POISON_TAKES) for taken in store.take(9, 0)]) == POISON_TAKES


def test_the_earliest_due_records_are_taken_first_each_with_its_fence(store: RedisStore) -> None:
    fences = store.put([Put(key, key.encode(), None, LONG_MS) for key in "abc"])
    for delay_ms, key, fence in zip((-3_000, -1_000, -2_000), "abc", map(str, fences), strict=True):
        assert store.renew([(key, fence)], delay_ms) == []
    first = store.take(2, LONG_MS)
    assert [(each.key, each.record) for each in first] == [("a", b"a"), ("c", b"c")]
    assert [each.key for each in store.take(2, LONG_MS)] == ["b"]
    assert [each and each.fence for each in store.get(["a", "c"])] == [each.fence for each in first]
    assert len({each.fence for each in first}) == 2


def test_a_put_that_is_sent_twice_is_recognized_and_changes_no_count(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._journal.stores.redis.new_fence", lambda: "f1")
    assert store.put([Put("a", b"1")]) == ["f1"]
    assert store.put([Put("a", b"1")]) == ["f1"], "redis-py has lost the response to the first one"
    monkeypatch.setattr("cycles._journal.stores.redis.new_fence", lambda: "f2")
    assert store.put([Put("a", b"2")]) == [None]
    assert [each.record for each in store.list()] == [b"1"]
