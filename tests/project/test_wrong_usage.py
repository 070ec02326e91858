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
        (
            {"base_url": "http://localhost", "api_key": "k", "timeot": 1},
            "timeot is not a setting of a client: use one of base_url",
        ),
    ],
)
def test_a_missing_setting_is_named_when_the_client_is_created(
    given: dict[str, Any], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CYCLES_")]:
        monkeypatch.delenv(name)
    assert advice in refused(cycles.ConfigurationError, lambda: cycles.Cycles(**given))


SETTINGS_OF_A_WRONG_TYPE: list[tuple[dict[str, Any], str]] = [
    ({"api_key": b"secret"}, "api_key must be a str or a callable, got a value of type bytes"),
    ({"base_url": 5}, "base_url must be a str, got 5: write it like https://host:7878"),
    (
        {"journal_dir": "a\0b"},
        "journal_dir must be the path of a directory, a str or a Path, got 'a\\x00b'",
    ),
    ({"journal_dir": 5}, "journal_dir must be the path of a directory, a str or a Path, got 5"),
    ({"tenant": 5}, "tenant must be a str, got 5"),
    ({"timeout": 1e10}, "timeout must be seconds, more than 0 and at most 86400, got 10000000000.0"),
    ({"timeout": "5"}, "timeout must be seconds, more than 0 and at most 86400, got '5'"),
    ({"flush_timeout": float("inf")}, "flush_timeout must be seconds, 0 to 86400, got inf"),
    ({"max_connections": 2.5}, "max_connections must be an integer of 1 or more, got 2.5"),
    ({"max_connections": 10_001}, "max_connections must be an integer of at most 10000, got 10001"),
    ({"max_connections": 10**9}, "max_connections must be an integer of at most 10000, got 1000000000"),
    ({"shadow": "false"}, "shadow must be True or False, got 'false'"),
    ({"journal": 0}, "journal must be True or False, got 0"),
]


@pytest.mark.parametrize(("given", "message"), SETTINGS_OF_A_WRONG_TYPE)
def test_a_setting_of_a_wrong_type_is_named(given: dict[str, Any], message: str) -> None:
    settings = {"base_url": "http://localhost", "api_key": "k", **given}
    assert refused(cycles.ConfigurationError, lambda: cycles.Cycles(**settings)) == message
    assert refused(cycles.ConfigurationError, lambda: cycles.Config(**settings)) == message


@pytest.mark.parametrize(("removed", "fixed"), [("queue_timeout", "30 s"), ("background_commits", "1,024")])
def test_a_setting_that_was_removed_is_a_type_error_and_its_variable_is_ignored(
    removed: str, fixed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"base_url": "http://localhost", "api_key": "k", "tenant": "acme", "journal": False}
    config = cycles.Config(**given)
    makes: list[Callable[..., object]] = [
        cycles.Cycles,
        cycles.Config.from_env,
        config.with_settings,
        lambda **settings: cycles.Cycles(config, **settings),
        lambda **settings: cycles.Cycles.embedded({"tenant:acme": cycles.usd(1)}, queue_timeout=5, **settings),
    ]
    for make in makes[:-1]:
        message = refused(TypeError, lambda make=make: make(**{**given, removed: 5}))  # type: ignore[misc]
        assert message == f"{removed} is no setting any longer: it is always {fixed}; remove the keyword"
    with pytest.raises(TypeError, match="queue_timeout"):
        makes[-1]()
    with pytest.raises(TypeError, match=removed):
        cycles.Config(**{**given, removed: 5})
    monkeypatch.setenv(f"CYCLES_{removed.upper()}", "nonsense")
    assert not hasattr(cycles.Config.from_env(), removed)
    cycles.Cycles(**given).close()


ARGUMENTS_OF_A_WRONG_TYPE: list[tuple[Callable[[cycles.Cycles], object], str]] = [
    (lambda client: client.flush(float("inf")), "timeout must be seconds, 0 to 86400, got inf"),
    (lambda client: client.flush("1"), "timeout must be seconds, 0 to 86400, got '1'"),  # type: ignore[arg-type]
    (
        lambda client: client.reserve(ESTIMATE, action=ACTION, shadow="false"),  # type: ignore[arg-type]
        "shadow must be True or False, got 'false'",
    ),
    (
        lambda client: client.reserve(ESTIMATE, action=ACTION, wait=float("inf")),
        "wait must be seconds, 0 to 86400, got inf",
    ),
    (
        lambda client: client.on_event("observer"),  # type: ignore[arg-type]
        "observer must be a callable that takes an event, got 'observer'",
    ),
    (
        lambda client: client.balances(include_children="no"),  # type: ignore[arg-type]
        "include_children must be True or False, got 'no'",
    ),
]


@pytest.mark.parametrize(("call", "message"), ARGUMENTS_OF_A_WRONG_TYPE)
def test_an_argument_of_a_wrong_type_is_named(
    client: Callable[..., cycles.Cycles], call: Callable[[cycles.Cycles], object], message: str
) -> None:
    assert refused(cycles.InvalidRequestError, lambda: call(client())) == message


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CYCLES_BASE_URL", "localhost", "CYCLES_BASE_URL is not an http or https address: 'localhost'; write it like"),
        ("CYCLES_API_KEY", "k\u00e9y", "CYCLES_API_KEY is empty, or it contains"),
        ("CYCLES_TIMEOUT", "soon", "CYCLES_TIMEOUT must be a number, got 'soon': correct it or unset it"),
        ("CYCLES_TIMEOUT", "-1", "CYCLES_TIMEOUT must be seconds, more than 0 and at most 86400, got -1.0"),
        ("CYCLES_FLUSH_TIMEOUT", "nan", "CYCLES_FLUSH_TIMEOUT must be seconds, 0 to 86400, got nan"),
        ("CYCLES_MAX_CONNECTIONS", "1.5", "CYCLES_MAX_CONNECTIONS must be an integer, got '1.5': correct it"),
        ("CYCLES_MAX_CONNECTIONS", "10001", "CYCLES_MAX_CONNECTIONS must be an integer of at most 10000, got 10001"),
        ("CYCLES_MAX_CONNECTIONS", "0", "CYCLES_MAX_CONNECTIONS must be an integer of 1 or more, got 0"),
        ("CYCLES_SHADOW", "maybe", "CYCLES_SHADOW must be true or false, got 'maybe': write 1 or 0, or unset it"),
        ("CYCLES_LEASE_POLICY", "x", "CYCLES_LEASE_POLICY must be one of warn, fail_on_finalize, cancel, got 'x'"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, text)
    assert refused(cycles.ConfigurationError, cycles.Config.from_env).startswith(message)
    keyword = variable.removeprefix("CYCLES_").lower()
    good: Any = {"base_url": "http://localhost", "api_key": "k", "lease_policy": "warn", "shadow": False}.get(
        keyword, 1
    )
    assert getattr(cycles.Config.from_env(**{keyword: good}), keyword) == good, "the keyword overrides the variable"


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_words_of_the_environment_are_true(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_SHADOW", text)
    assert cycles.Config.from_env().shadow is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "off"])
def test_words_of_the_environment_are_false(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_SHADOW", text)
    assert cycles.Config.from_env().shadow is False


@pytest.mark.parametrize(
    "address",
    ["https://me:hunter2@host", "htp://me:hunter2@host", "me:hunter2@host:7878", "https://me:hunter2@ho st",
     "https://me:hunt@er2:hunter2@host:99999"],
)  # fmt: skip
def test_no_error_contains_the_password_of_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (lambda: cycles.Cycles(base_url=address, api_key="k"), lambda: cycles.Config(base_url=address)):
        assert "hunter2" not in refused(cycles.ConfigurationError, make)
    monkeypatch.setenv("CYCLES_BASE_URL", address)
    assert "hunter2" not in refused(cycles.ConfigurationError, cycles.Config.from_env)


@pytest.mark.parametrize(
    "bad",
    ["", "localhost:7878", "htp://host", "https://", "http://host:99999", "http://ho st", "http://host\n.example"],
)
def test_a_wrong_address_is_rejected_with_an_example(bad: str) -> None:
    line = refused(cycles.ConfigurationError, lambda: cycles.Cycles(base_url=bad, api_key="k", journal=False))
    assert "write it like https://host:7878" in line


def test_a_password_in_the_address_is_rejected_and_not_shown() -> None:
    line = refused(
        cycles.ConfigurationError, lambda: cycles.Cycles(base_url="https://me:secret@host", api_key="k", journal=False)
    )
    assert "must not contain a user, a password" in line
    assert "secret" not in line


def test_a_variable_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_TIMEOUT", "soon")
    line = refused(cycles.ConfigurationError, cycles.Config.from_env)
    assert line == "CYCLES_TIMEOUT must be a number, got 'soon': correct it or unset it"


def test_the_error_for_a_closed_port_says_to_check_that_the_server_is_running(
    client: Callable[..., cycles.Cycles], closed_port: int
) -> None:
    away = client(base_url=f"http://127.0.0.1:{closed_port}")
    advice = "check that the server is running and that base_url (CYCLES_BASE_URL) is right"

    async def reserve() -> None:
        await away.reserve(ESTIMATE, action=ACTION)

    assert advice in refused(cycles.TransportError, away.reserve(ESTIMATE, action=ACTION).acquire)
    assert advice in refused(cycles.TransportError, lambda: asyncio.run(reserve()))


def test_the_error_for_the_key_of_another_tenant_names_tenant_and_key(
    server: cycles.EmbeddedServer, client: Callable[..., cycles.Cycles]
) -> None:
    crossed = client(api_key=server.api_key_for("other"))
    line = refused(cycles.ForbiddenError, crossed.reserve(ESTIMATE, action=ACTION).acquire)
    assert "check tenant / CYCLES_TENANT and the key" in line


def test_the_error_for_an_unknown_key_names_the_setting_and_not_the_key(client: Callable[..., cycles.Cycles]) -> None:
    line = refused(cycles.UnauthorizedError, client(api_key="nonsense").reserve(ESTIMATE, action=ACTION).acquire)
    assert "check api_key / CYCLES_API_KEY" in line
    assert "nonsense" not in line


def test_a_unit_without_a_budget_names_the_units_that_have_one(client: Callable[..., cycles.Cycles]) -> None:
    line = refused(cycles.UnitMismatchError, client().reserve(cycles.tokens(1), action=ACTION).acquire)
    assert "pass an amount in USD_MICROCENTS" in line


def test_the_error_for_a_subject_without_a_budget_names_subject_and_address(
    server: cycles.EmbeddedServer, client: Callable[..., cycles.Cycles]
) -> None:
    poor = client(tenant="poor", api_key=server.api_key_for("poor"))
    line = refused(cycles.NotFoundError, poor.reserve(ESTIMATE, action=ACTION).acquire)
    assert "no budget for tenant:poor; check the subject and base_url" in line


@pytest.mark.parametrize("subject", [None, {"dimensions": {"team": "blue"}}])
def test_a_subject_without_a_level_is_rejected_before_anything_is_sent(
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
        assert "set at least one of tenant, workspace" in line
        assert 'pass subject={"tenant": "acme"} or set CYCLES_TENANT' in line
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"estimate": 0.05}, "estimate must be an Amount such as cycles.usd('0.05'), got 0.05"),
        ({"action": "search"}, "action must be a cycles.Action or a (kind, name) pair"),
        ({"subject": {"tennant": "acme"}}, "subject.tennant is not a level of a subject: use one of tenant, workspace"),
        ({"ttl_ms": 10}, "ttl_ms: must be 1000 or more"),
        ({"lease_policy": "panic"}, "must be one of warn, fail_on_finalize, cancel"),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_may_be(
    client: Callable[..., cycles.Cycles], arguments: dict[str, Any], advice: str
) -> None:
    call: dict[str, Any] = {"estimate": ESTIMATE, "action": ACTION, **arguments}
    assert advice in refused(cycles.InvalidRequestError, lambda: client().reserve(**call))


def test_a_denial_names_client_balances(client: Callable[..., cycles.Cycles]) -> None:
    line = refused(cycles.BudgetExceededError, client().reserve(cycles.usd(100), action=ACTION).acquire)
    assert "client.balances() lists what is left" in line


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


def test_the_warning_for_an_unsettled_block_has_its_file_and_line(client: Callable[..., cycles.Cycles]) -> None:
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
