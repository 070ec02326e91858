"""Edges of the embedded server that a program meets by chance: debts, windows, ports, webhooks, wrong arguments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer
from cycles.embedded.__main__ import main
from cycles.embedded.webhook_security import check, replaced
from cycles.embedded.webhook_subscriptions import InvalidUrlError

TEN = cycles.tokens(10)


@pytest.mark.parametrize(
    ("amount", "debt", "allocated"), [(1, 2, 10), (3, 0, 10), (5, 0, 12)], ids=["less", "all", "more"]
)
def test_a_payment_repays_the_debt_first(amount: int, debt: int, allocated: int) -> None:
    with EmbeddedServer(admin_api_key="k") as server, httpx.Client(transport=server.transport()) as http:
        admin = cycles.Admin("http://embedded.test", "k", http_client=http)
        admin.onboard("acme", "Acme", budgets={"tenant:acme": TEN}, key_name="prod")
        server.ledger.set_budget("tenant:acme", TEN, debt=3, overdraft_limit=5)
        repaid = admin.repay_debt("tenant:acme", cycles.tokens(amount))
        assert (repaid.new_debt, repaid.new_allocated) == (cycles.tokens(debt), cycles.tokens(allocated))


def test_what_is_reserved_counts_as_used() -> None:
    with (
        EmbeddedServer({"tenant:acme": TEN}, admin_api_key="k") as server,
        httpx.Client(transport=server.transport()) as http,
        server.client(tenant="acme") as client,
    ):

        def used(least: float, most: float) -> int:
            query: dict[str, Any] = {"tenant_id": "acme", "utilization_min": least, "utilization_max": most}
            url = "http://embedded.test/v1/admin/budgets"
            return len(http.get(url, params=query, headers={"X-Admin-API-Key": "k"}).json()["ledgers"])

        with client.reserve(cycles.tokens(5), action=("llm.completion", "m"), actual=cycles.tokens(5)):
            assert (used(0.5, 0.5), used(0.51, 1), used(0, 0.49)) == (1, 0, 0)
        assert (used(0.5, 0.5), used(0.51, 1), used(0, 0.49)) == (1, 0, 0)


def test_a_window_that_was_missed_begins_at_the_present_time() -> None:
    clock = cycles.ManualClock(int(datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp() * 1000))
    budgets: dict[str, Any] = {"tenant:acme": cycles.window(TEN, "day")}
    with EmbeddedServer(budgets, clock=clock) as server, server.client(tenant="acme") as client:

        def spend(amount: int) -> None:
            with client.reserve(cycles.tokens(amount), action=("llm.completion", "m")) as guard:
                guard.commit(cycles.tokens(amount))

        spend(10)
        clock.advance(5 * 86_400_000)
        spend(4)
        window = server.ledger.window("tenant:acme", "TOKENS")
        assert window is not None
        assert window.ends_ms == int(datetime(2026, 11, 8, tzinfo=UTC).timestamp() * 1000)
        spend(6)
        with pytest.raises(cycles.BudgetExceededError):
            spend(1)


@pytest.mark.parametrize("port", ["-1", "65536", "x", "", "1.5"])
def test_a_wrong_port(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--port", port] if port != "-1" else ["--port=-1"])
    assert raised.value.code == 2
    assert f"port must be 0 to 65535: {port}; pass 0 for any free port" in capsys.readouterr().err


def test_the_highest_port(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--port", "65535", "--no-such-option"])
    assert "port must be" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "blocked"),
    [
        ("https://localhost/x", "127.0.0.0/8"),
        ("https://127.0.0.1/x", "127.0.0.0/8"),
        ("https://[::1]/x", "::1/128"),
        ("https://10.1.2.3/x", "10.0.0.0/8"),
        ("https://172.31.0.1/x", "172.16.0.0/12"),
        ("https://192.168.1.1/x", "192.168.0.0/16"),
        ("https://169.254.169.254/x", "169.254.0.0/16"),
        ("https://[fd00::1]/x", "fc00::/7"),
        ("https://172.32.0.1/x", None),
        ("https://8.8.8.8/x", None),
        ("https://hooks.example.com/x", None),
    ],
)
def test_addresses_that_webhooks_may_not_have(url: str, blocked: str | None) -> None:
    if blocked is None:
        check(url, replaced({}))
        return
    with pytest.raises(InvalidUrlError, match=f"is in the blocked range {blocked}"):
        check(url, replaced({}))


def test_a_range_with_bits_of_a_host_blocks_and_a_text_that_is_none_does_not() -> None:
    ranges = replaced({"blocked_cidr_ranges": ["nothing", "10.1.2.3/8"]})
    with pytest.raises(InvalidUrlError, match=r"is in the blocked range 10\.1\.2\.3/8"):
        check("https://10.9.9.9/x", ranges)
    check("https://11.9.9.9/x", ranges)


def test_plain_http_and_patterns_of_webhooks() -> None:
    with pytest.raises(InvalidUrlError, match="has no TLS, and the configuration requires https"):
        check("http://hooks.example.com/x", replaced({}))
    check("http://hooks.example.com/x", replaced({"allow_http": True}))
    patterns = replaced({"allowed_url_patterns": ["https://*.example.com/*"]})
    check("https://hooks.example.com/x", patterns)
    with pytest.raises(InvalidUrlError, match="matches none of allowed_url_patterns"):
        check("https://hooks.example.org/x", patterns)


def test_wrong_arguments() -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"protocol must be one of .*, got 'x'"):
        EmbeddedServer(protocol="x")
    with pytest.raises(ValueError, match="a clock cannot move backwards: -1 ms; pass 0 or more"):
        cycles.ManualClock(0).advance(-1)


def test_a_commit_over_a_debt_whose_limit_was_taken_away_is_capped() -> None:
    """A budget without an overdraft limit makes no debt, also if it has some, so it denies no commit for that."""
    with EmbeddedServer({"tenant:acme": cycles.tokens(10)}) as server, server.client(journal=False) as client:
        guard = client.reserve(cycles.tokens(5), action=("a", "b"), overage_policy="ALLOW_WITH_OVERDRAFT").acquire()
        server.ledger.set_budget("tenant:acme", cycles.tokens(10), debt=20, reserved=5)
        settlement = guard.commit(cycles.tokens(8))
        assert (settlement.status, settlement.charged) == ("committed", cycles.tokens(5))
        balance = server.ledger.balance("tenant:acme", unit="TOKENS")
        assert balance is not None
        assert (balance.debt, balance.spent) == (cycles.tokens(20), cycles.tokens(5))
