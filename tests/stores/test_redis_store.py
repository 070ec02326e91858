"""What `RedisStore` sends and how it reads responses, without a server and without its package."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import pytest

import cycles
from cycles._core.settlement.record import decode, encode
from cycles._errors import StoreError
from cycles._journal.open import open_store
from cycles._journal.stores.redis import RedisStore
from cycles._journal.stores.redis_scripts import SCRIPTS
from cycles._journal.stores.store import Put, Stored
from tests.journal.kit import a_record

DAY_MS = 86_400_000
DIGESTS = {hashlib.sha1(text.encode()).hexdigest(): name for name, text in SCRIPTS.items()}
PARTS = ("records", "state", "due", "live", "rejected", "quarantined")
OLD_PARTS = ("records", "due", "fence", "claims", "quarantine", "rejected")
OFF = "its append-only file is off: a crash of Redis loses records; set appendonly yes"
EVICTS = "maxmemory-policy is allkeys-lru: Redis may delete pending amounts; set noeviction"
NO_DISK = "durability=disk needs Redis 7.2, or appendfsync always: a crash of Redis loses records"


Made: TypeAlias = list[tuple[str, dict[str, Any], Any]]
"""From which URLs clients were made, with which settings, and the clients."""


class RedisError(Exception):
    pass


class MovedError(RedisError):
    pass


class NoScriptError(RedisError):
    pass


class ReadOnlyError(RedisError):
    pass


class RedisClusterException(Exception):
    pass


SECTION_OF = {
    "redis_version": "server", "aof_enabled": "persistence", "maxmemory": "memory", "maxmemory_policy": "memory",
}  # fmt: skip


class Node:
    """A client of redis-py: it notes the commands, and returns `results` one after the other."""

    def __init__(self, *results: Any, version: str = "7.2.0", **info: Any) -> None:
        self.results = list(results)
        self.info_of = {"redis_version": version, "aof_enabled": 1, **info}
        self.told: list[Any] = []
        self.appendfsync: Any = "everysec"
        self.connection_pool = SimpleNamespace(disconnect=lambda: self.told.append("disconnect"))

    def evalsha(self, digest: str, count: int, *rest: Any) -> Any:
        self.told.append((DIGESTS[digest], rest[:count], [*rest[count:]]))
        return self.next()

    def next(self) -> Any:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def exists(self, *keys: str) -> int:
        return 0

    def info(self, section: str) -> dict[str, Any]:
        self.told.append(section)
        found = self.info_of.get(section)
        if isinstance(found, Exception):
            raise found
        return {name: value for name, value in self.info_of.items() if SECTION_OF.get(name, section) == section}

    def config_get(self, name: str) -> dict[str, Any]:
        if isinstance(self.appendfsync, Exception):
            raise self.appendfsync
        return {name: self.appendfsync}

    def script_load(self, text: str) -> None:
        self.told.append(("load", text))

    def close(self) -> None:
        self.told.append("close")

    def pipeline(self, *, transaction: bool) -> Pipe:
        assert not transaction
        return Pipe(self)


class Pipe:
    """Commands that are sent together."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.node.told.append("end")

    def evalsha(self, *command: Any) -> None:
        self.node.told.append(DIGESTS[command[0]])

    def execute_command(self, *command: Any) -> None:
        self.node.told.append(command)

    def execute(self) -> Any:
        return self.node.next()


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The package `redis`. Returns the clients that are made of URLs."""
    made: Made = []

    class Redis(Node):
        @classmethod
        def from_url(cls, url: str, **settings: Any) -> Redis:
            if "bad" in url:
                raise ValueError(url)
            made.append((url, settings, cls()))
            return made[-1][2]  # type: ignore[no-any-return]

    errors = (RedisError, MovedError, NoScriptError, RedisClusterException)
    module = ModuleType("redis")
    module.Redis = Redis  # type: ignore[attr-defined]
    module.exceptions = SimpleNamespace(**{each.__name__: each for each in errors})  # type: ignore[attr-defined]
    module.retry = SimpleNamespace(Retry=lambda backoff, retries: (backoff, retries))  # type: ignore[attr-defined]
    module.backoff = SimpleNamespace(NoBackoff=lambda: "no backoff")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "redis", module)
    return made


def store_of(node: Any, **settings: Any) -> RedisStore:
    return RedisStore(node, partition="p", **settings)


KEYS = tuple(f"cycles:j2:{{p}}:{part}" for part in PARTS)
ITEM = Put("k1", b"r1", None, 60_000)


def test_each_operation_is_one_script_on_the_keys_of_its_partition() -> None:
    node = Node([b"1", None], [[b"r1", b"f1", 5, b""], None], [["k1", "r\udcff", "f2", "7", ""]], [b"k1"], 1, [])
    store = store_of(node)
    new, lost = store.put([ITEM, Put("k2", b"r2", "f0", 0, "rejected")])
    assert lost is None
    assert store.get(["k1", "k2"]) == [Stored("k1", b"r1", "f1", 5), None]
    assert store.take(3, 1_000) == [Stored("k1", b"r\xff", "f2", 7)]
    assert store.renew([("k1", "f2"), ("k2", "f3")], 2_000) == ["k1"]
    store.delete([("k1", "f2")])
    assert store.list("a", 9, "rejected") == []
    names, keys, arguments = zip(*node.told, strict=True)
    assert names == ("put", "get", "take", "renew", "delete", "list")
    assert set(keys) == {KEYS}
    put, get, take, *others = arguments
    assert put[:6] == ["k1", b"r1", "", new, 60_000, ""]
    assert (put[6:9], put[10:]) == (["k2", b"r2", "f0"], [0, "rejected"])
    assert len({new, put[9]}) == 2
    assert get == ["k1", "k2"]
    assert take[:2] == [3, 1_000]
    assert take[2].endswith("-")
    assert others == [[2_000, "k1", "f2", "k2", "f3"], ["k1", "f2"], ["a", 9, "rejected"]]


def test_a_page_has_the_kind_of_record_that_was_asked_for() -> None:
    row = [b"k", b"r", b"f", b"1"]
    store = store_of(node := Node([row], [row]))
    assert store.list() == [Stored("k", b"r", "f", 1)]
    assert store.list(kept="quarantined") == [Stored("k", b"r", "f", 1, "quarantined")]
    assert [told[2] for told in node.told] == [["", 1_000, ""], ["", 1_000, "quarantined"]]


def test_operations_with_nothing_send_nothing() -> None:
    store = store_of(node := Node())
    store.delete([])
    assert (store.get([]), store.renew([], 1), node.told) == ([], [], [])


@pytest.mark.parametrize(
    ("durability", "replicas", "version", "timeout_s", "waits"),
    [
        ("process", 0, "7.2.0", 0.5, []),
        ("process", 1, "7.2.0", 0.5, [("WAIT", 1, 450)]),
        ("process", 2, "7.2.0", 0.0001, [("WAIT", 2, 1)]),
        ("disk", 0, "7.2.0", 0.5, [("WAITAOF", 1, 0, 450)]),
        ("disk", 2, "7.4.1", 1.0, [("WAITAOF", 1, 2, 900)]),
        ("disk", 0, "7.10.0", 0.5, [("WAITAOF", 1, 0, 450)]),
        ("disk", 0, "7.4.0-rc2", 0.5, [("WAITAOF", 1, 0, 450)]),
        ("disk", 0, "8.0.0", 0.5, [("WAITAOF", 1, 0, 450)]),
        ("disk", 0, "7.1.9", 0.5, []),
        ("disk", 0, "6.9.9", 0.5, []),
        ("disk", 3, "7.1.9", 0.5, [("WAIT", 3, 450)]),
    ],
)
def test_a_put_waits_for_the_copies_that_are_wanted(
    durability: Any, replicas: int, version: str, timeout_s: float, waits: list[tuple[Any, ...]]
) -> None:
    enough = [each[1] if each[0] == "WAIT" else list(each[1:3]) for each in waits]
    result = [[b"1"], *enough] if waits else [b"1"]
    store = store_of(
        node := Node(result, result, version=version), durability=durability, replicas=replicas, timeout_s=timeout_s
    )
    assert store.put([ITEM]) != [None]
    assert [told for told in node.told if told[:1] == ("WAIT",) or told[:1] == ("WAITAOF",)] == waits
    store.put([ITEM])
    assert node.told.count("server") == (durability == "disk"), "the version is asked for once"
    assert node.told.count("end") == 2 * len(waits)


def test_no_other_operation_waits_for_copies() -> None:
    store = store_of(node := Node([], 1, []), durability="disk", replicas=1)
    store.take(1, 1)
    store.delete([("k", "f")])
    store.list()
    assert [told[0] for told in node.told] == ["take", "delete", "list"]


@pytest.mark.parametrize(
    ("durability", "replicas", "copies", "message"),
    [
        ("process", 2, 1, "WAIT [2] gave [1]"),
        ("process", 2, 2, None),
        ("process", 2, 3, None),
        ("disk", 1, [1, 0], "WAITAOF [1, 1] gave [1, 0]"),
        ("disk", 1, (0, 1), "WAITAOF [1, 1] gave [0, 1]"),
        ("disk", 1, [1, 1], None),
        ("disk", 0, [0, 0], "WAITAOF [1, 0] gave [0, 0]"),
        ("disk", 0, [1, 0], None),
    ],
)
def test_a_put_with_too_few_copies_is_an_error(
    durability: Any, replicas: int, copies: Any, message: str | None
) -> None:
    store = store_of(Node([[b"1"], copies]), durability=durability, replicas=replicas)
    if message is None:
        assert store.put([ITEM]) != [None]
        return
    with pytest.raises(StoreError) as caught:
        store.put([ITEM])
    assert str(caught.value) == f"too few copies of a record: {message}; check the replicas of Redis"


@pytest.mark.parametrize(
    ("info", "durability", "appendfsync", "found"),
    [
        ({}, "process", "no", []),
        ({"aof_enabled": 0}, "process", "no", [OFF]),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, "process", "no", []),
        ({"maxmemory": 9, "maxmemory_policy": "allkeys-lru"}, "process", "no", [EVICTS]),
        ({"maxmemory": 9, "maxmemory_policy": "noeviction"}, "process", "no", []),
        ({"maxmemory": 9}, "process", "no", []),
        ({}, "disk", "no", []),
        ({"version": "7.1.9"}, "process", "no", []),
        ({"version": "7.1.9"}, "disk", "everysec", [NO_DISK]),
        ({"version": "7.1.9"}, "disk", "always", []),
        ({"version": "7.1.9"}, "disk", b"always", []),
        ({"version": "7.1.9"}, "disk", RedisError("forbidden"), [NO_DISK]),
        ({"version": "6.9.9"}, "disk", "everysec", [NO_DISK]),
        ({"version": "8.0.0"}, "disk", "everysec", []),
        ({"persistence": RedisError("forbidden"), "aof_enabled": 0}, "disk", "no", []),
        ({"version": "7.1", "aof_enabled": 0}, "disk", "everysec", [OFF, NO_DISK]),
    ],
)
def test_what_loses_records_is_named(info: dict[str, Any], durability: Any, appendfsync: Any, found: list[str]) -> None:
    node = Node(**info)
    node.appendfsync = appendfsync
    assert store_of(node, durability=durability).problems() == found
    assert "persistence" in node.told


def test_the_settings_of_a_url_make_a_client_without_retries(package: Made) -> None:
    store = RedisStore("redis://:secret@host:1/2?replicas=2&a=b", timeout_s=0.5)
    ((url, settings, _),) = package
    assert url == "redis://:secret@host:1/2?a=b"
    assert settings == {
        "socket_timeout": 0.25,
        "socket_connect_timeout": 0.25,
        "retry": ("no backoff", 0),
        "decode_responses": False,
    }
    bound = store.bind("tenant", durability="process", timeout_s=1.0)
    assert package[1][1]["socket_timeout"] == 0.5
    assert repr(bound) == "<RedisStore tenant>"
    node = package[1][2]
    node.results = [[[b"1"], 2]]
    bound.put([ITEM])
    assert ("WAIT", 2, 450) in node.told, "less than the timeout of the socket"
    bound.close()
    assert node.told[-2:] == ["close", "disconnect"]


@pytest.mark.parametrize(("given", "replicas"), [("", 3), ("?replicas=0", 0), ("?replicas=1", 1), ("?replicas=4", 4)])
def test_the_number_of_replicas_in_a_url_comes_first(package: Made, given: str, replicas: int) -> None:
    store = RedisStore(f"redis://host/1{given}", replicas=3)
    bound = store.bind("p", durability="process", timeout_s=1.0)
    for each, (_, _, node) in zip((store, bound), package, strict=True):
        node.results = [[b"1"]] if replicas == 0 else [[[b"1"], replicas]]
        each.put([ITEM])
        assert [told[1] for told in node.told if told[0] == "WAIT"] == ([replicas] if replicas else [])


def test_a_given_client_is_bound_with_its_replicas_and_left_open() -> None:
    store = store_of(node := Node([[b"1"], 1]), replicas=1).bind("q", durability="process", timeout_s=1.0)
    store.put([ITEM])
    store.close()
    assert node.told == ["put", ("WAIT", 1, 900), "end"]


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ("redis://host/0?replicas=two", "replicas of journal_store must be an integer, got 'two'"),
        (f"redis://host/0?replicas={'x' * 30}", f"replicas of journal_store must be an integer, got '{'x' * 20}'"),
        ("redis://host/name", "journal_store is not a Redis URL; write it like redis://:password@host:6379/0"),
        ("redis://bad", "journal_store is not a Redis URL; write it like redis://:password@host:6379/0"),
        (object(), "RedisStore needs a blocking redis.Redis: got object"),
        (
            type("Async", (Node,), {"__module__": "redis.asyncio"})(),
            "RedisStore needs a blocking redis.Redis: got Async",
        ),
    ],
)
def test_what_is_no_redis_is_named(client: Any, message: str) -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        RedisStore(client)
    assert str(caught.value) == message


@pytest.mark.parametrize("url", ["redis://host", "redis://host/", "redis://host/7", "unix:///run/redis.sock"])
def test_a_url_of_a_database_or_a_socket_is_one(url: str, package: Made) -> None:
    RedisStore(url)
    assert package[0][0] == url


class Cluster(Node):
    """The client of a cluster."""

    def __init__(self, *results: Any) -> None:
        super().__init__(*results)
        self.nodes_manager = SimpleNamespace(initialize=lambda: self.told.append("initialize"))

    def get_node_from_key(self, key: str) -> str:
        self.told.append(("node of", key))
        return "the node"

    def get_redis_connection(self, node: str) -> Node:
        assert node == "the node"
        return self


@pytest.mark.parametrize(
    ("error", "done"),
    [
        (RedisError("busy"), []),
        (MovedError("3999 127.0.0.1:6381"), ["initialize"]),
        (ReadOnlyError("x"), ["disconnect", "initialize"]),
        (type("MasterDownError", (RedisError,), {})("x"), ["disconnect", "initialize"]),
        (RedisError("script: READONLY You can't write"), ["disconnect", "initialize"]),
        (RedisError("MASTERDOWN Link is down"), ["disconnect", "initialize"]),
        (RedisClusterException("busy"), []),
        (OSError("busy"), []),
        (ValueError("busy"), []),
    ],
)
@pytest.mark.parametrize("make", [Cluster, Node])
def test_a_failed_operation_looks_for_the_primary_if_it_may_be_another_one(
    make: type[Node], error: Exception, done: list[str]
) -> None:
    store = store_of(node := make(error))
    with pytest.raises(StoreError) as caught:
        store.take(1, 1)
    assert str(caught.value) == f"the operation take of Redis failed: {type(error).__name__}: {error}; check the server"
    assert node.told[1:] == [each for each in done if make is Cluster or each == "disconnect"]


def test_a_put_in_a_cluster_goes_to_the_node_of_its_keys() -> None:
    store = store_of(node := Cluster([[b"1"], 1]), replicas=1)
    store.put([ITEM])
    assert node.told == [("node of", KEYS[0]), "put", ("WAIT", 1, 450), "end"]


def test_a_script_that_redis_does_not_know_is_loaded_once() -> None:
    store = store_of(node := Node(NoScriptError("x"), [], NoScriptError("x"), NoScriptError("y")))
    assert store.take(1, 1) == []
    assert [told[:2] if told[0] == "load" else told[0] for told in node.told] == [
        "take",
        ("load", SCRIPTS["take"]),
        "take",
    ]
    with pytest.raises(StoreError):
        store.take(1, 1)


class OldNode(Node):
    """What an earlier version left, in its six keys."""

    def __init__(self, *, pairs: bool) -> None:
        super().__init__()
        self.pairs = pairs
        self.due: dict[str, float] = {}
        self.hashes: dict[str, dict[str, bytes]] = {name: {} for name in ("records", "quarantine", "rejected")}

    def exists(self, *keys: str) -> int:
        assert keys == tuple(f"cycles:j1:{{p}}:{part}" for part in OLD_PARTS)
        self.told.append(("exists", len(keys)))
        return 1

    def time(self) -> tuple[str, str]:
        return "1700000000", "999001"

    def zrange(self, key: str, first: int, last: int, *, withscores: bool) -> list[tuple[bytes, float]]:
        assert key.endswith(":due")
        assert withscores
        return [(each.encode(), at) for each, at in self.due.items()][first : last + 1]

    def hmget(self, key: str, names: Sequence[str]) -> list[bytes | None]:
        return [self.hash_of(key).get(each) for each in names]

    def zrem(self, key: str, *names: str) -> None:
        self.told.append(("zrem", len(names)))
        for each in names:
            del self.due[each]

    def hdel(self, key: str, *names: Any) -> None:
        self.told.append(("hdel", len(names)))
        for each in names:
            self.hash_of(key).pop(each if isinstance(each, str) else each.decode(), None)

    def hrandfield(self, key: str, count: int, *, withvalues: bool) -> list[Any]:
        assert withvalues
        found = [(name.encode(), value) for name, value in [*self.hash_of(key).items()][:count]]
        return found if self.pairs else [part for pair in found for part in pair]

    def delete(self, *keys: str) -> None:
        self.told.append(("delete", keys))

    def evalsha(self, digest: str, count: int, *rest: Any) -> Any:
        self.results.append([b"1"] * ((len(rest) - count) // 6))
        return super().evalsha(digest, count, *rest)

    def hash_of(self, key: str) -> dict[str, bytes]:
        return self.hashes[key.rpartition(":")[2]]


@pytest.mark.parametrize("pairs", [True, False])
def test_the_records_of_an_earlier_version_are_moved_before_the_first_operation(pairs: bool) -> None:
    node = OldNode(pairs=pairs)
    names = [f"k{number:03}" for number in range(501)]
    node.due = dict.fromkeys(names, 1_700_000_000_999.0) | {"k001": 1_700_000_005_999.0, "k002": 1.0}
    node.hashes["records"] = {name: b"r" for name in names if name != "k003"}
    raw = encode(a_record()).decode()
    node.hashes["quarantine"] = {"q": json.dumps({"record": "\udcff", "reason": "poison"}).encode()}
    node.hashes["rejected"] = {
        "r": json.dumps({"record": raw, "reason": "no budget"}).encode(),
        "s": json.dumps({"record": raw, "reason": "no budget", "settled_at_ms": 1_700_000_000_999 - DAY_MS}).encode(),
        "t": json.dumps({"record": raw, "reason": "no budget", "settled_at_ms": 1}).encode(),
    }
    store = store_of(node)
    assert store.list() == []
    steps = [told[0] for told in node.told]
    # Records are put before they are removed: a client that dies in between leaves them in both places.
    assert steps == ["exists", *["put", "zrem", "hdel"] * 2, *["put", "hdel"] * 2, "delete", "list"]
    puts = [told[2] for told in node.told if told[0] == "put"]
    items = [tuple(put[at : at + 6]) for put in puts for at in range(0, len(put), 6)]
    assert [len(put) // 6 for put in puts] == [499, 1, 1, 3]
    assert [item[0] for item in items] == [*(name for name in names if name != "k003"), "q", "r", "s", "t"]
    assert len({item[3] for item in items}) == 504, "each has its own fence"
    assert {item[2] for item in items} == {""}
    due = {item[0]: (item[4], item[5]) for item in items}
    assert (due["k000"], due["k001"], due["k002"]) == ((0, ""), (5_000, ""), (0, ""))
    assert (due["q"], due["r"]) == ((0, "quarantined"), (0, "rejected"))
    assert (due["s"], due["t"]) == ((29 * DAY_MS, ""), (0, ""))
    bodies = {item[0]: item[1] for item in items}
    assert (bodies["k000"], bodies["q"]) == (b"r", b"\xff")
    assert decode(bodies["r"]).rejected == decode(bodies["s"]).rejected == "no budget"
    assert (decode(bodies["r"]).settled, decode(bodies["s"]).settled) == (None, 5)
    assert [told for told in node.told if told[0] == "zrem"] == [("zrem", 500), ("zrem", 1)]
    assert store.list() == []
    assert [told[0] for told in node.told][len(steps) :] == ["list"]
    assert node.told[-3] == ("delete", tuple(f"cycles:j1:{{p}}:{part}" for part in OLD_PARTS))
    assert node.hashes == {"records": {}, "quarantine": {}, "rejected": {}}


def test_moved_records_have_the_copies_that_are_wanted() -> None:
    node = OldNode(pairs=True)
    node.due, node.hashes["records"] = {"k1": 1.0}, {"k1": b"r"}
    node.results = [[[b"1"], 0]]
    with pytest.raises(StoreError, match="too few copies of a record: WAIT"):
        store_of(node, replicas=1).list()
    assert node.due == {"k1": 1.0}, "it is moved again later"


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("redis://h/1", "redis://h/1"),
        ("rediss://h/1", "rediss://h/1"),
        ("valkey://h/1", "redis://h/1"),
        ("valkeys://h/1", "rediss://h/1"),
    ],
)
def test_valkey_is_opened_as_redis(url: str, opened: str, package: Made) -> None:
    store = open_store(url)
    assert isinstance(store, RedisStore)
    assert [made[0] for made in package] == [opened]
