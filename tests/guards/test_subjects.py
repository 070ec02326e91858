"""Who pays: the call over `cycles.subject(...)` blocks over the configuration, in this thread or task."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import cycles

from .conftest import ACTION, Shop

T = cycles.tokens


def subject_of(client: cycles.Cycles, **options: Any) -> dict[str, Any]:
    """The subject a reservation would be made for; nothing is sent."""
    return client.reserve(T(1), action=ACTION, **options)._request.subject.to_dict()


def test_the_call_wins_over_blocks_over_the_configuration(shop: Shop) -> None:
    client = shop.client(workspace="conf", agent="conf", toolset="conf")
    with cycles.subject(agent="outer", workspace="outer"), cycles.subject(agent="inner", dimensions={"a": "1"}):
        found = subject_of(client, subject=cycles.Subject(toolset="call", dimensions={"b": "2"}))
    assert found == {
        "tenant": "acme",
        "workspace": "outer",
        "agent": "inner",
        "toolset": "call",
        "dimensions": {"a": "1", "b": "2"},
    }
    assert subject_of(client) == {"tenant": "acme", "workspace": "conf", "agent": "conf", "toolset": "conf"}


def test_a_block_that_raises_ends_as_well(client: cycles.Cycles) -> None:
    with pytest.raises(LookupError), cycles.subject(agent="a"):
        raise LookupError
    assert subject_of(client) == {"tenant": "acme"}


def test_a_block_holds_for_its_own_thread_only(client: cycles.Cycles) -> None:
    seen: list[Any] = []
    with cycles.subject(agent="a"):
        thread = threading.Thread(target=lambda: seen.append(subject_of(client)))
        thread.start()
        thread.join()
    assert seen == [{"tenant": "acme"}]


def test_tasks_inherit_and_do_not_leak(client: cycles.Cycles) -> None:
    async def child(agent: str, barrier: asyncio.Barrier) -> Any:
        with cycles.subject(agent=agent):
            await barrier.wait()
            return subject_of(client)

    async def main() -> Any:
        barrier = asyncio.Barrier(2)
        with cycles.subject(workspace="w"):
            found = await asyncio.gather(child("a", barrier), child("b", barrier))
            return [*found, subject_of(client)]

    assert asyncio.run(main()) == [
        {"tenant": "acme", "workspace": "w", "agent": "a"},
        {"tenant": "acme", "workspace": "w", "agent": "b"},
        {"tenant": "acme", "workspace": "w"},
    ]


def test_a_wrong_level_is_named(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="tenent"), cycles.subject(tenent="a"):
        pass


def test_other_operations_send_the_same_subject(client: cycles.Cycles, shop: Shop) -> None:
    with cycles.subject(agent="a"):
        client.decide(T(1), action=ACTION)
        client.record(T(1), action=ACTION)
        client.preview(T(1), action=ACTION)
        list(client.balances())
    wanted = {"tenant": "acme", "agent": "a"}
    assert [body["subject"] for body in shop.bodies("decide") + shop.bodies("event") + shop.bodies("reserve")] == [
        wanted
    ] * 3
    assert shop.sent("balances")[0].target.endswith("?tenant=acme&agent=a")


# --- configuration ------------------------------------------------------------------------------------------------


def test_the_environment_and_keywords_over_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {
        "BASE_URL": " https://cycles.example.com/ ",
        "API_KEY": "from-the-environment",
        "TENANT": "t",
        "WORKSPACE": "w",
        "APP": "a",
        "WORKFLOW": "f",
        "AGENT": "g",
        "TOOLSET": "s",
        "TIMEOUT": "2.5",
        "MAX_CONNECTIONS": "7",
        "JOURNAL": "off",
        "JOURNAL_DIR": str(tmp_path),
        "LEASE_POLICY": "cancel",
        "DURABILITY": "",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"CYCLES_{name}", value)
    config = cycles.Config.from_env()
    assert (config.base_url, config.api_key) == ("https://cycles.example.com", "from-the-environment")
    levels = [getattr(config, level) for level in ("tenant", "workspace", "app", "workflow", "agent", "toolset")]
    assert levels == ["t", "w", "a", "f", "g", "s"]
    assert (config.timeout, config.max_connections, config.journal, config.journal_dir) == (2.5, 7, False, tmp_path)
    assert (config.lease_policy, config.durability) == ("cancel", "process")
    assert (config.usable_connect_timeout, cycles.Config(timeout=1.5).usable_connect_timeout) == (2.0, 1.5)
    client = cycles.Cycles(tenant="mine", timeout=1, workspace=None)  # None counts as not given
    assert (client.config.tenant, client.config.timeout, client.config.workspace) == ("mine", 1, "w")
    whole = cycles.Cycles(cycles.Config(base_url="http://a", api_key="k", journal=False), agent="x")
    assert (whole.config.base_url, whole.config.tenant, whole.config.agent) == ("http://a", None, "x")
    monkeypatch.setenv("OTHER_TENANT", "o")
    assert cycles.Config.from_env(prefix="OTHER_").tenant == "o"


@pytest.mark.parametrize(
    ("name", "value", "keyword"),
    [
        ("TIMEOUT", "soon", 3.0),
        ("JOURNAL", "maybe", False),
        ("LEASE_POLICY", "x", "cancel"),
        ("BASE_URL", "x", "http://a"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named_unless_a_keyword_replaces_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, keyword: Any
) -> None:
    monkeypatch.setenv(f"CYCLES_{name}", value)
    with pytest.raises(cycles.ConfigurationError, match=f"CYCLES_{name}"):
        cycles.Config.from_env()
    given = {name.lower(): keyword}
    assert getattr(cycles.Config.from_env(**given), name.lower()) == keyword


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("Yes", True), ("on", True), ("0", False), ("False", False)]
)
def test_truth_in_variables_has_no_case(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("CYCLES_SHADOW", text)
    monkeypatch.setenv("CYCLES_JOURNAL", text)
    config = cycles.Config.from_env()
    assert (config.shadow, config.journal) == (value, value)


@pytest.mark.parametrize(
    "settings",
    [{"timeout": 0}, {"timeout": -1}, {"timeout": float("inf")}, {"timeout": float("nan")}, {"max_connections": 0},
     {"max_connections": 1.5}, {"durability": "tape"}, {"lease_policy": "x"}, {"flush_timeout": -1},
     {"base_url": "ftp://a"}, {"api_key": "a b\n"}, {"no_such": 1}, {"journal_dir": "a\0b"}, {"journal_dir": 5}],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_named(settings: Any) -> None:
    (name,) = settings
    with pytest.raises(cycles.ConfigurationError, match=name):
        cycles.Config(base_url="http://a").with_settings(**settings)


@pytest.mark.parametrize(
    "address", ["http://u@a", "http://:p@a", "http://a?q=1", "http://a/#f", "http://a:0", "http://a b"]
)
def test_an_address_that_is_more_or_less_than_one_is_rejected(address: str) -> None:
    with pytest.raises(cycles.ConfigurationError, match=r"^base_url (must not contain a user|is not an http)"):
        cycles.Config(base_url=address)


def test_the_key_is_in_no_file_of_the_journal(shop: Shop, tmp_path: Path) -> None:
    client = shop.client(api_key="cyc_live_wrong_0123456789", retry_initial_delay=60.0)
    shop.ledger.set_api_key("cyc_live_wrong_0123456789", tenant="acme")
    guard = client.reserve(T(100), action=ACTION).acquire()
    shop.faults.status("commit", 503)
    assert guard.commit(T(7)).status == "pending"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"0123456789" in path.read_bytes() or "0123456789" in str(path)]
