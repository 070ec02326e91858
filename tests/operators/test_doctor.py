"""`cycles doctor`: every check, its remedy and the exit status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import encode, partition
from cycles._journal.operators import inspect_store as store_inspection
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import key_of
from cycles._journal.stores.store import Put
from cycles.cli import _checks
from cycles.cli._checks import masked
from tests.operators.conftest import Cycles
from tests.operators.journals import a_record, fill, journal, snapshot

NAMES = [
    "configuration",
    "dns",
    "tls",
    "authentication",
    "clock",
    "latency",
    "budget",
    "features",
    "journal",
    "pending",
    "proxies",
    "versions",
]


def checks(document: Any) -> dict[str, Any]:
    return {check["name"]: check for check in document["checks"]}


def test_all_is_well(run: Cycles, configured: cycles.EmbeddedServer, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    ran = run("doctor", "--json")
    assert ran.status == 0
    assert ran.document["ok"] is True
    assert [check["name"] for check in ran.document["checks"]] == NAMES
    assert all(set(check) == {"name", "status", "detail", "remedy"} for check in ran.document["checks"])
    found = checks(ran.document)
    assert [name for name in NAMES if found[name]["status"] == "skip"] == ["dns", "tls"]
    assert "tenant=acme (CYCLES_TENANT)" in found["configuration"]["detail"]
    assert found["features"]["detail"] == "lists reservations, signs no evidence, knows no action kinds"
    assert snapshot(tmp_path) == before
    assert {request.method for request in configured.requests} == {"GET"}


@pytest.mark.usefixtures("no_pause")
def test_a_failure_has_a_remedy_and_the_status_of_its_kind(
    run: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(os.environ["CYCLES_JOURNAL_DIR"])
    journal(root, "http://127.0.0.1:9").save(a_record("http://127.0.0.1:9", "rsv-1"))

    def failed(status: int, name: str) -> str:
        ran = run("doctor", "--json")
        assert ran.status == status
        assert ran.document["ok"] is False
        check = checks(ran.document)[name]
        assert check["status"] == "fail"
        assert check["remedy"]
        return f"{check['detail']} {check['remedy']}"

    assert "1 pending, 0 quarantined cycles flush" in failed(4, "pending")
    configured.ledger.set_budget("tenant:acme", cycles.usd(1), spent=100_000_000)
    assert "tenant:acme $0.00 left" in failed(1, "budget")
    monkeypatch.setenv("CYCLES_API_KEY", "cyc_live_wrong")
    assert "KEY_NOT_FOUND" in failed(1, "authentication")
    monkeypatch.setenv("CYCLES_TIMEOUT", "0.5")  # no server responds any more, and each read is repeated until then
    monkeypatch.setenv("CYCLES_BASE_URL", "http://127.0.0.1:9")
    failed(3, "authentication")
    monkeypatch.setenv("CYCLES_BASE_URL", "http://nothing.invalid:9")
    assert "nothing.invalid" in failed(3, "dns")
    assert "use https" in failed(3, "tls")
    monkeypatch.setenv("CYCLES_BASE_URL", "")
    assert "set CYCLES_BASE_URL or pass --base-url" in failed(2, "configuration")
    monkeypatch.setenv("CYCLES_TIMEOUT", "soon")
    assert "CYCLES_TIMEOUT must be a number" in failed(2, "configuration")


def budget_check(run: Cycles) -> tuple[int, str, str]:
    ran = run("doctor", "--json")
    check = checks(ran.document)["budget"]
    return ran.status, check["status"], check["detail"]


def test_only_budgets_of_the_configured_subject_fail(
    run: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = configured.ledger
    ledger.set_budget("tenant:acme/agent:idle", cycles.usd(1), spent=100_000_000)
    ledger.set_budget("tenant:acme/agent:bot", cycles.usd(2))
    status, outcome, detail = budget_check(run)
    assert (status, outcome) == (0, "ok")
    assert detail.startswith("tenant:acme ")
    assert detail.endswith("; note: tenant:acme/agent:idle $0.00 left")
    monkeypatch.setenv("CYCLES_AGENT", "bot")
    status, outcome, detail = budget_check(run)
    assert (status, outcome) == (0, "ok")
    assert "tenant:acme/agent:bot $2.00 left" in detail
    monkeypatch.setenv("CYCLES_AGENT", "Idle")
    assert budget_check(run) == (1, "fail", "tenant:acme/agent:idle $0.00 left")
    monkeypatch.setenv("CYCLES_AGENT", "bot")
    ledger.set_budget("tenant:acme", cycles.usd(1), spent=100_000_000)
    status, outcome, detail = budget_check(run)
    assert (status, outcome) == (1, "fail"), "the budget above it is charged too"
    assert "tenant:acme $0.00 left" in detail
    assert "idle" not in detail


@pytest.mark.parametrize("problem", ["no budget", "rejected"])
def test_budgets_that_are_missing_or_cannot_be_read_fail(
    run_here: Cycles, configured: cycles.EmbeddedServer, problem: str
) -> None:
    if problem == "rejected":
        configured.faults.status("balances", 403, times=None)
    else:
        with configured.client(tenant="acme", journal=False) as client:
            for balance in client.balances():
                configured.ledger.delete_budget(balance.scope_path, unit=balance.remaining.unit)
    status, outcome, detail = budget_check(run_here)
    assert (status, outcome) == (1, "fail")
    assert ("the subject has no budget" in detail) == (problem == "no budget")


def test_a_subject_with_budgets_below_it_only(run: Cycles, configured: cycles.EmbeddedServer) -> None:
    ledger = configured.ledger
    with configured.client(tenant="acme", journal=False) as client:
        for balance in client.balances():
            ledger.delete_budget(balance.scope_path, unit=balance.remaining.unit)
    ledger.set_budget("tenant:acme/agent:idle", cycles.usd(1), spent=100_000_000)
    assert budget_check(run)[:2] == (1, "fail")
    for number in range(7):
        ledger.set_budget(f"tenant:acme/agent:a{number}", cycles.usd(2))
    status, outcome, detail = budget_check(run)
    assert (status, outcome) == (0, "ok")
    assert detail.endswith("and 2 more; note: tenant:acme/agent:idle $0.00 left")


def test_features_of_a_newer_server(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, protocol="0.1.26", evidence_key="11" * 32) as server,
        server.listen() as url,
    ):
        for name, value in (("BASE_URL", url), ("API_KEY", server.api_key), ("TENANT", "acme")):
            monkeypatch.setenv(f"CYCLES_{name}", value)
        found = checks(run_here("doctor", "--json").document)["features"]["detail"]
    assert found == "lists reservations, signs evidence (1 keys), knows action kinds (protocol 0.1.26)"


def test_evidence_that_a_server_does_not_show_is_no_feature_that_it_lacks(
    run_here: Cycles, configured: cycles.EmbeddedServer
) -> None:
    configured.faults.status("jwks", 403, times=None)
    ran = run_here("doctor", "--json")
    check = checks(ran.document)["features"]
    assert (ran.status, check["status"]) == (1, "fail")
    assert "HTTP 403" in f"{check['detail']} {check['remedy']}"


def test_a_budget_over_its_overdraft_limit_denies_also_if_something_is_left(
    run_here: Cycles, configured: cycles.EmbeddedServer
) -> None:
    configured.ledger.set_budget("tenant:acme", cycles.usd(5), debt=100_000_000, is_over_limit=True)
    assert budget_check(run_here) == (1, "fail", "tenant:acme $4.00 left")


def test_without_a_server_the_journal_of_the_settings_is_checked(run_here: Cycles, tmp_path: Path) -> None:
    ran = run_here("doctor", "--json", "--journal-dir", str(tmp_path / "own"))
    assert ran.status == 2
    assert checks(ran.document)["journal"]["detail"].startswith(f"{tmp_path / 'own'} can be made")


def test_a_clock_that_differs_fails(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = cycles.ManualClock(start_ms=1_700_000_000_000)
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}, clock=clock) as server, server.listen() as url:
        for name, value in (("BASE_URL", url), ("API_KEY", server.api_key), ("TENANT", "acme")):
            monkeypatch.setenv(f"CYCLES_{name}", value)
        ran = run_here("doctor", "--json")
    clock_check = checks(ran.document)["clock"]
    assert ran.status == 1
    assert "ahead of the server" in clock_check["detail"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_modes_of_the_journal_and_of_a_profile_with_a_key(
    run_here: Cycles, configured: cycles.EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(os.environ["CYCLES_JOURNAL_DIR"])
    root.mkdir(mode=0o750)
    ran = run_here("doctor", "--json")
    assert ran.status == 1
    assert checks(ran.document)["journal"]["remedy"] == f"chmod 700 {root}"
    root.chmod(0o700)
    profiles = tmp_path / "xdg_config_home" / "cycles-sdk" / "config.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(f'[work]\napi_key = "{configured.api_key}"\n')
    profiles.chmod(0o644)
    ran = run_here("doctor", "--profile", "work", "--json")
    assert ran.status == 2
    assert checks(ran.document)["configuration"]["remedy"] == f"chmod 600 {profiles}"
    profiles.chmod(0o600)
    ran = run_here("doctor", "--profile", "work")
    assert ran.status == 0
    assert "api_key=cyc_live_... (profile)" in ran.out
    assert configured.api_key not in ran.out


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_profile_with_an_admin_key_alone_and_a_journal_that_is_not_made_yet(
    run_here: Cycles, configured: cycles.EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    monkeypatch.setenv("CYCLES_JOURNAL_DIR", str(shared / "journal"))
    profiles = tmp_path / "xdg_config_home" / "cycles-sdk" / "config.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text('[ops]\nadmin_api_key = "cyc_admin_x"\n')
    profiles.chmod(0o640)
    found = checks(run_here("doctor", "--profile", "ops", "--json").document)
    assert found["configuration"]["remedy"] == f"chmod 600 {profiles}"
    assert found["journal"]["status"] == "ok"
    assert f"{shared / 'journal'} can be made" in found["journal"]["detail"]


def test_a_proxy_for_this_machine_fails(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy.invalid:8080")
    monkeypatch.setenv("CYCLES_TIMEOUT", "0.5")  # nothing gets through, and each read is repeated until then
    ran = run_here("doctor", "--json")
    monkeypatch.delenv("CYCLES_TIMEOUT")
    check = checks(ran.document)["proxies"]
    assert check["detail"] == "requests to this machine go through http://proxy.invalid:8080"
    assert check["remedy"] == "add 127.0.0.1 to NO_PROXY"
    assert "secret" not in ran.out
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert run_here("doctor").status == 0


@pytest.mark.parametrize(
    ("variables", "base_url", "status", "detail"),
    [
        (
            {"all_proxy": "http://p:1"},
            "http://127.0.0.1:7878",
            "fail",
            "requests to this machine go through http://p:1",
        ),
        (
            {"all_proxy": "http://p:1"},
            "https://budget.example",
            "ok",
            "requests to budget.example go through http://p:1",
        ),
        ({"https_proxy": "http://p:1"}, "http://127.0.0.1:7878", "ok", "proxies are configured, but not for 127.0.0.1"),
        (
            {"http_proxy": "http://p:1", "no_proxy": "127.0.0.1:7878"},
            "http://127.0.0.1:7878",
            "ok",
            "proxies are configured, but not for 127.0.0.1",
        ),
    ],
    ids=["of all schemes for this machine", "of all schemes", "of another scheme", "not for this host and port"],
)
def test_which_proxy_the_requests_go_through(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], base_url: str, status: str, detail: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check = _checks.proxies(cycles.Config(base_url=base_url))
    assert (check.status, check.detail) == (status, detail)


@pytest.mark.parametrize(
    ("key", "shown"), [("cyc_live_abc_def", "cyc_live_..."), ("cyc_live", "..."), ("secret", "...")]
)
def test_a_key_is_shown_as_its_prefix(key: str, shown: str) -> None:
    assert masked(key) == shown


@pytest.mark.parametrize(
    ("line", "lasts"),
    [
        ("/dev/sdb {} ext4 rw 0 0", True),
        ("tmpfs {} tmpfs rw 0 0", False),
        ("overlay {} overlay rw 0 0", False),
        ("/dev/sdb {}-other ext4 rw 0 0", False),
    ],
)
def test_a_volume_of_its_own_outlives_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, lasts: bool
) -> None:
    content = "/dev/sda / ext4 rw 0 0\n" + line.format(tmp_path)
    monkeypatch.setattr(Path, "read_text", lambda path, *_: content)
    assert _checks._is_mounted(tmp_path / "journal") is lasts


def test_every_record_but_the_rejected_is_unsettled(tmp_path: Path) -> None:
    fill(tmp_path, "http://127.0.0.1:9")
    found = _checks.pending(cycles.Config(journal_dir=str(tmp_path)))
    assert (found.status, found.detail) == ("fail", "4 pending, 1 quarantined")


def test_the_store_of_a_fleet_is_checked(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(store_inspection, "open_store", lambda url: store)
    monkeypatch.setenv("CYCLES_JOURNAL_URL", "redis://:the-password@store.test:6379/0")

    def run(status: int) -> dict[str, Any]:
        ran = run_here("doctor", "--json")
        assert ran.status == status
        assert "the-password" not in ran.out
        return checks(ran.document)

    found = run(0)
    shown = "journal_store=redis://[hidden]@store.test:6379/0 (CYCLES_JOURNAL_URL)"
    assert shown in found["configuration"]["detail"]
    assert found["journal"]["detail"].endswith("redis://[hidden]@store.test:6379/0 responds")
    assert found["journal"]["status"] == "warn"
    assert "lost with the disk of this worker" in found["journal"]["detail"]
    assert "CYCLES_JOURNAL_OUTAGE=refuse" in found["journal"]["remedy"]
    with monkeypatch.context() as mounted:
        mounted.setattr(_checks, "_is_mounted", lambda path: True)
        assert run(0)["journal"]["status"] == "ok"
    with monkeypatch.context() as refusing:
        refusing.setenv("CYCLES_JOURNAL_OUTAGE", "refuse")
        assert run(0)["journal"]["status"] == "ok"
    url = os.environ["CYCLES_BASE_URL"]
    record = a_record(url, "rsv-1")
    own = store.bind(partition(url, "acme", ""))
    own.put([Put(key_of(record.reservation_id), encode(record), None, 0)])
    assert run(4)["pending"]["detail"] == "1 pending, 0 quarantined"

    def fails(*_: Any) -> Any:
        raise cycles.StoreError("no connection to the store; check the server")

    monkeypatch.setattr(MemoryStore, "list", fails)
    found = run(1)
    assert (found["journal"]["status"], found["journal"]["remedy"]) == ("fail", "check the server")
    assert (found["pending"]["status"], found["pending"]["detail"]) == ("skip", "the journal's store does not respond")
