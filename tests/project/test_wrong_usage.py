"""Wrong usage is answered by one line that says what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.embedded.__main__ import main as serve

ACTION = ("llm.completion", "small-model")
ESTIMATE = cycles.usd("0.05")


@pytest.fixture(scope="module")
def server() -> Iterator[cycles.EmbeddedServer]:
    budgets = {"tenant:acme": cycles.usd(1), "tenant:other": cycles.usd(1)}
    with cycles.EmbeddedServer(budgets=budgets) as server:
        yield server


@pytest.fixture(scope="module")
def url(server: cycles.EmbeddedServer) -> Iterator[str]:
    with server.listen() as url:
        yield url


@pytest.fixture
def client(server: cycles.EmbeddedServer, url: str, tmp_path: Path) -> Iterator[Callable[..., cycles.Cycles]]:
    """Makes clients of tenant acme, but for the settings that are given."""
    made: list[cycles.Cycles] = []

    def make(**settings: Any) -> cycles.Cycles:
        fitting = {"base_url": url, "api_key": server.api_key, "tenant": "acme", "journal_dir": tmp_path / "journal"}
        made.append(cycles.Cycles(cycles.Config(**{**fitting, **settings})))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Takes back what the server process does to the handlers of this one."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def refused(kind: type[BaseException], what: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        what()
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"api_key": "k"}, "pass base_url=... or set CYCLES_BASE_URL"),
        ({"api_key": "k"}, "python -m cycles.embedded --budget"),
        ({"base_url": "http://localhost"}, "pass api_key=... or set CYCLES_API_KEY"),
        ({"base_url": "http://localhost", "api_key": "k\n"}, "copy it again"),
        ({"base_url": "http://localhost", "api_key": "k", "timeot": 1}, "timeot is not a setting; there are base_url"),
    ],
)
def test_what_is_missing_is_named_when_the_client_is_made(
    given: dict[str, Any], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CYCLES_")]:
        monkeypatch.delenv(name)
    assert advice in refused(cycles.ConfigurationError, lambda: cycles.Cycles(**given))


@pytest.mark.parametrize(
    "bad",
    ["", "localhost:7878", "htp://host", "https://", "http://host:99999", "http://ho st", "http://host\n.example"],
)
def test_an_address_that_is_none_is_refused_with_an_example(bad: str) -> None:
    line = refused(cycles.ConfigurationError, lambda: cycles.Cycles(base_url=bad, api_key="k", journal=False))
    assert "write it like https://host:7878" in line


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    line = refused(
        cycles.ConfigurationError, lambda: cycles.Cycles(base_url="https://me:secret@host", api_key="k", journal=False)
    )
    assert "must carry no user, password" in line
    assert "secret" not in line


def test_text_that_is_no_number_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_TIMEOUT", "soon")
    assert refused(cycles.ConfigurationError, cycles.Config.from_env) == "CYCLES_TIMEOUT='soon' is not a number"


def test_a_closed_port_asks_whether_the_server_is_running(
    client: Callable[..., cycles.Cycles], closed_port: int
) -> None:
    away = client(base_url=f"http://127.0.0.1:{closed_port}")
    advice = "check that the server is running and that base_url (CYCLES_BASE_URL) is right"

    async def reserve() -> None:
        await away.reserve(ESTIMATE, action=ACTION)

    assert advice in refused(cycles.TransportError, away.reserve(ESTIMATE, action=ACTION).acquire)
    assert advice in refused(cycles.TransportError, lambda: asyncio.run(reserve()))


def test_the_key_of_another_tenant_points_at_tenant_and_key(
    server: cycles.EmbeddedServer, client: Callable[..., cycles.Cycles]
) -> None:
    crossed = client(api_key=server.api_key_for("other"))
    line = refused(cycles.ForbiddenError, crossed.reserve(ESTIMATE, action=ACTION).acquire)
    assert "check tenant / CYCLES_TENANT and the key" in line


def test_an_unknown_key_points_at_the_key_and_does_not_show_it(client: Callable[..., cycles.Cycles]) -> None:
    line = refused(cycles.UnauthorizedError, client(api_key="nonsense").reserve(ESTIMATE, action=ACTION).acquire)
    assert "check api_key / CYCLES_API_KEY" in line
    assert "nonsense" not in line


def test_a_unit_without_a_budget_names_the_units_that_have_one(client: Callable[..., cycles.Cycles]) -> None:
    line = refused(cycles.UnitMismatchError, client().reserve(cycles.tokens(1), action=ACTION).acquire)
    assert "give an amount in USD_MICROCENTS" in line


def test_a_subject_without_a_budget_points_at_subject_and_address(
    server: cycles.EmbeddedServer, client: Callable[..., cycles.Cycles]
) -> None:
    poor = client(tenant="poor", api_key=server.api_key_for("poor"))
    line = refused(cycles.NotFoundError, poor.reserve(ESTIMATE, action=ACTION).acquire)
    assert "no budget for tenant:poor; check the subject and base_url" in line


@pytest.mark.parametrize("subject", [None, {"dimensions": {"team": "blue"}}])
def test_a_subject_without_a_level_is_refused_before_anything_is_sent(
    client: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer, subject: Any
) -> None:
    nobody = client(tenant=None)
    before = len(server.requests)
    for ask in (
        lambda: nobody.reserve(ESTIMATE, action=ACTION, subject=subject),
        lambda: nobody.decide(ESTIMATE, action=ACTION, subject=subject),
        lambda: nobody.balances(subject=subject),
    ):
        line = refused(cycles.InvalidRequestError, ask)
        assert "pass subject=... with one of tenant, workspace" in line
        assert "or set CYCLES_TENANT" in line
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"estimate": 0.05}, "give an amount such as cycles.usd('0.05')"),
        ({"action": "search"}, "give a cycles.Action or a (kind, name) pair"),
        ({"subject": {"tennant": "acme"}}, "no such level; there are tenant, workspace"),
        ({"ttl_ms": 10}, "ttl_ms: must be 1000 or more"),
        ({"lease_policy": "panic"}, "must be one of warn, fail_on_finalize, cancel"),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_may_be(
    client: Callable[..., cycles.Cycles], arguments: dict[str, Any], advice: str
) -> None:
    call: dict[str, Any] = {"estimate": ESTIMATE, "action": ACTION, **arguments}
    assert advice in refused(cycles.InvalidRequestError, lambda: client().reserve(**call))


def test_a_denial_says_where_to_look(client: Callable[..., cycles.Cycles]) -> None:
    line = refused(cycles.BudgetExceededError, client().reserve(cycles.usd(100), action=ACTION).acquire)
    assert "client.balances() tells how much" in line


def test_a_journal_that_cannot_be_written_is_one_warning_that_names_the_setting(
    client: Callable[..., cycles.Cycles], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "cycles"):
        careless = client(journal_dir=tmp_path / "file")
        for _ in range(2):
            settlement = careless.reserve(ESTIMATE, action=ACTION).acquire().commit(cycles.usd_microcents(1))
            assert settlement.status == "committed"
    [warning] = caplog.messages
    assert "set journal_dir (CYCLES_JOURNAL_DIR)" in warning
    assert str(tmp_path / "file") in warning


def test_a_block_that_nobody_settled_is_warned_about_where_it_stands(client: Callable[..., cycles.Cycles]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with client().reserve(ESTIMATE, action=ACTION):
            pass
    [warning] = (warning for warning in seen if warning.category is cycles.UncommittedGuardWarning)
    assert warning.filename == __file__
    assert "call guard.commit(amount)" in str(warning.message)


def test_serving_without_uvicorn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cycles.embedded.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(1)}) as server:
        line = refused(cycles.ConfigurationError, server.listen)
    assert "pip install 'cycles-sdk[embedded]'" in line


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ([], "add one with --budget tenant:acme=10USD"),
        (["--budget", "tenant:acme"], "write it like tenant:acme=10USD"),
        (["--budget", "tenant:acme=much"], "write it like"),
        (["--budget", "tenant:acme=1USD", "--api-key", "secret"], "write it like KEY=TENANT"),
        (["--budget", "tenant:acme=1USD", "--port", "{taken}"], "cannot listen on 127.0.0.1"),
    ],
)
def test_the_server_process_says_what_is_wrong_in_one_line(
    arguments: list[str], advice: str, url: str, capsys: pytest.CaptureFixture[str], own_signals: None
) -> None:
    assert serve([argument.format(taken=url.rpartition(":")[2]) for argument in arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert advice in line
    assert "secret" not in line
