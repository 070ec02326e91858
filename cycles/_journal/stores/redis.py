"""`RedisStore`: the records of a fleet in Redis 7 or Valkey 7.2.

Each operation is one Lua script, on the server's clock.

The keys of one partition share a hash slot: `cycles:j1:{partition}:records` (record by key), `:due` (sorted by
milliseconds), `:fence` (claims so far), `:claims` (claims since an attempt ended), `:quarantine` and `:rejected`
(objects with record, reason and at_ms, and settled_at_ms if an operator has settled it). No key expires. See
`docs/fleets.md#redis`.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cycles._config import Durability
from cycles._errors import ConfigurationError, StoreError
from cycles._journal.store import Claimed, Kept, Put, Stored
from cycles._journal.stores.redis_link import RedisLink
from cycles._journal.stores.redis_scripts import SCRIPTS
from cycles._version import readable

_PARTS: Final = ("records", "due", "fence", "claims", "quarantine", "rejected")
_WAITAOF: Final = (7, 2)
_DIGESTS: Final = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in SCRIPTS.items()}  # noqa: S324 - as Redis names scripts


def _redis() -> Any:
    try:
        import redis
    except ImportError:
        raise ConfigurationError(
            "journal_store needs the package redis: it is not installed; pip install 'cycles-sdk[redis]'"
        ) from None
    return redis


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
        self._module = _redis()
        self._durability = durability
        self._replicas = replicas
        self._partition = partition
        self._keys = [f"cycles:j1:{{{partition}}}:{part}" for part in _PARTS]
        if isinstance(client, str):
            client, self._replicas = _without_replicas(client, replicas)
        self._given = client
        self._owns = isinstance(client, str)
        self._client = self._connected(client, timeout_s) if isinstance(client, str) else _blocking(client)
        self._link = RedisLink(self._module, self._client, timeout_s / 4) if self._owns else None
        self._version: tuple[int, ...] | None = None
        # Shorter than the timeout of the socket, which would close the connection. 0 would wait for ever.
        self._wait_ms = max(1, round(timeout_s * (450 if self._owns else 900)))

    def _connected(self, url: str, timeout_s: float) -> Any:
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

    def put(self, items: Sequence[Put]) -> builtins.list[bool]:
        """Save records; False for each one whose fence another client has changed."""
        arguments: builtins.list[Any] = []
        for item in items:
            arguments += [item.key, item.record, "" if item.fence is None else item.fence, item.due_ms]
        return [bool(saved) for saved in self._run("put", arguments, wait=True)]

    def settle(self, keys: Sequence[str]) -> None:
        """Delete finished records."""
        if keys:
            self._run("settle", keys)

    def claim(self, limit: int, claim_ms: int) -> builtins.list[Claimed]:
        """Return due records, which belong to this client from now on."""
        rows = self._run("claim", [limit, claim_ms])
        return [Claimed(_text(key), _bytes(record), int(fence)) for key, record, fence in rows]

    def renew(self, keys: Sequence[str], claim_ms: int) -> builtins.list[str]:
        """Keep claims longer, and return the keys that no longer exist."""
        return [_text(key) for key in self._run("renew", [claim_ms, *keys])] if keys else []

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        rows = self._run("get", keys) if keys else []
        return [
            Stored(key, _bytes(row[0]), int(float(row[1])), int(row[2])) if row else None
            for key, row in zip(keys, rows, strict=True)
        ]

    def list(self, limit: int = 1000) -> builtins.list[Stored]:
        """Return records without claiming them."""
        rows = self._run("list", [limit])
        return [Stored(_text(key), _bytes(record), int(float(due)), int(fence)) for key, record, due, fence in rows]

    def quarantine(self, key: str, reason: str) -> None:
        """Keep a record that no client can read."""
        self._run("keep", [5, key, reason])

    def reject(self, key: str, reason: str) -> None:
        """Keep a record that the server rejected."""
        self._run("keep", [6, key, reason])

    def kept(self, limit: int = 1000) -> builtins.list[Kept]:
        """Return records that are rejected or quarantined."""
        found: builtins.list[Kept] = []
        for key, raw, state in self._run("kept", []):
            values = json.loads(_bytes(raw).decode("utf-8", "surrogateescape"))
            record = values["record"].encode("utf-8", "surrogateescape")
            at_ms, settled_ms = int(values.get("at_ms", 0)), values.get("settled_at_ms")
            settled_at_ms = None if settled_ms is None else int(settled_ms)
            reason = str(values.get("reason"))
            found.append(Kept(_text(key), record, reason, _STATES[_text(state)], at_ms, settled_at_ms))
        return found[:limit]

    def restore(self, key: str) -> bool:
        """Let a rejected or quarantined record be claimed again."""
        return bool(self._run("restore", [key]))

    def discard(self, key: str) -> None:
        """Delete a record in any state."""
        self._run("discard", [key])

    def keep_settled(self, kept: Kept) -> bool:
        """Keep a rejected record that is settled."""
        arguments = [kept.key, kept.record, kept.reason, kept.at_ms, kept.settled_at_ms or 0]
        return bool(self._run("keep_settled", arguments))

    def remove_settled(self, before_ms: int) -> None:
        """Delete what was settled by hand before a time."""
        self._run("remove_settled", [before_ms])

    def problems(self) -> builtins.list[str]:
        """Return what in the configuration of Redis can lose records. Empty if Redis does not show it."""
        found: builtins.list[str] = []
        try:
            node = self._node()
            info = {**node.info("persistence"), **node.info("memory"), **node.info("server")}
        except self._errors:
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
        if self._link is not None:
            self._link.close()
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

    def _run(self, name: str, arguments: Sequence[Any], *, wait: bool = False) -> Any:
        try:
            try:
                return self._call(name, arguments, wait=wait)
            except self._module.exceptions.NoScriptError:
                self._client.script_load(SCRIPTS[name])
                return self._call(name, arguments, wait=wait)
        except self._errors as error:
            if isinstance(error, self._module.exceptions.MovedError):  # the cluster has moved the slot of these keys
                self._refresh_nodes()
            raise StoreError(
                f"the operation {name} of Redis failed: {type(error).__name__}: {error}; check the server"
            ) from error

    def _call(self, name: str, arguments: Sequence[Any], *, wait: bool) -> Any:
        command = (_DIGESTS[name], len(self._keys), *self._keys, *arguments)
        waits = self._waits() if wait else ()
        if not waits:
            client = self._link if name == "put" and self._link is not None else self._client
            return client.evalsha(*command)
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


_STATES: Final[dict[str, Any]] = {"rejected": "rejected", "quarantined": "quarantined"}


def _without_replicas(url: str, replicas: int) -> tuple[str, int]:
    """Return the URL without our own parameter `replicas`, and its value."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = [value for name, value in query if name == "replicas"]
    if given and not given[-1].isdecimal():
        raise ConfigurationError(f"replicas of journal_store must be an integer, got {given[-1][:20]!r}")
    rest = urlencode([(name, value) for name, value in query if name != "replicas"])
    return urlunsplit(parts._replace(query=rest)), int(given[-1]) if given else replicas


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
