"""`RedisStore`: the records of a fleet in Redis 7 or Valkey 7.2.

Each operation is one Lua script, on the server's clock.

The keys of one partition share a hash slot: `cycles:j2:{partition}:records` and five more (`redis_scripts.py`). No key
expires. Records of the keys `cycles:j1:...`, which earlier versions wrote, are moved by the first client that starts.
See `docs/fleets.md#redis`.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import evolve

from cycles._config import Durability
from cycles._errors import ConfigurationError, StoreError
from cycles._journal.stores.redis_scripts import SCRIPTS
from cycles._journal.stores.store import (
    KEPT,
    PAGE,
    KeptState,
    Owned,
    Put,
    Stored,
    new_fence,
    package,
    settled_by_hand,
    with_reason,
    without_parameter,
)
from cycles._version import install_extra, readable

_PARTS: Final = ("records", "state", "due", "live", "rejected", "quarantined")
_OLD_PARTS: Final = ("records", "due", "fence", "claims", "quarantine", "rejected")
_WAITAOF: Final = (7, 2)
_MOVED: Final = 500  # records of an earlier version that are moved together
# What a node that is not the primary any more responds: the class of the package, or the text of a script's error.
_DEMOTED: Final = ("ReadOnlyError", "MasterDownError", "READONLY", "MASTERDOWN")
_DIGESTS: Final = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in SCRIPTS.items()}  # noqa: S324 - as Redis names scripts


class RedisStore:
    """Records in Redis. Threads and processes may share it.

    Args:
        client: Your own `redis.Redis`, also of Sentinel or Cluster. Its timeouts apply; you close it. Or a URL, from
            which the store makes a client when it is bound.
        partition: Whose records these are; a client sets it.
        durability: `disk` waits until the record is on the disk of the primary (WAITAOF, from Redis 7.2).
        replicas: How many replicas must have a record (WAIT).
        timeout_s: Bounds one operation, if the store makes the client.

    Raises:
        ConfigurationError: the URL is wrong, or the package is not installed.
    """

    def __init__(
        self,
        client: Any,
        *,
        partition: str = "default",
        durability: Durability = "process",
        replicas: int = 0,
        timeout_s: float = 0.5,
    ) -> None:
        self._module = package("redis", f"; {install_extra('redis')}")
        self._durability = durability
        self._replicas = replicas
        self._partition = partition
        self._keys = [f"cycles:j2:{{{partition}}}:{part}" for part in _PARTS]
        self._old_keys = [f"cycles:j1:{{{partition}}}:{part}" for part in _OLD_PARTS]
        self._has_moved = False
        if isinstance(client, str):
            client, given = without_parameter(client, "replicas")
            if given is not None and not given.isdecimal():
                raise ConfigurationError(f"replicas of journal_store must be an integer, got {given[:20]!r}")
            self._replicas = replicas if given is None else int(given)
        self._given = client
        self._owns = isinstance(client, str)
        self._client = self._connected(client, timeout_s) if isinstance(client, str) else _blocking(client)
        self._version: tuple[int, ...] | None = None
        # Shorter than the timeout of the socket, which would close the connection. 0 would wait for ever.
        self._wait_ms = max(1, round(timeout_s * (450 if self._owns else 900)))

    def _connected(self, url: str, timeout_s: float) -> Any:
        # No retries: a second attempt doubles the time that a commit waits, and the breaker decides when to try.
        # Connecting and the response to a command may each take half of the time.
        half = timeout_s / 2
        database = urlsplit(url).path.strip("/")
        try:
            if database and not database.isdecimal() and not url.startswith("unix"):
                raise ValueError(database)  # the package would use database 0
            return self._module.Redis.from_url(
                url,
                socket_timeout=half,
                socket_connect_timeout=half,
                retry=self._module.retry.Retry(self._module.backoff.NoBackoff(), 0),
                decode_responses=False,
            )
        except (ValueError, TypeError):
            pass
        raise ConfigurationError("journal_store is not a Redis URL; write it like redis://:password@host:6379/0")

    def bind(self, partition: str, *, durability: Durability, timeout_s: float) -> RedisStore:
        """Return the store of one partition."""
        return RedisStore(
            self._given, partition=partition, durability=durability, replicas=self._replicas, timeout_s=timeout_s
        )

    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        """Save records; None for each one of which the store has another fence."""
        # The client makes the fences, so that a put that redis-py sends twice is recognized as the same one.
        fences = [new_fence() for _ in items]
        saved = self._run("put", _arguments(items, fences), wait=True)
        return [new if is_saved else None for new, is_saved in zip(fences, saved, strict=True)]

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        rows = self._run("get", keys) if keys else []
        return [_stored(key, *row) if row else None for key, row in zip(keys, rows, strict=True)]

    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        """Return due records, which belong to this client from now on."""
        return [_stored(*row) for row in self._run("take", [limit, claim_ms, f"{new_fence()}-"])]

    def renew(self, items: Sequence[Owned], claim_ms: int) -> builtins.list[str]:
        """Keep records longer, and return the keys that this client does not have any longer."""
        return [_text(key) for key in self._run("renew", [claim_ms, *chain(*items)])] if items else []

    def delete(self, items: Sequence[Owned]) -> None:
        """Delete records that have these fences."""
        if items:
            self._run("delete", [*chain(*items)])

    def list(self, after: str = "", limit: int = PAGE, kept: KeptState | None = None) -> builtins.list[Stored]:
        """Return one page of records."""
        return [evolve(_stored(*row), kept=kept) for row in self._run("list", [after, limit, kept or ""])]

    def problems(self) -> builtins.list[str]:
        """Return what in the configuration of Redis can lose records. Empty if Redis does not show it."""
        found: builtins.list[str] = []
        try:
            node = self._node()
            info = {**node.info("persistence"), **node.info("memory"), **node.info("server")}
        except self._errors:  # INFO may be forbidden to this user; an outage is found by the next operation
            return found
        if not info.get("aof_enabled"):
            found.append("its append-only file is off: a crash of Redis loses records; set appendonly yes")
        if info.get("maxmemory") and info.get("maxmemory_policy") not in (None, "noeviction"):
            found.append(
                f"maxmemory-policy is {info['maxmemory_policy']}: Redis may delete pending amounts; set noeviction"
            )
        if self._durability == "disk" and _version(info) < _WAITAOF and not self._fsyncs_always():
            found.append("durability=disk needs Redis 7.2, or appendfsync always: a crash of Redis loses records")
        return found

    def close(self) -> None:
        """Close the connections that this store made."""
        if self._owns:
            self._client.close()
            self._client.connection_pool.disconnect()  # redis-py 5.0.0 does not

    def __repr__(self) -> str:
        return f"<RedisStore {self._partition}>"

    def _fsyncs_always(self) -> bool:
        try:
            value: Any = self._node().config_get("appendfsync").get("appendfsync")
        except self._errors:
            return False
        return value in ("always", b"always")

    def _move_old(self) -> None:
        """Move what an earlier version left into the new keys, page by page. Doing it twice at a time is harmless."""
        records, due, _, _, quarantined, rejected = self._old_keys
        client = self._client
        if client.exists(*self._old_keys):
            seconds, micros = self._node().time()
            now_ms = int(seconds) * 1_000 + int(micros) // 1_000
            while rows := client.zrange(due, 0, _MOVED - 1, withscores=True):
                keys = [_text(key) for key, _ in rows]
                found = zip(keys, client.hmget(records, keys), rows, strict=True)
                times = [(key, raw, max(0, int(at_ms) - now_ms)) for key, raw, (_, at_ms) in found if raw is not None]
                self._put_old([Put(key, _bytes(raw), None, due_ms) for key, raw, due_ms in times])
                # After the put: a client that dies in between leaves them in both places, and the next one goes on.
                client.zrem(due, *keys)
                client.hdel(records, *keys)
            for hash_key in (quarantined, rejected):
                while old := client.hrandfield(hash_key, _MOVED, withvalues=True):
                    # With its values it is one list, and with a later protocol of Redis a list of pairs.
                    flat = old if isinstance(old[0], str | bytes) else [part for pair in old for part in pair]
                    pairs = list(zip(flat[::2], flat[1::2], strict=True))
                    kept: KeptState = "rejected" if hash_key == rejected else "quarantined"
                    self._put_old([_moved(_text(key), _bytes(value), kept, now_ms) for key, value in pairs])
                    client.hdel(hash_key, *(key for key, _ in pairs))
            client.delete(*self._old_keys)
        self._has_moved = True

    def _put_old(self, items: Sequence[Put]) -> None:
        self._evaluated("put", _arguments(items, [new_fence() for _ in items]), wait=True)

    def _run(self, name: str, arguments: Sequence[Any], *, wait: bool = False) -> Any:
        try:
            if not self._has_moved:  # before the first operation: else a record that is moved later would look lost
                self._move_old()
            return self._evaluated(name, arguments, wait=wait)
        except self._errors as error:
            raise self._failed(name, error) from error

    def _evaluated(self, name: str, arguments: Sequence[Any], *, wait: bool) -> Any:
        try:
            return self._call(name, arguments, wait=wait)
        except self._module.exceptions.NoScriptError:  # Redis was started again, or is another node
            self._client.script_load(SCRIPTS[name])
            return self._call(name, arguments, wait=wait)

    def _failed(self, name: str, error: Exception) -> StoreError:
        if isinstance(error, self._module.exceptions.MovedError):  # the cluster has moved the slot of these keys
            self._refresh_nodes()
        if type(error).__name__ in _DEMOTED or any(word in str(error) for word in _DEMOTED):
            self._disconnect()
        text = f"the operation {name} of Redis failed: {type(error).__name__}: {error}; check the server"
        return StoreError(text)

    def _disconnect(self) -> None:
        """Close all connections: the node is not the primary any more, and the next ones reach the new one."""
        pool = getattr(self._client, "connection_pool", None)
        if pool is not None:
            with contextlib.suppress(*self._errors):
                pool.disconnect()
        self._refresh_nodes()

    def _call(self, name: str, arguments: Sequence[Any], *, wait: bool) -> Any:
        command = (_DIGESTS[name], len(self._keys), *self._keys, *arguments)
        waits = self._waits() if wait else ()
        if not waits:
            return self._client.evalsha(*command)
        # WAIT counts the writes of one connection, so the commands are sent together.
        with self._node().pipeline(transaction=False) as pipe:
            pipe.evalsha(*command)
            for each in waits:
                pipe.execute_command(*each)
            result, *acknowledged = pipe.execute()
        for each, response in zip(waits, acknowledged, strict=True):
            wanted = each[1:-1]
            got = response if isinstance(response, list | tuple) else [response]
            if any(int(copies) < need for copies, need in zip(got, wanted, strict=True)):
                have = f"{each[0]} {list(wanted)} gave {list(got)}"
                raise StoreError(f"too few copies of a record: {have}; check the replicas of Redis")
        return result

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        exceptions = self._module.exceptions
        return exceptions.RedisError, exceptions.RedisClusterException, OSError, ValueError

    def _node(self) -> Any:
        """Return the client of the node that has the keys: that of a cluster sends commands to different nodes."""
        if not hasattr(self._client, "get_node_from_key"):
            return self._client
        return self._client.get_redis_connection(self._client.get_node_from_key(self._keys[0]))

    def _refresh_nodes(self) -> None:
        if hasattr(self._client, "nodes_manager"):
            with contextlib.suppress(*self._errors):
                self._client.nodes_manager.initialize()

    def _waits(self) -> builtins.list[tuple[Any, ...]]:
        if self._durability == "disk" and self._has_waitaof():
            return [("WAITAOF", 1, self._replicas, self._wait_ms)]
        return [("WAIT", self._replicas, self._wait_ms)] if self._replicas else []

    def _has_waitaof(self) -> bool:
        if self._version is None:
            self._version = _version(self._node().info("server"))
        return self._version >= _WAITAOF


def _stored(key: Any, record: Any, fence: Any, due_ms: Any, kept: Any = "") -> Stored:
    return Stored(_text(key), _bytes(record), _text(fence), int(due_ms), KEPT[_text(kept)])


def _arguments(items: Sequence[Put], fences: Sequence[str]) -> builtins.list[Any]:
    """Return the arguments of the script that puts these items."""
    pairs = zip(items, fences, strict=True)
    return [*chain(*((it.key, it.record, it.fence or "", new, it.due_ms, it.kept or "") for it, new in pairs))]


def _moved(key: str, value: bytes, kept: KeptState, now_ms: int) -> Put:
    """Return the put of a record that an earlier version has kept, with its reason or the time it was settled."""
    members = json.loads(value.decode("utf-8", "surrogateescape"))
    record = members["record"].encode("utf-8", "surrogateescape")
    if kept == "quarantined":
        return Put(key, record, None, 0, kept)
    record = with_reason(record, str(members.get("reason")))
    settled_ms = members.get("settled_at_ms")
    if settled_ms is None:
        return Put(key, record, None, 0, kept)
    return settled_by_hand(key, record, int(settled_ms) - now_ms)


def _version(info: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])


def _blocking(client: Any) -> Any:
    if "asyncio" in type(client).__module__ or not hasattr(client, "evalsha"):
        raise ConfigurationError(f"RedisStore needs a blocking redis.Redis: got {type(client).__qualname__}")
    return client


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode("ascii", "replace")


readable(RedisStore)
