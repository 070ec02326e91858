"""Two nodes of Redis and a failover: the old primary lives on as a replica, and the address leads to the new one.

`make test-stores` runs these; without the variables of its servers they are skipped.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._journal.stores.redis import RedisStore
from cycles._journal.stores.store import Put
from tests.stores import servers
from tests.stores.servers import PASSWORD, REDIS
from tests.support.inside import runtime_of
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not os.environ.get(REDIS), reason="make test-stores installs redis")


class Address:
    """An address that leads new connections to one node, as DNS or a proxy does; open ones stay where they are."""

    def __init__(self, node: int) -> None:
        self.node = node
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                node = socket.create_connection(("127.0.0.1", self.node))
                self._open += [client, node]
                for source, target in ((client, node), (node, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # shutdown wakes the thread that accepts; close alone would not
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            each.close()


class Nodes:
    """A primary, its replica, and the address of the primary."""

    def __init__(self, folder: Path) -> None:
        import redis

        self.ports = [servers.free_port(), servers.free_port()]
        self.processes: list[Any] = []
        for number, port in enumerate(self.ports):
            own = folder / str(number)
            own.mkdir()
            self.processes.append(servers.start_redis(own, port, "--masterauth", PASSWORD))
        self.operators: list[Any] = [redis.Redis(port=port, password=PASSWORD) for port in self.ports]
        self.operators[1].replicaof("127.0.0.1", self.ports[0])
        until(lambda: self.operators[1].info("replication")["master_link_status"] == "up", 120.0)
        self.address = Address(self.ports[0])
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.address.port}/0"

    def promote(self) -> None:
        """Make the replica, which has all records, a primary; the old one goes on."""
        if self.operators[1].info("replication")["role"] == "slave":
            assert self.operators[0].wait(1, 2_000) == 1
            self.operators[1].replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Make the replica the primary. The old primary lives on as its replica, and its connections stay open."""
        self.promote()
        self.operators[0].replicaof("127.0.0.1", self.ports[1])
        self.address.node = self.ports[1]

    def close(self) -> None:
        for operator in self.operators:
            operator.close()
        self.address.close()
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory() as folder:
        started = Nodes(Path(folder))
        yield started
        started.close()


def test_the_next_put_reaches_the_new_primary(nodes: Nodes) -> None:
    store = RedisStore(nodes.url, timeout_s=30.0)
    (first,) = store.put([Put("a" * 64, b"1", None, 60_000)])
    store.list()  # a connection of the pool too
    nodes.fail_over()
    with pytest.raises(cycles.StoreError, match="ReadOnlyError"):
        store.put([Put("b" * 64, b"2", None, 60_000)])
    assert store.put([Put("b" * 64, b"2", None, 60_000)]) != [None]
    assert store.renew([("a" * 64, str(first))], 60_000) == [], "the pool has no connection to the old primary either"
    assert nodes.operators[1].hlen("cycles:j2:{default}:records") == 2
    store.close()


def test_a_given_client_is_disconnected_too(nodes: Nodes) -> None:
    import redis

    with redis.Redis.from_url(nodes.url) as given:
        store = RedisStore(given)
        store.put([Put("a" * 64, b"1", None, 60_000)])
        nodes.fail_over()
        with pytest.raises(cycles.StoreError):
            store.put([Put("b" * 64, b"2", None, 60_000)])
        assert store.put([Put("b" * 64, b"2", None, 60_000)]) != [None]


def test_a_lost_primary_is_replaced(nodes: Nodes) -> None:
    store = RedisStore(nodes.url, timeout_s=30.0)
    store.put([Put("a" * 64, b"1", None, 60_000)])
    nodes.fail_over()
    nodes.processes[0].kill()
    nodes.processes[0].wait()
    with contextlib.suppress(cycles.StoreError):  # sent again at once if the connection was idle
        store.put([Put("b" * 64, b"2", None, 60_000)])
    assert store.put([Put("c" * 64, b"2", None, 60_000)]) != [None]
    assert [each.key for each in store.list()][-1] == "c" * 64
    store.close()


def test_a_fence_of_the_old_primary_is_not_used_again(nodes: Nodes) -> None:
    """The new primary did not get the last put: a late one over that fence changes nothing there."""
    store = RedisStore(nodes.url, timeout_s=30.0)
    (first,) = store.put([Put("a" * 64, b"1", None, 60_000)])
    nodes.promote()
    (lost,) = store.put([Put("a" * 64, b"2", first, 60_000)])  # the old primary has it alone
    nodes.fail_over()
    with pytest.raises(cycles.StoreError):
        store.put([Put("x" * 64, b"", None, 0)])
    (stored,) = store.get(["a" * 64])
    assert stored is not None
    assert (stored.record, stored.fence) == (b"1", first)
    assert store.put([Put("a" * 64, b"late", lost, 60_000)]) == [None]
    assert store.put([Put("a" * 64, b"2", first, 60_000)]) != [None]
    store.close()


def test_a_client_continues_on_the_new_primary(nodes: Nodes, tmp_path: Path) -> None:
    tenant = f"t{secrets.token_hex(4)}"
    with cycles.EmbeddedServer({f"tenant:{tenant}": cycles.tokens(1_000)}) as server:
        options: dict[str, Any] = {"journal_store": nodes.url, "journal_dir": tmp_path, "journal_claim_ms": 1_000}
        with server.client(journal_store_timeout=10.0, flush_timeout=0.0, **options) as client:
            server.faults.refuse("commit", times=None)

            def commit() -> None:
                guard = client.reserve(cycles.tokens(5), action=("a", "b")).acquire()
                assert guard.commit(cycles.tokens(3)).status == "pending"

            commit()
            nodes.fail_over()
            commit()  # READONLY: it is saved in a local file
            key = f"cycles:j2:{{{runtime_of(client).records.shared._store._partition}}}:records"  # type: ignore[union-attr]
            until(lambda: nodes.operators[1].hlen(key) == 2, 120.0)
            until(lambda: list(tmp_path.glob("*/v2-*.json")) == [], 120.0)
            server.faults.clear()
            client.flush(30.0)
            until(lambda: client.pending() == [], 120.0)
        assert server.spent(f"tenant:{tenant}") == cycles.tokens(6)
