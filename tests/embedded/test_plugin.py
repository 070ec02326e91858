"""The pytest plugin: its fixtures, its marker, and its search for leaked budget."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from .process import ROOT

pytest_plugins = ["pytester"]
MODULE = "cycles.embedded.pytest_plugin"


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, code: str) -> pytest.RunResult:
    """Run a test module with the plugin installed."""
    installed = any(entry.value == MODULE for entry in entry_points(group="pytest11"))
    pytester.makepyfile(code)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # In a subprocess: in this process, pytester would remove some modules of this package between runs.
    return pytester.runpytest_subprocess(
        *([] if installed else ["-p", MODULE]), "--strict-markers", "-p", "no:cacheprovider", "-p", "no:schemathesis"
    )


def test_each_test_gets_a_separate_server_and_client(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(
        pytester,
        monkeypatch,
        """
        import cycles, pytest

        def test_defaults(cycles_server, cycles_client):
            cycles_client.record(cycles.usd(1), action=("k", "n"))
            cycles_client.record(cycles.tokens(7), action=("k", "n"))
            assert cycles_server.spent("tenant:test-tenant", "USD_MICROCENTS") == cycles.usd(1)

        def test_the_default_budgets(cycles_server):
            allocated = {unit: cycles_server.ledger.balance("tenant:test-tenant", unit).allocated
                         for unit in ("USD_MICROCENTS", "TOKENS")}
            assert allocated == {"USD_MICROCENTS": cycles.usd(100), "TOKENS": cycles.tokens(1_000_000)}

        def test_fresh(cycles_server, cycles_client):
            assert cycles_server.spent("tenant:test-tenant", "TOKENS") == cycles.tokens(0)

        @pytest.mark.cycles(budgets={"tenant:acme": cycles.usd(2), "tenant:b": cycles.usd(3)}, tenant="b")
        def test_marked(cycles_server, cycles_client):
            assert [str(item.remaining) for item in cycles_client.balances()] == ["$3.00"]
            assert cycles_server.tenant == "acme"

        @pytest.mark.cycles(budgets={})
        def test_no_budgets(cycles_server):
            assert cycles_server.ledger.scopes() == []

        kept = []

        def test_a_client_that_is_kept(cycles_client):
            kept.append(cycles_client)
            cycles_client.record(cycles.tokens(7), action=("k", "n"))

        def test_the_client_of_an_earlier_test_is_closed():
            with pytest.raises(cycles.CyclesError, match="is closed"):
                kept[0].record(cycles.tokens(7), action=("k", "n"))

        @pytest.mark.cycles(tenant="mine", clock=cycles.ManualClock(5))
        class TestMany:
            def test_tenant_alone(self, cycles_server, cycles_client):
                assert cycles_server.spent("tenant:mine", "TOKENS") == cycles.tokens(0)
                assert cycles_client.config.tenant == "mine"
        """,
    )
    result.assert_outcomes(passed=8)


def test_a_test_that_leaks_budget_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0")
    result = run(
        pytester,
        monkeypatch,
        """
        import asyncio, cycles, pytest

        pytestmark = pytest.mark.usefixtures("no_leaked_reservations")

        def test_clean(cycles_client):
            with cycles_client.reserve(cycles.usd(1), action=("k", "n")) as guard:
                guard.commit(cycles.usd(1))

        def test_clean_because_the_block_releases(cycles_client):
            with pytest.raises(ZeroDivisionError):
                with cycles_client.reserve(cycles.usd(1), action=("k", "n")):
                    1 / 0

        kept = []

        def test_leaks_a_reservation(cycles_client):
            kept.append(cycles_client.reserve(cycles.usd(1), action=("k", "n")).acquire())

        def test_leaks_a_settlement(cycles_server, cycles_client):
            cycles_server.faults.status("event", 503, times=None)
            with cycles_client.reserve(cycles.usd(1), action=("k", "n")) as guard:
                guard.release()
            cycles_client.record(cycles.usd(1), action=("k", "n"))

        def test_fails_for_its_own_reason(cycles_client):
            kept.append(cycles_client.reserve(cycles.usd(1), action=("k", "n")).acquire())
            assert False, "its own reason"
        """,
    )
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(["*reservation * is still active*", "*settlement * is still pending*"])
    result.stdout.fnmatch_lines(["*its own reason*"])


def test_loading_the_plugin_imports_no_other_module() -> None:
    program = (
        f"import sys, pytest; before = set(sys.modules); import {MODULE}\n"
        "loaded = {name for name in set(sys.modules) - before if name.startswith(('cycles', 'httpx', 'attr'))}\n"
        "print(sorted(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["cycles", "cycles._version", "cycles.embedded", MODULE])
