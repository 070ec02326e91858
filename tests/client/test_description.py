"""`client.describe()`, `repr(client)` and the lines of `CYCLES_LOG` are readable and contain no secret."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from tests.client.conftest import ACTION, World

pytestmark = pytest.mark.anyio

SECRETS: dict[str, Any] = {"api_key": "cyc_live_secret", "default_headers": {"X-Gateway": "secret-token"}}


@pytest.fixture
def described(tmp_path: Path) -> Any:
    with cycles.Cycles(
        base_url="https://cycles.example.com", tenant="acme", agent="bot", journal_dir=tmp_path, **SECRETS
    ) as client:
        yield client


def test_a_description_says_where_as_whom_and_how(described: cycles.Cycles, tmp_path: Path) -> None:
    found = described.describe()
    assert found["base_url"] == "https://cycles.example.com"
    assert found["api_key"] == "a str"
    assert found["subject"] == {"tenant": "acme", "agent": "bot"}
    assert found["headers"] == ["X-Gateway"]
    assert found["settings"]["timeout"] == 5.0
    assert found["settings"]["journal_dir"] == str(tmp_path)
    assert found["closed"] is False
    assert "secret" not in json.dumps(found)
    assert repr(described) == "<Cycles https://cycles.example.com, tenant acme, agent bot>"


def test_a_view_describes_its_own_options(described: cycles.Cycles) -> None:
    view = described.with_options(timeout=1.5, subject={"workspace": "w"}, extra_headers={"X-Other": "secret"})
    found = view.describe()
    assert found["settings"]["timeout"] == 1.5
    assert found["subject"] == {"tenant": "acme", "workspace": "w", "agent": "bot"}
    assert found["headers"] == ["X-Gateway", "X-Other"]
    assert repr(view) == "<Cycles https://cycles.example.com, tenant acme, workspace w, agent bot, timeout=1.5>"
    assert "secret" not in json.dumps(found)
    assert described.with_options(subject={"agent": "a"}).describe()["subject"] == {"tenant": "acme", "agent": "a"}
    view.close()
    assert described.describe()["closed"] is True


def test_a_closed_client_is_not_closed_in_a_forked_child(
    described: cycles.Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    described.close()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        assert described.describe()["closed"] is False
    assert described.describe()["closed"] is True


def test_a_view_shows_each_option_also_if_it_is_zero(described: cycles.Cycles) -> None:
    options: dict[str, Any] = {"timeout": 1.5, "lease_policy": "warn", "max_retries": 0, "overage_policy": "REJECT"}
    view = described.with_options(**options)
    assert {name: view.describe()["settings"][name] for name in options} == options
    shown = ", timeout=1.5, lease_policy=warn, max_retries=0, overage_policy=REJECT>"
    assert repr(view) == repr(described).removesuffix(">") + shown


def test_a_description_names_callables_and_own_http_clients_by_their_kind() -> None:
    with httpx.Client() as http:
        settings: dict[str, Any] = {"base_url": "http://localhost:1", "journal": False}
        both: dict[str, Any] = {"http_client": http, "async_http_client": httpx.AsyncClient()}
        with cycles.Cycles(api_key=lambda: "secret", approve=print, approve_above=0.5, **settings, **both) as client:
            found = client.describe()
        one = cycles.Cycles(api_key="k", **settings, http_client=http)
    names = ("journal", "journal_dir", "approve", "approve_above", "journal_store", "max_retries")
    assert {name: found["settings"][name] for name in names} == {
        "journal": False,
        "journal_dir": None,
        "approve": "a callable",
        "approve_above": 0.5,
        "journal_store": None,
        "max_retries": 1,
    }
    assert not {"base_url", "api_key", "default_headers", "tenant"} & found["settings"].keys()
    assert (found["api_key"], found["http_client"], found["subject"]) == ("a callable", "Client, AsyncClient", {})
    assert (found["version"], found["headers"]) == (cycles.__version__, [])
    assert (one.describe()["http_client"], repr(one)) == ("Client", "<Cycles http://localhost:1>")
    one.close()
    assert one.describe()["closed"] is True


@pytest.mark.parametrize("level", ["info", "debug", "INFO"])
async def test_each_request_is_one_readable_line(
    server: cycles.EmbeddedServer,
    tmp_path: Path,
    level: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CYCLES_LOG", level)
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        for world in (World("sync", client), World("async", client)):
            async with world.enter(world.reserve(actual=cycles.tokens(1), idempotency_key=f"secret-{world.is_async}")):
                pass
            assert await world.get(world.operations.find(idempotency_key="secret-key")) is None
        with pytest.raises(cycles.BudgetExceededError):
            client.reserve(cycles.tokens(10_000_000), action=ACTION).acquire()
        server.faults.refuse("decide", times=2)
        with pytest.raises(cycles.TransportError):
            client.decide(cycles.tokens(1), action=ACTION)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9
    pattern = r"cycles: (GET|POST) /v1/\S+ (\d{3}|no response) \d+ ms request \S+"
    for line in lines:
        assert re.match(pattern, line), line
        assert not any(secret in line for secret in (server.api_key, "secret", "?", "{"))
    assert ("BUDGET_EXCEEDED" in lines[6]) is (level == "debug")
    assert "no response" in lines[-1]


def test_nothing_is_written_without_it_and_a_wrong_word_is_named(
    client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client.decide(cycles.tokens(1), action=ACTION)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("CYCLES_LOG", "verbose")
    with pytest.raises(cycles.ConfigurationError, match="CYCLES_LOG must be info or debug, got 'verbose'"):
        cycles.Cycles.embedded({"tenant:acme": cycles.tokens(1)}, journal=False).decide(cycles.tokens(1), action=ACTION)
