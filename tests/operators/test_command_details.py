"""What single options and arguments of commands change."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

import cycles
from cycles.cli import balances
from tests.operators.conftest import Cycles

ADMIN_KEY = "cyc_admin_s3cret"


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server whose administration is that of the commands."""
    budgets = {"tenant:acme": cycles.usd(10)}
    with cycles.EmbeddedServer(budgets, admin_api_key=ADMIN_KEY) as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_ADMIN_BASE_URL", url)
        monkeypatch.setenv("CYCLES_ADMIN_API_KEY", ADMIN_KEY)
        yield url


def test_the_reason_of_each_change_is_in_the_audit_log(run_here: Cycles, managed: str) -> None:
    changes: dict[str, list[str]] = {"set": ["20USD"], "freeze": [], "unfreeze": []}
    for verb, more in changes.items():
        ran = run_here("budget", verb, "tenant:acme", *more, "--yes", "--reason", f"why {verb}")
        assert ran.status == 0, ran
    assert run_here("fund", "tenant:acme", "1USD", "--yes", "--reason", "why fund").status == 0
    with cycles.Admin(managed, ADMIN_KEY) as admin:
        reasons = [(entry.metadata or {}).get("reason") for entry in admin.audit()]
    assert sorted(filter(None, reasons)) == ["why freeze", "why fund", "why set", "why unfreeze"]


def test_an_envelope_may_come_through_a_pipe(run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, evidence_key="11" * 32) as server,
        server.client(tenant="acme") as client,
    ):
        decided = client.decide(cycles.usd("0.1"), action=("a", "b"))
        assert decided.cycles_evidence is not None
        envelope = json.dumps(client.evidence(decided.cycles_evidence.evidence_id).to_dict()).encode()
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps(client.evidence_keys().to_dict()))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(envelope)))
    ran = run_here("evidence", "verify", "-", "--keys", str(keys), "--json")
    assert (ran.status, ran.document["disposition"]) == (0, "authentic")


def test_a_value_of_a_subject_may_contain_an_equals_sign() -> None:
    options = ["--subject", "dimensions.team=a=b", "--subject", "agent=x=y"]
    given = balances.command.make_context("balances", options).params["subject"]
    assert given == {"dimensions": {"team": "a=b"}, "agent": "x=y"}


def waits_of_balances(
    server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, budget: cycles.Amount
) -> list[float]:
    """Add a budget in the first wait of `balances --watch`, and interrupt the second; return the list of its waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise click.Abort
        server.ledger.set_budget("tenant:acme/agent:new", budget)

    monkeypatch.setattr("cycles.cli.balances.time", SimpleNamespace(sleep=sleep))
    return waits


def test_the_balances_below_a_subject_are_watched_too(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = waits_of_balances(configured, monkeypatch, cycles.usd(1))
    ran = run_here("balances", "--watch", "--tree", "--json")
    views = [json.loads(line)["balances"] for line in ran.out.splitlines()]
    assert (ran.status, waits) == (130, [2.0, 2.0])
    assert [len({row["scope_path"] for row in rows}) for rows in views] == [2, 3]
    assert ["include_children=true" in request.target for request in configured.requests] == [True, True]


def test_a_call_that_was_free_costs_nothing_in_lists_and_hides_no_other(
    run_here: Cycles, configured: cycles.EmbeddedServer
) -> None:
    client = configured.client(tenant="acme", journal=False)
    for cost in ("0.02", "0", "0.03"):
        with client.reserve(cycles.usd("0.05"), action=("llm.completion", "m"), actual=cycles.usd(cost)):
            pass
    [row] = run_here("spend", "--json").document["spend"]
    assert (row["amount"], row["reservations"]) == (5_000_000, 3)
    shown = [line.split()[2] for line in run_here("reservations").out.splitlines()[1:]]
    assert sorted(shown) == ["$0.00", "$0.02", "$0.03"]
