"""What commands do with a rare value of an option, a setting or a response: none, zero, the second of two, the last."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import httpx
import pytest
from rich.text import Text

import cycles
from cycles._journal.operators.inspect import InspectedRecord
from cycles._journal.operators.inspect_store import StoreView
from cycles._journal.stores.memory import MemoryStore
from cycles.cli import (
    _checks,
    _format,
    _frame,
    _newer_prices,
    _proxying,
    _server_checks,
    balances,
    reconcile,
    top,
)
from cycles.cli._mcp_desk import Desk
from cycles.cli._server_checks import _budget as check_budgets
from cycles.cli._top_keys import Controls
from cycles.cli._top_view import Snapshot
from cycles.cli.balances import _row as row_of_budget, _table as table_of_budgets
from cycles.cli.reconcile import _key as key_of_provider, _period as period_of
from cycles.cli.run import _captured_hosts as captured_hosts
from cycles.cli.spend import _without_workspaces as without_workspaces
from cycles.cli.top import _read_again as read_again
from cycles.journal import _commands, _places
from cycles.journal._commands import _change as change_record
from cycles.journal._table import print_records
from cycles.journal._terminal import TextTerminal, print_document
from tests.operators.conftest import Cycles
from tests.operators.test_commands import ACTION, commit, reserve
from tests.operators.test_top import drawn

CENT = 1_000_000


def balance(scope: str, left: int, *, of: int | None = 10, unit: str = "TOKENS", **more: Any) -> cycles.Balance:
    allocated = None if of is None else cycles.Amount(unit, of)
    return cycles.Balance(
        scope=scope, scope_path=scope, remaining=cycles.SignedAmount(unit, left), allocated=allocated, **more
    )


# --- output


class Flushed(io.StringIO):
    """Standard output that keeps what is written until it is flushed."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


def test_a_document_and_a_line_reach_a_reader_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := Flushed())
    print_document({"a": 1})
    assert out.seen == '{"a": 1}\n'
    TextTerminal(json=False).line("b")
    assert out.seen == '{"a": 1}\nb\n'


class Full(io.StringIO):
    """Standard output of a full disk: what fails is the writing of its buffer."""

    def __init__(self, descriptor: int, error: OSError) -> None:
        super().__init__()
        self.fileno = lambda: descriptor  # type: ignore[method-assign]
        self.error = error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EIO, 1), (errno.EPIPE, 0)])
def test_output_that_cannot_be_written_at_the_end(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    with (tmp_path / "out").open("w") as file, monkeypatch.context() as own:
        own.setattr(sys, "stdout", Full(file.fileno(), OSError(number, os.strerror(number))))
        ran = run_here("docs")
    assert (ran.status, "the output cannot be written" in ran.err) == (status, status == 1)


def test_no_cell_of_a_table_has_an_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    entry = InspectedRecord(id="a", state="rejected", path="/p", reservation_id="\x1b[31mr", reason="\x1b]0;x\x07")
    print_records(TextTerminal(json=False), [entry])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("ms", [253_402_300_800_000, -62_135_596_800_001, 10**20])
def test_a_time_that_no_calendar_has(ms: int) -> None:
    assert _format.moment(ms) == f"{ms} ms"


@pytest.mark.parametrize(
    ("left", "of", "used"), [(0, 0, 1.0), (-1, 0, 1.0), (1, 0, 0.0), (5, 10, 0.5), (0, 10, 1.0), (-5, None, 0.0)]
)
def test_the_used_share_of_a_budget(left: int, of: int | None, used: float) -> None:
    assert _format.used(balance("a", left, of=of)) == used


@pytest.mark.parametrize(
    ("spent", "reserved", "bar"),
    [
        (0, 0, "............"),
        (1, 1, "#=.........."),
        (600, 300, "######===..."),
        (600, 600, "######======"),
        (1200, 300, "############"),
        (1300, 0, "############"),
        (0, 1200, "============"),
    ],
)
def test_the_bar_of_a_budget(spent: int, reserved: int, bar: str) -> None:
    found = balance("a", 1, of=1_200, spent=cycles.tokens(spent), reserved=cycles.tokens(reserved))
    assert _format.bar(found, colour=False).plain == bar


@pytest.mark.parametrize(
    ("left", "over", "style"), [(1, False, ""), (0, False, "red"), (-1, False, "red"), (1, True, "red")]
)
def test_what_is_left_is_red_if_nothing_can_be_reserved(left: int, over: bool, style: str) -> None:
    row = row_of_budget(balance("a", left, is_over_limit=over), tree=False, colour=True)
    cell = row[5]
    assert isinstance(cell, Text)
    assert (cell.plain, cell.style) == (str(left), style)


@pytest.mark.parametrize("debts", [(), (0,), (5,), (0, 5), (5, 0)], ids=str)
def test_the_column_of_debts_is_there_if_one_budget_has_one(debts: tuple[int, ...]) -> None:
    found = [balance(f"a{number}", 1, debt=cycles.tokens(debt)) for number, debt in enumerate(debts)]
    columns, rows = table_of_budgets(found, tree=False, colour=False)
    assert ("debt" in columns) is (5 in debts)
    assert {len(row) for row in rows} <= {len(columns)}
    if "debt" in columns:
        assert [row[columns.index("debt")] for row in rows] == ["5" if debt else "" for debt in debts]


# --- settings and options


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (cycles.RateLimitedError("m", status=429), 1),
        (cycles.ServerError("m", status=503), 3),
        (cycles.TransportError("m"), 3),
        (cycles.AmbiguousResponseError("m"), 3),
        (cycles.BudgetExceededError("m"), 1),
        (cycles.ConfigurationError("m"), 2),
        (cycles.StoreError("m"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_status_of_an_error(error: cycles.CyclesError, status: int) -> None:
    assert _frame.status_of(error) == status


def test_an_option_of_a_command_goes_before_that_of_the_group(
    run_here: Cycles, configured: cycles.EmbeddedServer
) -> None:
    url, gone = os.environ["CYCLES_BASE_URL"], "http://127.0.0.1:9"
    ran = run_here("--base-url", gone, "--tenant", "other", "balances", "--base-url", url, "--tenant", "acme", "--json")
    assert (ran.status, len(ran.document["balances"])) == (0, 3)


@pytest.mark.parametrize("arguments", [("release", "r"), ("extend", "r", "5"), ("commit", "r", "5USD")], ids=str)
def test_json_confirms_nothing(run_here: Cycles, configured: cycles.EmbeddedServer, arguments: tuple[str, ...]) -> None:
    ran = run_here(*arguments, "--json")
    assert (ran.status, ran.document["error"]) == (2, "WRONG_USAGE")
    assert "pass --yes to confirm" in ran.document["message"]
    assert not configured.requests


@pytest.mark.parametrize("given", ["agent=", "=x", "agent", "dimensions.team=", "=", "Agent=x"])
def test_a_subject_without_a_level_or_a_value_is_wrong_usage(run_here: Cycles, given: str) -> None:
    ran = run_here("balances", "--subject", given)
    assert (ran.status, ran.out) == (2, "")
    assert "--subject" in ran.err


def test_all_dimensions_of_a_subject_are_kept() -> None:
    options = [f"--subject={text}" for text in ("dimensions.a=1", "agent=x", "dimensions.b=2", "app=y")]
    given = balances.command.make_context("balances", options).params["subject"]
    assert given == {"dimensions": {"a": "1", "b": "2"}, "agent": "x", "app": "y"}


@pytest.mark.parametrize("variable", ["CYCLES_ADMIN_BASE_URL", "CYCLES_ADMIN_API_KEY"])
def test_a_profile_may_have_one_of_two_settings(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, admin_api_key="key") as server, server.listen() as url:
        values = {"CYCLES_ADMIN_BASE_URL": url, "CYCLES_ADMIN_API_KEY": "key"}
        monkeypatch.setenv(variable, values.pop(variable))
        [(name, value)] = values.items()
        profiles = tmp_path / "xdg_config_home" / "cycles-sdk" / "config.toml"
        profiles.parent.mkdir(parents=True)
        profiles.write_text(f'[work]\n{name.removeprefix("CYCLES_").lower()} = "{value}"\n')
        assert len(run_here("budgets", "--profile", "work", "--json").document["budgets"]) == 1
        for other in values:  # the profile goes before the environment
            monkeypatch.setenv(other, "http://127.0.0.1:9" if other.endswith("URL") else "wrong")
        assert run_here("budgets", "--profile", "work", "--json").status == 0


@pytest.mark.parametrize("unit", ["USD_MICROCENTS", "usd_microcents", "TOKENS", "tokens"])
def test_the_unit_of_a_budget_that_is_frozen(run_here: Cycles, monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    budgets = {"tenant:acme": [cycles.usd(1), cycles.tokens(9)]}
    with cycles.EmbeddedServer(budgets, admin_api_key="key") as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_ADMIN_BASE_URL", url)
        monkeypatch.setenv("CYCLES_ADMIN_API_KEY", "key")
        assert run_here("budget", "freeze", "tenant:acme", "--unit", unit, "--yes").status == 0
        found = run_here("budgets", "--status", "frozen", "--json").document["budgets"]
    assert [each["unit"] for each in found] == [unit.upper()]


# --- reservations


def test_what_a_command_sends(run_here: Cycles, configured: cycles.EmbeddedServer) -> None:
    client = configured.client(tenant="acme", journal=False)
    assert run_here("release", reserve(client), "--reason", "stuck", "--yes").status == 0
    assert configured.requests.of("release")[-1].json["reason"] == "stuck"
    assert run_here("release", reserve(client), "--yes").status == 0
    assert "reason" not in configured.requests.of("release")[-1].json
    assert run_here("reservations", "--limit", "1000").status == 0
    assert "limit=200" in configured.requests[-1].target


@pytest.mark.parametrize(("actual", "line"), [("0.05USD", "charged $0.05"), ("0USD", "charged $0.00, released $0.05")])
def test_what_a_commit_has_released(
    run_here: Cycles, configured: cycles.EmbeddedServer, actual: str, line: str
) -> None:
    ran = run_here("commit", reserve(configured.client(tenant="acme", journal=False)), actual, "--yes")
    assert (ran.status, ran.out) == (0, f"{line}\n")


@pytest.mark.parametrize(("left", "charged"), [(100, "$0.50"), (0, "$0.00"), (20, "$0.20")])
def test_what_a_record_has_charged(
    run_here: Cycles, configured: cycles.EmbeddedServer, left: int, charged: str
) -> None:
    for unit_of in ("tenant:acme", "tenant:acme/agent:bot"):
        configured.ledger.set_budget(unit_of, cycles.usd(1), spent=(100 - left) * CENT)
    ran = run_here("record", "0.5USD", *ACTION, "--subject", "agent=bot")
    assert (ran.status, ran.out.partition(" as event ")[0]) == (0, f"charged {charged}")


def test_a_reservation_without_committed_metadata_shows_none(
    run_here: Cycles, configured: cycles.EmbeddedServer
) -> None:
    with configured.client(tenant="acme", journal=False) as client:
        guard = client.reserve(cycles.usd("0.05"), action=("a", "b"), metadata={"note": "mine"}).acquire()
        reservation_id = guard.reservation_id
        assert reservation_id is not None
        lines = run_here("reservation", reservation_id).out.splitlines()
        guard.release()
    names = [line.split()[:2] for line in lines]
    assert (["metadata", "note"] in names, ["committed", "note"] in names) == (True, False)


# --- spend


def test_days_are_in_their_order_and_other_rows_in_that_of_their_amounts(
    run_here: Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = cycles.ManualClock(_format.now_ms() - 3 * 86_400_000)
    budgets = {"tenant:acme": [cycles.usd(10), cycles.tokens(90)]}
    with cycles.EmbeddedServer(budgets, clock=clock) as server, server.listen() as url:
        client = server.client(tenant="acme", journal=False)
        for cents, tokens, agent in ((2, 3, "b"), (4, 1, "a"), (3, 2, "c")):
            for amount in (cycles.Amount("USD_MICROCENTS", cents * CENT), cycles.tokens(tokens)):
                with client.reserve(amount, action=("x", "y"), subject={"agent": agent}) as guard:
                    guard.commit(amount)
            clock.advance(86_400_000)
        for name, value in {"BASE_URL": url, "API_KEY": server.api_key, "TENANT": "acme"}.items():
            monkeypatch.setenv(f"CYCLES_{name}", value)
        found = {by: run_here("spend", "--by", by, "--json").document["spend"] for by in ("day", "agent")}
        table = run_here("spend", "--by", "agent").out.splitlines()[1:]
    assert [each["amount"] for each in found["day"]] == [3, 2 * CENT, 1, 4 * CENT, 2, 3 * CENT]
    assert [each["amount"] for each in found["agent"]] == [3, 2, 1, 4 * CENT, 3 * CENT, 2 * CENT]
    assert [line.split()[-1] for line in table] == ["#" * count for count in (12, 8, 4, 12, 9, 6)]


def test_the_calls_of_two_pools_are_one_sum(run_here: Cycles, configured: cycles.EmbeddedServer) -> None:
    client = configured.client(tenant="acme", journal=False)
    for cost in ("0.03", "0.02"):
        limit = cycles.usd("0.4")
        with (
            client.pool(limit=limit, max_held=limit, action=("llm.completion", "gpt-4o")) as pool,
            pool.reserve(cycles.usd("0.05"), action=("llm.completion", "gpt-4o")) as guard,
        ):
            guard.commit(cycles.usd(cost))
    assert run_here("spend").err.splitlines()[-1] == "of it pooled: gpt-4o $0.05"


def test_a_name_with_a_slash_is_an_agent_and_no_workspace() -> None:
    sums = {("w/a/b", "TOKENS"): [1, 1], ("w/b", "TOKENS"): [2, 1], ("v/b", "TOKENS"): [3, 1]}
    assert list(without_workspaces(sums)) == [("a/b", "TOKENS"), ("w/b", "TOKENS"), ("v/b", "TOKENS")]


# --- run


@pytest.mark.parametrize("status", [0, 1, 127, 128 + 15, 255])
def test_the_status_of_a_run_is_that_of_its_command(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended: Any = SimpleNamespace(status=status, document={"exit": status}, lines=["a", "b"])
    for as_json, printed in ((False, "cycles: a\ncycles: b\n"), (True, f'{{"exit": {status}}}\n')):
        assert _proxying.print_ended(_frame.Cli({"json": as_json}), ended) == status
        assert capsys.readouterr().err == printed


CODEX = frozenset({"api.openai.com"})


@pytest.mark.parametrize(
    ("command", "options", "possible", "hosts"),
    [
        ("codex", {}, True, CODEX),
        ("codex", {"agent_settings": False}, True, frozenset()),
        ("codex", {"tunnel": False}, True, frozenset()),
        ("codex", {}, False, frozenset()),
        ("other", {}, True, frozenset()),
    ],
)
def test_whose_connections_are_captured_without_an_option(
    monkeypatch: pytest.MonkeyPatch, command: str, options: dict[str, bool], possible: bool, hosts: frozenset[str]
) -> None:
    monkeypatch.setattr("cycles.proxy._agents.can_capture", lambda: possible)
    assert captured_hosts((command,), False, {"agent_settings": True, "tunnel": True, **options}) == hosts


def test_a_share_is_started_with_json_too(run_here: Cycles) -> None:
    ran = run_here("run", "--json", "--share", "a", "--budget", "1USD", "--", "true")
    assert "CYCLES_PROXY_URL is not set" in ran.document["message"]
    ran = run_here("run", "--share", "a", "--budget", "1USD", "--journal-dir", "d", "--", "true")
    assert "CYCLES_PROXY_URL is not set" in ran.err


# --- doctor


class Budgets:
    """A client whose server has these budgets."""

    def __init__(self, *found: cycles.Balance) -> None:
        self.balances = lambda: iter(found)


@pytest.mark.parametrize("scope", ["tenant:acme/agent:bot", "tenant:Acme/agent:Bot"])
@pytest.mark.parametrize("tenant", ["acme", "ACME"])
def test_the_budgets_of_a_subject_are_found_in_any_case(scope: str, tenant: str) -> None:
    client: Any = Budgets(balance("tenant:acme/agent:other", 5), balance(scope, 0))
    found = check_budgets(client, cycles.Config(tenant=tenant, agent="bot"))
    assert (found.status, found.detail) == ("fail", f"{scope} 0 TOKENS left")


def test_only_quarantined_records_are_unsettled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = InspectedRecord(id="a", state="quarantined", path="/p/x")
    monkeypatch.setattr(_places, "records_of", lambda config: [entry])
    found = _checks.pending(cycles.Config())
    assert (found.status, found.detail, found.code) == ("fail", "0 pending, 1 quarantined", 4)


def test_a_journal_that_cannot_be_read_has_the_status_of_pending_amounts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(config: cycles.Config) -> Any:
        raise cycles.ConfigurationError("the journal cannot be read: /p; make it readable")

    monkeypatch.setattr(_places, "records_of", unreadable)
    found = _checks.pending(cycles.Config())
    assert (found.status, found.code, found.remedy) == ("fail", 4, "make it readable")


@pytest.mark.parametrize(
    ("outage", "mounted", "status"),
    [("disk", False, "warn"), ("disk", True, "ok"), ("memory", False, "ok"), ("refuse", False, "ok")],
)
def test_a_disk_that_ends_with_its_worker_is_a_warning_only_if_amounts_are_kept_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: Any, mounted: bool, status: str
) -> None:
    monkeypatch.setattr(_places, "store_of", lambda config: StoreView(MemoryStore(), "redis://h"))
    monkeypatch.setattr(_checks, "_is_mounted", lambda path: mounted)
    found = _checks.journal(cycles.Config(journal_dir=tmp_path / "journal", journal_outage=outage))
    assert found.status == status


@pytest.mark.parametrize(("free", "status"), [(10 * 2**20, "ok"), (10 * 2**20 - 1, "fail"), (0, "fail")])
def test_a_journal_needs_ten_mebibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr("cycles.cli._checks.shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    assert _checks.journal(cycles.Config(journal_dir=tmp_path / "journal")).status == status


@pytest.mark.parametrize("key", ["wrong", "cyc_live_wrong"])
def test_each_check_is_listed_whatever_fails(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    names = [check["name"] for check in run_here("doctor", "--json").document["checks"]]
    assert names == ["configuration", *_server_checks.NAMES, "journal", "pending", "proxies", "versions"]
    with monkeypatch.context() as wrong:
        wrong.setenv("CYCLES_API_KEY", key)
        found = run_here("doctor", "--json").document["checks"]
    assert [check["name"] for check in found] == names
    assert [check["name"] for check in found if check["status"] == "skip"][-4:] == list(_server_checks.NAMES[3:])
    monkeypatch.delenv("CYCLES_API_KEY")
    found = run_here("doctor", "--json").document["checks"]
    assert [check["name"] for check in found] == names
    monkeypatch.setenv("CYCLES_API_KEY", key)
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    assert [check["name"] for check in run_here("doctor", "--json").document["checks"]] == names


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("skip", 0), ("warn", 0), ("fail", 1)])
def test_a_warning_is_no_failure(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, status: Any, code: int
) -> None:
    monkeypatch.setattr(_checks, "proxies", lambda config: _checks.Check("proxies", status, "d", "r"))
    ran = run_here("doctor", "--json")
    assert (ran.status, ran.document["ok"]) == (code, code == 0)


# --- top


def test_a_filter_hides_rows_of_every_table(configured: cycles.EmbeddedServer) -> None:
    client = configured.client(tenant="acme", journal=False)
    commit(client, "settled", 4)
    reserve(client, agent="live")
    [live] = client.reservations(status="ACTIVE")
    [settled] = client.reservations(status="COMMITTED")
    records = [InspectedRecord(id="pending-record", state="pending", path="/p/x")]
    snapshot = Snapshot(
        at_ms=0,
        balances=[balance("tenant:budget", 1)],
        active=[live],
        settled=[settled],
        records=records,
        denied={"tenant:denied": 1},
    )
    words = ("budget", "agent:live", "agent:settled", "pending-", "denied")
    for word in words:
        lines = drawn(snapshot, Controls(text=word))[1:]
        assert [each for each in words if any(each in line for line in lines[2:])] == [word]


@pytest.mark.parametrize(("finalized", "ago"), [(None, "0"), (3_600_000, "45"), (3_700_000, "0")])
def test_the_age_of_a_settled_row(configured: cycles.EmbeddedServer, finalized: int | None, ago: str) -> None:
    client = configured.client(tenant="acme", journal=False)
    commit(client, "bot", 4)
    [row] = client.reservations(status="COMMITTED")
    lines = drawn(
        Snapshot(at_ms=3_645_000, settled=[attrs.evolve(row, created_at_ms=0, finalized_at_ms=finalized)]), Controls()
    )
    assert [line.split()[1:4] for line in lines if "$0.04" in line] == [["$0.04", ago, "s"]]


def test_a_view_of_a_server_that_does_not_respond_has_the_time_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(watched: object) -> Any:
        raise cycles.TransportError("no response")

    monkeypatch.setattr(top, "_read", fails)
    monkeypatch.setattr(top, "now_ms", lambda: 70_000)
    last = Snapshot(at_ms=10_000, balances=[balance("tenant:acme", 1)])
    client: Any = None
    found = read_again(client, last)
    assert (found.at_ms, found.error, found.balances) == (70_000, "no response", last.balances)


# --- mcp


@pytest.mark.parametrize(("of_tenant", "of_agent"), [(0, 8), (8, 0)])
def test_nothing_is_left_if_one_budget_is_used_up(of_tenant: int, of_agent: int) -> None:
    budgets = {"tenant:acme": cycles.tokens(of_tenant), "tenant:acme/agent:bot": cycles.tokens(of_agent)}
    with cycles.EmbeddedServer(budgets) as server, server.client(tenant="acme", journal=False) as client:
        assert Desk(client, {"agent": "bot"}, clock=lambda: 0.0).left() == {"TOKENS": "0TOKENS"}


@pytest.mark.parametrize("end", [Desk.close, Desk.expire])
def test_a_release_that_the_server_rejects_keeps_no_other_reservation(
    configured: cycles.EmbeddedServer, end: Callable[[Desk], None]
) -> None:
    now = [0.0]
    with configured.client(tenant="acme", journal=False) as client:
        desk = Desk(client, {"agent": "bot"}, clock=lambda: now[0])
        for key in ("a", "b", "c"):
            desk.reserve("0.10USD", "tool.call/x", 60, key)
        rejected = {"error": "FORBIDDEN", "message": "of another tenant", "request_id": "r"}
        configured.faults.status("release", 403, body=rejected)
        now[0] = 60.0
        end(desk)
        assert len({request.target for request in configured.requests.of("release")}) == 3
        desk.close()


def test_a_name_of_an_action_may_have_slashes(configured: cycles.EmbeddedServer) -> None:
    client = configured.client(tenant="acme", journal=False)
    with contextlib.closing(Desk(client, {"agent": "bot"}, clock=lambda: 0.0)) as desk:
        assert desk.reserve("1TOKENS", "tool.call/web/search", 60, "a")["allowed"]
        [row] = client.reservations(status="ACTIVE")
    assert (row.action.kind, row.action.name) == ("tool.call", "web/search")


# --- prices and bills


@pytest.mark.parametrize(
    ("variables", "url", "key"),
    [
        ({"GEMINI_API_KEY": "", "GOOGLE_API_KEY": "k"}, "https://generativelanguage.googleapis.com", "k"),
        ({"GEMINI_API_KEY": "a", "GOOGLE_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": ""},
         "https://generativelanguage.googleapis.com", "a"),
        ({"GOOGLE_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": "https://h.test/"}, "https://h.test", "k"),
    ],
    ids=["an empty key", "an empty address", "an address"],
)  # fmt: skip
def test_an_empty_variable_of_a_provider_is_unset(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, key: str
) -> None:
    for of in _newer_prices.LISTS.values():
        for name in (*of.keys, of.base[0]):
            monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen: list[tuple[str, str]] = []

    def get(address: str, *, headers: dict[str, str], **_: Any) -> httpx.Response:
        seen.append((address, headers["x-goog-api-key"]))
        return httpx.Response(200, json={"models": [{"name": "models/m"}]}, request=httpx.Request("GET", address))

    monkeypatch.setattr(httpx, "get", get)
    assert _newer_prices.models_of(None) == [("google", "m")]
    assert seen == [(f"{url}/v1beta/models", key)]


@pytest.mark.parametrize(
    ("since", "until", "imports", "says"),
    [
        (30, None, False, None),
        (31, None, False, "is more than 30 days ago"),
        (31, 29, False, "is more than 30 days ago"),
        (28, None, True, None),
        (29, 20, True, "cannot be imported"),
        (1, None, True, None),
        (None, 3, False, None),
        (3, 3, False, "is not after it"),
        (0, None, False, "today is not over"),
    ],
)
def test_the_days_of_a_bill(
    monkeypatch: pytest.MonkeyPatch, since: int | None, until: int | None, imports: bool, says: str | None
) -> None:
    monkeypatch.setattr(reconcile, "today", lambda: date(2026, 11, 30))
    first, last = (None if ago is None else date(2026, 11, 30) - timedelta(days=ago) for ago in (since, until))
    if says is None:
        found = period_of(first, last, imports=imports)
        assert found[1] == (last or date(2026, 11, 30))
        assert found[0] == (first or found[1] - timedelta(days=7))
        return
    with pytest.raises(Exception, match=says):
        period_of(first, last, imports=imports)


def test_an_empty_key_of_a_provider_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "")
    with pytest.raises(cycles.ConfigurationError, match="set OPENAI_ADMIN_KEY"):
        key_of_provider("OPENAI_ADMIN_KEY")


# --- evidence and the journal


def test_a_file_whose_name_is_like_an_id_is_read(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "ab" * 32
    Path(name).write_text("{}")
    ran = run_here("evidence", "verify", name, "--json")
    assert (ran.status, ran.document["rejected"]) == (2, "schema_version")


def test_another_envelope_than_the_one_of_the_id_is_rejected(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, evidence_key="11" * 32) as server,
        server.listen() as url,
    ):
        for name, value in (("BASE_URL", url), ("API_KEY", server.api_key), ("TENANT", "acme")):
            monkeypatch.setenv(f"CYCLES_{name}", value)
        with server.client(tenant="acme", journal=False) as client:
            found = client.decide(cycles.usd("0.1"), action=("a", "b")).cycles_evidence
            assert found is not None
            envelope = client.evidence(found.evidence_id)
            keys = tmp_path / "keys.json"
            keys.write_text(json.dumps(client.evidence_keys().to_dict()))
        monkeypatch.setattr(cycles.Cycles, "evidence", lambda self, evidence_id: envelope)
        ran = run_here("evidence", "verify", "0" * 64, "--keys", str(keys), "--json")
    assert (ran.status, ran.document["rejected"]) == (2, "wrong_evidence_id")


def test_a_directory_under_two_names_is_not_moved_into_itself(run_here: Cycles, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for source, target in (("real", "link"), ("link", "real"), ("real", "real")):
        ran = run_here("journal", "move", str(tmp_path / source), str(tmp_path / target))
        assert (ran.status, ran.out) == (2, "")


@pytest.mark.parametrize("store", ["file:///a/b", None])
def test_the_root_of_a_journal_in_a_file_url(store: str | None) -> None:
    config = cycles.Config(journal_dir=Path("/c"), journal_store=store)
    assert _places.root_of(config) == Path("/c" if store is None else "/a/b")


def test_a_file_is_changed_where_it_is_also_if_a_store_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StoreView(MemoryStore(), "redis://h")
    monkeypatch.setattr(_places, "view_of", lambda *_: store)
    config = cycles.Config(base_url="http://a.test", api_key="k", tenant="acme", journal_store="redis://h")
    context = _commands.Context(TextTerminal(json=False), lambda: config, lambda _: None)
    for path, name in ((str(tmp_path / "owner" / "x"), str(tmp_path / "owner")), ("redis://h/x", "redis://h")):
        entry = InspectedRecord(id="a", state="pending", path=path)
        assert change_record(context, entry, lambda view: view.name) == name


def test_a_flush_whose_store_does_not_respond_at_its_end_is_no_success(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(config: cycles.Config) -> None:
        raise cycles.StoreError("no connection to the store; check the server")

    monkeypatch.setattr(_places, "require_store", fails)
    ran = run_here("flush")
    assert (ran.status, ran.err) == (2, "error: no connection to the store; check the server\n")
