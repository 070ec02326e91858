"""The commands that read and change reservations: results, documents and exit statuses."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.cli import _format
from cycles.cli._options import moment
from tests.operators.conftest import Cycles
from tests.operators.kit import ROOT

ACTION = ("--action", "llm.completion/gpt-4o")


@pytest.fixture
def client(configured: cycles.EmbeddedServer) -> cycles.Cycles:
    return configured.client(tenant="acme", journal=False)


def reserve(client: cycles.Cycles, *, agent: str = "bot", cents: int = 5) -> str:
    guard = client.reserve(
        cycles.Amount("USD_MICROCENTS", cents * 1_000_000),
        action=("llm.completion", "gpt-4o"),
        subject={"agent": agent},
    ).acquire()
    reservation_id = guard.reservation_id
    assert reservation_id is not None
    guard.detach()
    return reservation_id


def commit(client: cycles.Cycles, agent: str, cents: int) -> None:
    client.commit_reservation(reserve(client, agent=agent), cycles.Amount("USD_MICROCENTS", cents * 1_000_000))


def test_balances(run: Cycles, client: cycles.Cycles) -> None:
    commit(client, "bot", 4)
    reserve(client)
    ran = run("balances", "--tree", "--json")
    assert ran.status == 0
    found = {(row["scope_path"], row["remaining"]["unit"]): row for row in ran.document["balances"]}
    assert found["tenant:acme/agent:bot", "USD_MICROCENTS"]["spent"]["amount"] == 4_000_000
    assert found["tenant:acme", "USD_MICROCENTS"]["reserved"]["amount"] == 5_000_000
    assert len(found) == 3
    bot = run("balances", "--subject", "agent=bot").out.splitlines()[-1].split()
    assert bot == ["tenant:acme/agent:bot", "USD", "$0.04", "$0.05", "$0.91", "$1.00", "#=.........."]


def test_the_bar_of_a_budget_counts_debt_as_spent(run: Cycles, configured: cycles.EmbeddedServer) -> None:
    configured.ledger.set_budget("tenant:acme/agent:owes", cycles.usd(12), spent=100_000_000, debt=200_000_000)
    shown = run("balances", "--subject", "agent=owes").out.splitlines()[-1].split()
    assert shown[-1] == "###........."


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process is fixed there")
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Bogota"])
def test_a_time_without_an_offset_is_one_of_the_own_zone(
    run: Cycles, client: cycles.Cycles, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(client)
    try:
        with monkeypatch.context() as environment:
            environment.setenv("TZ", zone)
            time.tzset()
            before, after = (datetime.now() + timedelta(hours=hours) for hours in (-1, 1))  # noqa: DTZ005
            assert len(run("reservations", "--since", before.isoformat(), "--json").document["reservations"]) == 1
            assert run("reservations", "--since", after.isoformat(), "--json").document["reservations"] == []
    finally:
        time.tzset()


def test_reservations_and_one_of_them(run: Cycles, client: cycles.Cycles) -> None:
    commit(client, "other", 4)
    active = reserve(client)
    rows = run("reservations", "--json").document["reservations"]
    assert [row["status"] for row in rows] == ["ACTIVE", "COMMITTED"]
    assert run("reservations", "--status", "active", "--json").document["reservations"] == rows[:1]
    assert run("reservations", "--limit", "1", "--json").document["reservations"] == rows[:1]
    assert run("reservations", "--subject", "agent=other", "--json").document["reservations"] == rows[1:]
    assert run("reservations", "--since", "2h", "--json").document["reservations"] == rows
    assert run("reservations", "--since", "2999-01-01T00:00:00Z", "--json").document == {
        "reservations": [],
        "has_more": False,
    }
    shown = run("reservations").out
    assert active in shown
    assert "llm.completion/gpt-4o  tenant:acme/agent:bot" in shown
    detail = run("reservation", active)
    assert detail.status == 0
    assert "reserved     $0.05" in detail.out
    assert run("reservation", active, "--json").document["reservation_id"] == active
    missing = run("reservation", "nonsense", "--json")
    assert (missing.status, missing.document["error"]) == (1, "NOT_FOUND")


def test_reservations_are_the_newest_50_by_default_and_say_that_there_are_more(
    run_here: Cycles, client: cycles.Cycles
) -> None:
    for _ in range(51):
        commit(client, "bot", 1)
    document = run_here("reservations", "--json").document
    assert (len(document["reservations"]), document["has_more"]) == (50, True)
    whole = run_here("reservations", "--json", "--limit", "51").document
    assert (len(whole["reservations"]), whole["has_more"]) == (51, False)
    assert whole["reservations"][:50] == document["reservations"]
    ran = run_here("reservations")
    assert ran.err == "there are more than these 50: pass a larger --limit, or --since, --status or --subject\n"
    assert run_here("reservations", "--limit", "100").err == ""


def test_spend_by_workspace_scope_and_agents_of_the_same_name(run: Cycles, client: cycles.Cycles) -> None:
    for workspace, agent in (("prod", "bot"), ("test", "bot"), ("test", "other")):
        subject = {"workspace": workspace, "agent": agent}
        with client.reserve(cycles.usd("0.05"), action=("llm.completion", "gpt-4o"), subject=subject) as guard:
            guard.commit(cycles.usd("0.01"))

    def keys(by: str) -> list[str]:
        return sorted(row["key"] for row in run("spend", "--by", by, "--json").document["spend"])

    assert keys("agent") == ["other", "prod/bot", "test/bot"]
    assert keys("workspace") == ["prod", "test"]
    assert keys("scope") == [
        "tenant:acme/workspace:prod/agent:bot",
        "tenant:acme/workspace:test/agent:bot",
        "tenant:acme/workspace:test/agent:other",
    ]
    wrong = run("spend", "--by", "tool")
    assert (wrong.status, len(wrong.err.splitlines())) == (2, 2)


def test_spend_by_agent_action_and_day(run: Cycles, client: cycles.Cycles) -> None:
    began_ms = _format.now_ms()
    commit(client, "bot", 4)
    commit(client, "bot", 2)
    commit(client, "other", 1)
    reserve(client)
    ran = run("spend", "--json")
    assert ran.document == {
        "spend": [
            {"key": "bot", "unit": "USD_MICROCENTS", "amount": 6_000_000, "reservations": 2},
            {"key": "other", "unit": "USD_MICROCENTS", "amount": 1_000_000, "reservations": 1},
        ]
    }
    [row] = run("spend", "--by", "action", "--json").document["spend"]
    assert (row["key"], row["amount"]) == ("llm.completion/gpt-4o", 7_000_000)
    days = run("spend", "--by", "day", "--json").document["spend"]
    assert sum(row["amount"] for row in days) == 7_000_000
    assert {row["key"] for row in days} <= {_format.moment(at)[:10] for at in (began_ms, _format.now_ms())}
    assert run("spend", "--since", "2999-01-01T00:00:00Z", "--json").document == {"spend": []}
    shown = run("spend")
    assert shown.out.splitlines()[1].split() == ["bot", "$0.06", "2", "#" * 12]
    assert shown.err == "calculated from committed reservations; events and pooled calls are not itemised\n"


def test_spend_is_that_of_seven_days_by_the_day_of_the_commit(run: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    day_ms = 86_400_000
    midnight_ms = (_format.now_ms() // day_ms - 5) * day_ms
    clock = cycles.ManualClock(midnight_ms - 3 * day_ms)
    budgets = {"tenant:acme": [cycles.usd(10), cycles.tokens(9)]}
    with cycles.EmbeddedServer(budgets, clock=clock) as server, server.listen() as url:
        client = server.client(tenant="acme", journal=False)
        options: dict[str, Any] = {"action": ("llm.completion", "gpt-4o"), "ttl_ms": 600_000}
        with client.reserve(cycles.usd(1), **options) as early:
            early.commit(cycles.usd(1))
        clock.advance(3 * day_ms - 60_000)
        with client.reserve(cycles.usd(2), **options) as guard, client.reserve(cycles.tokens(9), **options) as other:
            clock.advance(120_000)
            other.commit(cycles.tokens(9))
            guard.commit(cycles.usd(2))
        for name, value in {"BASE_URL": url, "API_KEY": server.api_key, "TENANT": "acme"}.items():
            monkeypatch.setenv(f"CYCLES_{name}", value)
        rows = run("spend", "--by", "day", "--json").document["spend"]
        assert [(row["key"], row["unit"], row["amount"]) for row in rows] == [
            (_format.moment(midnight_ms)[:10], "TOKENS", 9),
            (_format.moment(midnight_ms)[:10], "USD_MICROCENTS", 200_000_000),
        ]
        assert [line.split()[-1] for line in run("spend").out.splitlines()[1:]] == ["#" * 12] * 2
        since = datetime.fromtimestamp(midnight_ms // 1000, UTC).isoformat()  # both were reserved before it
        assert run("spend", "--by", "day", "--since", since, "--json").document["spend"] == rows


@pytest.mark.parametrize(
    ("age", "seconds"), [("30s", 30), ("2m", 120), ("3h", 10_800), ("4d", 345_600), ("1w", 604_800)]
)
def test_an_age_is_so_long_ago(age: str, seconds: int) -> None:
    before = datetime.now(UTC)
    found = moment(age) + timedelta(seconds=seconds)
    assert before <= found <= datetime.now(UTC)


def test_spend_by_model_itemises_chunks_of_pools(run: Cycles, client: cycles.Cycles) -> None:
    commit(client, "bot", 4)
    with client.pool(limit=cycles.usd("0.4"), max_held=cycles.usd("0.4"), action=("llm.completion", "gpt-4o")) as pool:
        for model, cost in (("gpt-4o-mini", "0.002"), ("gpt-4o", "0.03")):
            with pool.reserve(cycles.usd("0.05"), action=("llm.completion", model)) as guard:
                guard.commit(cycles.usd(cost))
    ran = run("spend", "--by", "model", "--json")
    assert ran.document == {
        "spend": [
            {"key": "gpt-4o", "unit": "USD_MICROCENTS", "amount": 7_000_000, "reservations": 2},
            {"key": "gpt-4o-mini", "unit": "USD_MICROCENTS", "amount": 200_000, "reservations": 1},
        ]
    }
    assert run("spend", "--by", "model").err.splitlines()[-1] == "of it pooled: gpt-4o $0.03, gpt-4o-mini $0.002"


def test_release_extend_and_commit_by_hand(run: Cycles, client: cycles.Cycles) -> None:
    reservation_id = reserve(client)
    before = client.reservation(reservation_id).expires_at_ms
    ran = run("extend", reservation_id, "60000", "--yes", "--json")
    assert ran.status == 0
    assert ran.document["expires_at_ms"] > before
    ran = run("commit", reservation_id, "0.04USD", "--yes", "--json")
    assert (ran.status, ran.document["charged"]["amount"]) == (0, 4_000_000)
    again = run("commit", reservation_id, "0.04USD", "--yes", "--json")
    assert (again.status, again.document["error"]) == (1, "RESERVATION_FINALIZED")
    other = reserve(client)
    ran = run("release", other, "--reason", "stuck", "--yes")
    assert (ran.status, ran.out) == (0, "released $0.05\n")
    assert run("release", other, "--yes").status == 1


@pytest.mark.parametrize(
    "arguments",
    [("release", "rsv-1"), ("extend", "rsv-1", "5"), ("commit", "rsv-1", "5USD")],
    ids=lambda words: words[0],
)
def test_a_repair_without_a_terminal_needs_yes(
    run: Cycles, configured: cycles.EmbeddedServer, arguments: tuple[str, ...]
) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert "there is no terminal for a prompt; pass --yes to confirm" in ran.err
    assert not configured.requests


@pytest.mark.parametrize(("reply", "status"), [("yes\n", 0), ("no\n", 130)])
def test_a_repair_prompts_on_a_terminal(
    run_here: Cycles, client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch, reply: str, status: int
) -> None:
    class Terminal:
        isatty = staticmethod(lambda: True)
        readline: Callable[[], str] = staticmethod(lambda: reply)

    reservation_id = reserve(client)
    monkeypatch.setattr(sys, "stdin", Terminal())
    ran = run_here("release", reservation_id)
    assert ran.status == status
    assert f"release the budget of reservation {reservation_id}? [y/N] " in ran.err
    assert client.reservation(reservation_id).status == ("RELEASED" if status == 0 else "ACTIVE")


def test_check_says_what_the_server_would_decide(run: Cycles, configured: cycles.EmbeddedServer) -> None:
    ran = run("check", "5USD", *ACTION, "--json")
    assert (ran.status, ran.document["decision"]) == (0, "ALLOW")
    ran = run("check", "5USD", *ACTION, "--subject", "agent=bot", "--json")
    assert (ran.status, ran.document["reason_code"]) == (1, "BUDGET_EXCEEDED")
    assert "BUDGET_EXCEEDED" in run("check", "50USD", *ACTION).out
    configured.ledger.set_budget("tenant:acme", cycles.usd(10), caps={"max_tokens": 500})
    ran = run("check", "5USD", *ACTION)
    assert ran.status == 0
    assert ["cap", "max_tokens", "500"] in [line.split() for line in ran.out.splitlines()]


def test_record_charges_once_per_key(run: Cycles, configured: cycles.EmbeddedServer) -> None:
    for _ in range(2):
        ran = run("record", "0.5USD", *ACTION, "--idempotency-key", "mine", "--json")
        assert ran.status == 0
        assert ran.document["event_id"]
    assert configured.ledger.balance("tenant:acme", unit="USD_MICROCENTS").spent == cycles.usd("0.5")
    other = run("record", "0.6USD", *ACTION, "--idempotency-key", "mine", "--json")
    assert (other.status, other.document["error"]) == (1, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize("arguments", [("record", "0.5USD", *ACTION), ("commit", "rsv-1", "0.5USD", "--yes")])
def test_an_amount_that_is_not_confirmed_is_in_the_journal(
    run: Cycles, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    for name, value in (("BASE_URL", "http://127.0.0.1:9"), ("API_KEY", "k"), ("TENANT", "acme")):
        monkeypatch.setenv(f"CYCLES_{name}", value)
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0.1")
    ran = run(*arguments, "--json")
    assert (ran.status, ran.document) == (4, {"status": "PENDING"})
    [kept] = run("pending", "--json").document["records"]
    assert kept["amount"] == {"unit": "USD_MICROCENTS", "amount": 50_000_000}
    monkeypatch.setenv("CYCLES_JOURNAL", "off")
    ran = run(*arguments, "--json")
    assert (ran.status, ran.document["error"]) == (3, "TRANSPORT_ERROR")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "5EUR", *ACTION], "'5EUR' names no unit; use USD"),
        (["check", "nonsense", *ACTION], "write it like '$0.50' or '2500 tokens'"),
        (["check", "5USD", "--action", "gpt-4o"], "'gpt-4o' is not KIND/NAME; write it like llm.completion/gpt-4o"),
        (["check", "5USD"], "--action"),
        (["record", "5USD", *ACTION, "--subject", "bot"], "'bot' is not KEY=VALUE; write it like agent=planner"),
        (["reservations", "--since", "yesterday"], "write an age like 2h or 7d, or 2026-01-31T12:00:00Z"),
        (["reservations", "--limit", "0"], "0 is not an integer of 1 or more"),
        (["reservations", "--status", "nonsense"], "active"),
        (["spend", "--by", "nonsense"], "agent"),
        (["extend", "rsv-1", "soon", "--yes"], "'soon' is not an integer from 1 to"),
        (["reservation"], "ID"),
        (["docs", "nonsense"], "there is no page 'nonsense'; cycles docs lists them"),
        (["evidence", "verify", "/nonexistent"], "pass a file or an id of 64 hex digits"),
        (["dev", "--budget", "tenant:acme"], "write it like tenant:acme=10USD"),
        (["dev", "--budget", "tenant:acme=10EUR"], "names no unit"),
        (["dev", "--budget", "acme=10USD"], "acme"),
        (["dev", "--api-key", "nonsense"], "write it like KEY=TENANT"),
        (["dev", "--port", "70000"], "70000"),
        (["dev", "--db", str(ROOT / "README.md"), "--port", "0"], "README.md"),
    ],
    ids=lambda value: " ".join(value).replace(f"{ROOT}/", "") if isinstance(value, list) else "",
)
def test_wrong_usage_exits_2_and_says_what_to_type(
    run: Cycles, configured: cycles.EmbeddedServer, arguments: list[str], message: str
) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message.lower() in ran.err.lower()
    assert not configured.requests


def test_docs_prints_the_pages_of_the_package(run: Cycles) -> None:
    pages = {page["name"]: page["title"] for page in run("docs", "--json").document["pages"]}
    assert pages["SKILL"] == "Guard paid calls with Cycles"
    assert pages["protocol/settlement"] == "Settlement"
    assert run("docs", "SKILL").out == (ROOT / "cycles/SKILL.md").read_text("utf-8")
    assert run("docs", "docs/recovery.md").out == (ROOT / "docs/recovery.md").read_text("utf-8")
    assert run("docs", "recovery", "--json").document["title"] == "What happens when it crashes: settlement recovery"


def test_spec_diff_prints_the_report_of_the_generator(run: Cycles, tmp_path: Path) -> None:
    operations = {"/v1/decide": {"get": {"operationId": "decide", "responses": {"204": {"description": "none"}}}}}
    document, changed = tmp_path / "old.json", tmp_path / "new.json"
    whole = {"openapi": "3.1.0", "info": {"title": "Small", "version": "1"}, "paths": operations}
    document.write_text(json.dumps(whole), "utf-8")
    changed.write_text(json.dumps(whole).replace("/v1/decide", "/v1/decided"), "utf-8")
    ran = run("spec", "diff", str(document), str(document))
    assert ran.status == 0
    assert "no difference in what is sent or read" in ran.out
    ran = run("spec", "diff", str(document), str(changed), "--json")
    assert (ran.status, ran.document["breaking"]) == (1, True)
    assert run("spec", "diff", str(document), "/nonexistent").status == 2


def test_spec_diff_needs_the_development_extra(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "generator", None)
    monkeypatch.setitem(sys.modules, "generator.diff", None)
    monkeypatch.setitem(sys.modules, "generator.diff.__main__", None)
    ran = run_here("spec", "diff", "a", "b")
    assert ran.status == 2
    assert "pip install -e '.[dev]'" in ran.err


def test_evidence_verify_by_file_and_by_id(run: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, evidence_key="11" * 32) as server,
        server.listen() as url,
    ):
        for name, value in (("BASE_URL", url), ("API_KEY", server.api_key), ("TENANT", "acme")):
            monkeypatch.setenv(f"CYCLES_{name}", value)
        client = cycles.Cycles(journal=False)
        decided = client.decide(cycles.usd("0.1"), action=("a", "b"))
        assert decided.cycles_evidence is not None
        evidence_id = decided.cycles_evidence.evidence_id
        envelope, keys = tmp_path / "envelope.json", tmp_path / "keys.json"
        envelope.write_text(json.dumps(client.evidence(evidence_id).to_dict()))
        keys.write_text(json.dumps(client.evidence_keys().to_dict()))
        client.close()
        by_id = run("evidence", "verify", evidence_id, "--json")
        assert (by_id.status, by_id.document["disposition"]) == (0, "authentic")
        assert run("evidence", "verify", evidence_id, "--keys", str(keys)).out.startswith("authentic\n")
        assert run("evidence", "verify", "0" * 64, "--json").document["error"] == "NOT_FOUND"
    by_file = run("evidence", "verify", str(envelope), "--keys", str(keys), "--json")
    assert (by_file.status, by_file.document) == (0, by_id.document)
    assert run("evidence", "verify", str(envelope)).status == 1
    rejected = run("evidence", "verify", str(keys), "--json")
    assert rejected.status == 2
    assert "rejected" in rejected.document


def test_no_command_prints_the_api_key(
    run: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for key in (configured.api_key, "cyc_live_secretsecret"):
        monkeypatch.setenv("CYCLES_API_KEY", key)
        for arguments in (
            ("doctor",),
            ("balances",),
            ("reservations", "--json"),
            ("flush",),
            ("check", "5USD", *ACTION),
        ):
            ran = run(*arguments)
            assert key not in ran.out + ran.err + caplog.text


def test_mcp_without_its_package_says_what_to_install(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["mcp", *(name for name in sys.modules if name.startswith("mcp."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "cycles.cli._mcp_server", raising=False)
    ran = run_here("mcp")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "error: cycles mcp needs the package mcp; install it with pip install '.[mcp]'\n"
