"""Two nodes of a Redis Cluster: the keys of a partition are in one slot, so each operation is one script on one node.

`make test-stores` runs these; without the variables of its servers they are skipped.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._journal.stores.redis import RedisStore
from cycles._journal.stores.store import Put
from cycles.journal import check_store
from tests.stores import servers
from tests.stores.servers import PASSWORD, REDIS
from tests.support.waiting import until

NODES = 2
SLOTS = 16_384

pytestmark = pytest.mark.skipif(not os.environ.get(REDIS), reason="make test-stores installs redis")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A client of a cluster."""
    import redis

    started: list[Any] = []
    nodes: list[Any] = []
    ports: list[tuple[int, str]] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            for number in range(NODES):
                folder, port = Path(name, str(number)), servers.free_port()
                folder.mkdir()
                # The port of the cluster bus is by default 10,000 higher, which may be no port at all.
                bus = ["--cluster-port", str(servers.free_port()), "--appendfsync", "always"]
                started.append(servers.start_redis(folder, port, "--cluster-enabled", "yes", *bus))
                node: Any = redis.Redis(port=port, password=PASSWORD)
                nodes.append(node)
                ports.append((port, bus[1]))
                first = SLOTS // NODES * number
                nodes[-1].execute_command("CLUSTER", "ADDSLOTSRANGE", first, first + SLOTS // NODES - 1)
            nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", *ports[1])
            _wait_until_complete(nodes)
            client = redis.RedisCluster(host="127.0.0.1", port=ports[0][0], password=PASSWORD)
            yield client
            client.close()
        finally:
            for node in nodes:
                node.close()
            for process in started:
                process.kill()
                process.wait()


def _wait_until_complete(nodes: list[Any]) -> None:
    wanted = ("ok", str(NODES))
    until(
        lambda: all((info["cluster_state"], info["cluster_known_nodes"]) == wanted for info in map(_info, nodes)), 120
    )


def _info(node: Any) -> dict[str, str]:
    found: dict[str, str] = node.execute_command("CLUSTER INFO")
    return found


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_cluster_passes_the_checks_of_a_store(cluster: Any, durability: Any) -> None:
    used = set()
    for number in range(8):
        partition = f"{durability}-{number}"
        assert len(check_store(partial(RedisStore, cluster, partition=partition, durability=durability))) == 13
        used.add(cluster.get_node_from_key(f"cycles:j2:{{{partition}}}:records").name)
    assert len(used) == NODES


def test_a_put_fails_in_time_if_the_cluster_has_too_few_replicas(cluster: Any) -> None:
    store = RedisStore(cluster, replicas=1, timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(cycles.StoreError, match="too few copies"):
        store.put([Put("0" * 64, b"{}")])
    assert time.monotonic() - began < 60.0  # without a limit it would wait for ever
    store.delete([(each.key, each.fence) for each in store.list()])


def test_a_node_that_does_not_have_the_keys_is_a_store_error(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a slot moves to another node: the next operation asks the cluster where the keys are."""
    store = RedisStore(cluster, durability="disk")
    own = cluster.get_node_from_key("cycles:j2:{default}:records")
    other = next(node for node in cluster.get_primaries() if node.name != own.name)
    asked: list[object] = []
    monkeypatch.setattr(cluster.nodes_manager, "initialize", lambda: asked.append("nodes"))
    with monkeypatch.context() as moved:
        moved.setattr(cluster, "get_node_from_key", lambda *_: other)
        with pytest.raises(cycles.StoreError, match="Moved"):
            store.put([Put("0" * 64, b"{}")])
    assert asked == ["nodes"]
    (fence,) = store.put([Put("0" * 64, b"{}")])
    assert fence is not None
    store.delete([("0" * 64, fence)])


def test_the_configuration_of_the_own_node_is_checked(cluster: Any) -> None:
    assert RedisStore(cluster).problems() == []
    node = cluster.get_redis_connection(cluster.get_node_from_key("cycles:j2:{default}:records"))
    node.config_set("appendonly", "no")
    try:
        (problem,) = RedisStore(cluster).problems()
    finally:
        node.config_set("appendonly", "yes")
    assert "append-only file is off" in problem


def test_a_worker_settles_what_another_one_left_in_a_cluster(cluster: Any, tmp_path: Path) -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server:
        options: dict[str, Any] = {"journal_store": RedisStore(cluster), "flush_timeout": 0.0}
        server.faults.refuse("commit", times=None)
        with server.client(journal_dir=tmp_path / "1", **options) as first:
            guard = first.reserve(cycles.tokens(5), action=("a", "b")).acquire()
            assert guard.commit(cycles.tokens(3)).status == "pending"
        server.faults.clear()
        with server.client(journal_dir=tmp_path / "2", **options) as second:
            second.flush(10)
            assert second.pending() == []
        assert server.spent("tenant:acme") == cycles.tokens(3)
