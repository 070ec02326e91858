"""Errors that a user reads: what happened, which value, and what to do next; nothing is sent and nothing is started."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.billing._rows import ReportError, count, exact
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles

PRICE = cycles.Price("1", "1")
SDK: Any = cycles
"""Without the types, which reject these values too."""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("run", "--budget", "1USD"),
            "there is no command: write it after --, like cycles run --budget 5USD -- ",
        ),
        (("proxy", "--listen", "x"), "'x' is not HOST:PORT; write it like 127.0.0.1:8790"),
        (("proxy", "--listen", "h:99999"), "'h:99999' is not HOST:PORT; write it like 127.0.0.1:8790"),
        (("proxy", "--listen", ":80"), "':80' is not HOST:PORT; write it like 127.0.0.1:8790"),
        (("proxy", "--listen", "0.0.0.0:1"), "0.0.0.0 is not a loopback address: pass --proxy-key KEY"),
        (("proxy", "--on-denied", "stop"), "--on-denied stop needs a command: use cycles run, or leave the option out"),
        (("proxy", "--allow-host", "h"), "--allow-host needs the tunnel: pass --tunnel, or leave --no-tunnel out"),
        (("proxy", "--budget", "1USD", "--timezone", "UTC"), "--timezone"),
        (("report", "--budget", "20%"), "--budget 20% is a part of nothing: write it like 5USD"),
        (("report", "--keep", "none"), "there is no ledger none: cycles measure --keep none -- COMMAND makes one"),
        (("report", "--since", "1x"), "'1x' is not a time; write an age like 2h or 7d, or 2026-01-31T12:00:00Z"),
        (("runs", "reset", "none", "--yes"), "there is no kept run none; cycles run --keep NAME makes one"),
        (("runs", "delete", "a/b", "--yes"), "NAME must be a name of letters, digits, dots and dashes, got 'a/b'"),
        (
            ("prices", "check", "--provider", "openai", "--models", "f"),
            "--provider openai and --models f are both",
        ),
        (("prices", "show", "no-such-model"), "no price is known for the model 'no-such-model'"),
        (("balances",), "no server address; set CYCLES_BASE_URL or pass --base-url, or run a server with cycles dev"),
        (("balances", "--base-url", "http://h"), "no API key; set CYCLES_API_KEY, or put api_key into a profile"),
        (("balances", "--profile", "prod"), "there is no profile 'prod': "),
        (("balances", "--subject", "agent"), "'agent' is not KEY=VALUE; write it like agent=planner"),
        (("balances", "--subject", "team=a"), "'team' is not a level of a subject; use tenant, workspace, app"),
        (("commit", "r", "much"), "write it like"),
        (("commit", "r", "1USD"), "no server address"),
        (("reserve",), "reserve"),
        (("reconcile", "--provider", "openai", "--since", "0d"), "0d has no day; write it like 7d"),
        (("reconcile", "--provider", "openai", "--since", "2999-01-01"), "2999-01-01 lies in the future"),
        (("reconcile", "--provider", "openai", "--tolerance", "100.1%"), "'100.1%' is not a percentage; write it like"),
        (("reconcile", "--provider", "openai", "--alias", "=a"), "'=a' is not BILL=LEDGER; write it like gpt-4o=my-"),
        (("reconcile", "--provider", "openai"), "there is no admin key: set OPENAI_ADMIN_KEY to an admin key"),
        (("reconcile", "--provider", "openai", "--import"), "there is no terminal for a prompt; pass --yes to confirm"),
    ],
)
def test_wrong_usage_exits_2(
    run_here: Cycles, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for variable in ("OPENAI_ADMIN_KEY", "ANTHROPIC_ADMIN_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    ran = run_here(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert says in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[other]\n", "there is no profile 'prod' in {} (it has: other); pass one of them, or add [prod]"),
        ("prod = 1\n", "there is no profile 'prod' in {} (it has: none); pass one of them, or add [prod]"),
        ("[", "the profiles cannot be read: {} (it is not TOML: "),
    ],
)
def test_a_profile_that_is_not_there(run_here: Cycles, content: str, says: str) -> None:
    from cycles.journal._settings import profile_file

    file = profile_file()
    file.parent.mkdir(parents=True)
    file.write_text(content)
    ran = run_here("balances", "--profile", "prod")
    assert ran.status == 2
    assert says.format(file) in " ".join(ran.err.split())


def test_prices_that_cannot_be_written(run_here: Cycles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cycles.cli._newer_prices.changed_models", lambda source: {"m": {"input": "1", "output": "2"}})
    file = tmp_path / "missing" / "prices.json"
    ran = run_here("prices", "update", str(file))
    assert ran.status == 2
    assert f"{file} cannot be written: " in ran.err
    assert "pass another file" in ran.err
    file.parent.mkdir()
    ran = run_here("prices", "update", str(file))
    assert (ran.status, ran.out.splitlines()[0]) == (0, "m: input 1, output 2 USD per million tokens")


def test_models_without_a_price_exit_1(run_here: Cycles, tmp_path: Path) -> None:
    file = tmp_path / "models"
    file.write_text("gpt-4o\nno-such-model\n")
    ran = run_here("prices", "check", "--models", str(file))
    assert (ran.status, ran.out.splitlines()) == (
        1,
        ["no-such-model: no price", "checked 2 models, 1 without a price"],
    )
    file.write_text("gpt-4o\n")
    assert run_here("prices", "check", "--models", str(file)).status == 0


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (cycles.ConfigurationError("x"), 2, "WRONG_USAGE"),
        (cycles.InvalidRequestError("x"), 2, "WRONG_USAGE"),
        (cycles.TransportError("x"), 3, "TRANSPORT_ERROR"),
        (cycles.ServerError("x", status=500, code="INTERNAL_ERROR"), 3, "INTERNAL_ERROR"),
        (cycles.ServerError("x", status=502), 3, "TRANSPORT_ERROR"),
        (cycles.ProtocolError("x", status=401), 1, "UNAUTHORIZED"),
        (cycles.ProtocolError("x", status=403), 1, "FORBIDDEN"),
        (cycles.ProtocolError("x", status=404), 1, "NOT_FOUND"),
        (cycles.ProtocolError("x", status=400), 1, "INVALID_REQUEST"),
        (cycles.ProtocolError("x", status=418), 1, "TRANSPORT_ERROR"),
        (cycles.ProtocolError("x", status=409, code="BUDGET_EXCEEDED"), 1, "BUDGET_EXCEEDED"),
        (cycles.ReservationDeniedError("x", status=200, reason_code="BUDGET_FROZEN"), 1, "BUDGET_FROZEN"),
        (cycles.ProtocolError("x", status=200, code="A", reason_code="B"), 1, "A"),
    ],
)
def test_each_kind_of_error_has_its_exit_status_and_code(error: Any, status: int, code: str) -> None:
    from cycles.cli._frame import error_document, status_of

    assert status_of(error) == status
    assert error_document(error) == {"error": code, "message": str(error)}


def config_of(**settings: Any) -> Callable[[], object]:
    return lambda: cycles.Config(base_url="http://h", api_key="k", **settings)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: SDK.Cycles("x"), cycles.ConfigurationError, "config must be a cycles.Config, got a value of type"),
        (
            config_of(default_headers=5),
            cycles.ConfigurationError,
            "default_headers must map names to values, got a value",
        ),
        (config_of(journal_store="ftp://h"), cycles.ConfigurationError, "'ftp://h'; begin it with one of redis://"),
        (lambda: setattr(cycles.usd(1), "amount", 5), AttributeError, "Amount is immutable; make a new one"),
        (lambda: cycles.Amount.parse("1.2.3USD"), cycles.InvalidRequestError, "write it like"),
        (lambda: cycles.Amount.parse("--TOKENS"), cycles.InvalidRequestError, "write it like"),
        (
            lambda: cycles.Action("k", "n", policy_keys=5),
            cycles.InvalidRequestError,
            "action.policy_keys must be a cycles.PolicyKeys, got 5",
        ),
        (
            lambda: SDK.PolicyKeys(custom=5),
            cycles.InvalidRequestError,
            "policy_keys.custom must be a mapping of strings, got 5",
        ),
        (lambda: SDK.kinds.for_tool(5), cycles.InvalidRequestError, "name must be the name of a tool, a str: got 5"),
        (
            lambda: cycles.PriceBook({"m": {"input": "1", "output": "1", "x": "1"}}),
            cycles.InvalidRequestError,
            "a price has no member 'x': use input, output, cached_input",
        ),
        (
            lambda: cycles.PriceBook({"m": {"input": "1"}}),
            cycles.InvalidRequestError,
            "a price needs the rates of input and output: output is missing",
        ),
        (
            lambda: cycles.PriceBook({"m": ("1",)}),
            cycles.InvalidRequestError,
            "a price must be a cycles.Price, a mapping or rates in order",
        ),
        (
            lambda: SDK.PriceBook({"m": PRICE}).cost(cycles.Usage(), tokens_input=1),
            cycles.InvalidRequestError,
            "cost() needs either a usage or response, or a model name with counts: pass one of them",
        ),
        (lambda: cycles.Price("x", "1"), cycles.InvalidRequestError, "a rate must be USD per million tokens, like"),
        (lambda: cycles.Price(-1, 1), cycles.InvalidRequestError, "0 or more, got -1"),
        (lambda: cycles.Price(True, 1), cycles.InvalidRequestError, "0 or more, got True"),
        (lambda: cycles.Price("1" * 31, 1), cycles.InvalidRequestError, "a rate must have at most 30 digits"),
        (lambda: SDK.Price(None, 1), cycles.InvalidRequestError, "a price needs the rates of input and output"),
        (lambda: cycles.Price(1, 1, above={-1: PRICE}), cycles.InvalidRequestError, "above must map integers"),
        (lambda: SDK.Price(1, 1, tiers=5), cycles.InvalidRequestError, "tiers must be a mapping, got 5"),
        (lambda: FakeProvider().url_of("x"), cycles.InvalidRequestError, "provider must be one of "),
        (lambda: SDK.no_such_name, AttributeError, "module 'cycles' has no attribute 'no_such_name'"),
        (lambda: count("5"), ReportError, "'5' is no number of calls"),
        (lambda: count(-1), ReportError, "-1 is no number of calls"),
        (lambda: count(True), ReportError, "True is no number of calls"),
        (lambda: exact("1e999", 1), ReportError, "'1e999' is no amount"),
        (lambda: exact("NaN", 1), ReportError, "'NaN' is no amount"),
        (lambda: exact(True, 1), ReportError, "True is no amount"),
    ],
)
def test_a_wrong_value_is_named(make: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert says in str(raised.value)
