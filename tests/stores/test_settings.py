"""The settings of a shared store: URLs, packages, secrets, files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import partition
from cycles._journal.open import open_store
from cycles._journal.operators.inspect_store import view_of
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.memory import MemoryStore
from cycles.journal._places import directory
from tests.stores.kit import ACTION, records, shared
from tests.support.inside import runtime_of

BASE: dict[str, Any] = {"base_url": "http://127.0.0.1:9", "api_key": "k", "tenant": "acme", "flush_timeout": 0.0}
SECRET = "the-password"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "journal_store",
            f"mysql://u:{SECRET}@host/db",
            "journal_store is not the URL of a store: 'mysql://[hidden]@host/db'",
        ),
        ("journal_store", f"u:{SECRET}@host", "journal_store is not the URL of a store: '[hidden]@host'"),
        (
            "journal_store",
            f"ftp://u:a\n{SECRET}@host?b\n{SECRET}",
            "journal_store is not the URL of a store: 'ftp://[hidden]@host?[hidden]'",
        ),
        (
            "journal_store",
            f"ftp://u:p@{SECRET}@host?b?{SECRET}",
            "journal_store is not the URL of a store: 'ftp://[hidden]@host?[hidden]'",
        ),
        ("journal_store", "redis", "journal_store is not the URL of a store: 'redis'"),
        ("journal_store", object(), "object has no method put"),
        ("journal_claim_ms", 999, "journal_claim_ms must be milliseconds, 1000 to 600000, got 999"),
        ("journal_claim_ms", True, "journal_claim_ms must be milliseconds"),
        ("journal_store_timeout", 0, "journal_store_timeout must be seconds, more than 0"),
        ("journal_outage", "ignore", "journal_outage must be one of disk, memory, refuse"),
        ("journal_checkpoint_ms", 0, "journal_checkpoint_ms must be milliseconds"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, value: Any, message: str) -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.Cycles(**{**BASE, setting: value})
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_variable_is_journal_url_and_no_repr_shows_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"redis://:{SECRET}@host:6379/0?ssl_cert_reqs={SECRET}"
    monkeypatch.setenv("CYCLES_JOURNAL_URL", url)
    monkeypatch.setenv("CYCLES_JOURNAL_CLAIM_MS", "5000")
    config = cycles.Config.from_env(**BASE)
    assert (config.journal_store, config.journal_claim_ms) == (url, 5_000)
    assert SECRET not in repr(config)
    assert "redis://[hidden]@host:6379/0" in repr(config)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("redis://host/0", "redis", "cycles-sdk[redis]"), ("postgresql://host/db", "psycopg", "cycles-sdk[postgres]")],
)
def test_a_missing_package_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, package: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.Cycles(**BASE, journal_store=url, journal_dir=tmp_path)
    assert extra in str(caught.value)


def test_a_store_that_cannot_be_reached_raises_nothing(tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="make test-stores installs redis")
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(100)}) as server:
        options: dict[str, Any] = {"journal_dir": tmp_path, "flush_timeout": 0.0}
        with server.client(journal_store=f"redis://:{SECRET}@127.0.0.1:9/0", **options) as client:
            seen: list[Any] = []
            client.on_event(seen.append)
            with client.reserve(cycles.tokens(5), action=ACTION) as guard:
                guard.commit(cycles.tokens(3))
        assert server.spent("tenant:acme") == cycles.tokens(3)
        assert SECRET not in " ".join(event.text() for event in seen)


def test_a_file_url_is_a_directory_of_files(tmp_path: Path) -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(100)}) as server:
        folder = tmp_path / "with blank"
        with server.client(journal_store=folder.as_uri(), flush_timeout=0.0) as client:
            guard = client.reserve(cycles.tokens(5), action=ACTION).acquire()
            server.faults.refuse("commit", times=None)
            guard.commit(cycles.tokens(3))
            assert runtime_of(client).records.shared is None
            assert len(list(folder.glob("*/v2-*.json"))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_leaves_the_records_of_its_parent(tmp_path: Path) -> None:
    store = MemoryStore()
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.tokens(100)}) as server,
        server.client(journal_store=store, journal_dir=tmp_path, flush_timeout=0.0) as client,
    ):
        guard = client.reserve(cycles.tokens(5), action=ACTION).acquire()
        server.faults.refuse("commit", times=None)
        guard.commit(cycles.tokens(3))
        parents = shared(client)
        child = os.fork()
        if child == 0:  # the copy of the store in memory is the child's own
            status = 1
            try:
                own = shared(client)
                status = int(own is parents or bool(own._held))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert len(parents._held) == 1
        assert len(records(store)) == 1


def test_a_store_without_bind_is_used_as_it_is(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "own", lambda: "p", sync=False)
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(100)}) as server:
        with server.client(journal_store=store, journal_dir=tmp_path / "local", flush_timeout=0.0) as client:
            guard = client.reserve(cycles.tokens(5), action=ACTION).acquire()
            server.faults.refuse("commit", times=None)
            guard.commit(cycles.tokens(3))
            assert len(store.list()) == 1
            server.faults.clear()
            assert client.flush().pending == 0
        assert store.list() == []


def test_a_store_of_the_caller_stays_open(tmp_path: Path) -> None:
    closed: list[object] = []

    class Noted(MemoryStore):
        def bind(self, partition: str, **settings: Any) -> MemoryStore:
            return self

        def close(self) -> None:
            closed.append(self)

    with cycles.Cycles(**BASE, journal_store=Noted(), journal_dir=tmp_path) as client:
        assert client.pending() == []
    assert closed == []


def test_a_view_names_the_store_without_its_password() -> None:
    pytest.importorskip("redis", reason="make test-stores installs redis")
    assert view_of(f"redis://:{SECRET}@127.0.0.1:9/0", "p", 0.5).name == "redis://[hidden]@127.0.0.1:9/0"


@pytest.mark.parametrize("url", ["mysql://host/x", "postgresql:host", "redis", "rediss:/host"])
def test_a_store_of_an_unknown_scheme_is_named_before_a_package_is_loaded(url: str) -> None:
    with pytest.raises(cycles.ConfigurationError, match="journal_store has an unknown scheme"):
        open_store(url)


def test_the_message_of_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        open_store(f"{'m' * 30}://host/x")
    assert str(caught.value) == (
        f"journal_store has an unknown scheme: '{'m' * 20}'; write it with one of "
        "redis://, rediss://, valkey://, valkeys://, postgresql://, postgres://, file://"
    )


def test_a_store_is_bound_to_the_server_and_tenant_with_the_settings_of_the_client(tmp_path: Path) -> None:
    bound: list[tuple[Any, ...]] = []

    class Noted(MemoryStore):
        def bind(self, partition: str, **settings: Any) -> MemoryStore:
            bound.append((partition, settings))
            return super().bind(partition, **settings)

    options: dict[str, Any] = {
        "journal_store": Noted(),
        "journal_store_timeout": 0.7,
        "durability": "disk",
        "journal_dir": tmp_path,
    }
    with cycles.Cycles(**BASE, **options) as client:
        assert client.pending() == []
        assert runtime_of(client).records.directory == "Noted"
    owner = partition(BASE["base_url"], "acme", "k")
    assert bound == [(owner, {"durability": "disk", "timeout_s": 0.7})]


@pytest.mark.parametrize("place", ["file:///a%20b/c", "/a b/c"])
def test_a_directory_may_be_a_url(place: str) -> None:
    assert directory(place) == Path("/a b/c")
    assert directory("~/x") == Path.home() / "x"


def test_a_client_without_a_journal_has_quarantined_nothing() -> None:
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.tokens(100)}) as server,
        server.client(journal=False, flush_timeout=0.0) as client,
    ):
        assert client.flush() == cycles.FlushReport(settled=0, pending=0, quarantined=0)
