"""The server as an object: budgets, keys, clients, direct changes of the ledger, and its end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from cycles._journal.stores.memory import MemoryStore
from cycles.embedded import EmbeddedServer
from cycles.embedded.framework import MAX_HEAD_BYTES
from cycles.embedded.serve import MAX_DRAINED_BYTES, MAX_PARSED_HEAD_BYTES

ACTION = ("llm.completion", "gpt-4o")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    bot = [cycles.usd(1), cycles.tokens(500)]
    with EmbeddedServer(
        {"tenant:Acme/agent:Bot": bot, "tenant:other": cycles.usd(2)}, clock=cycles.ManualClock()
    ) as server:
        yield server


# --- budgets and keys -----------------------------------------------------------------------------------------------


def test_scopes_are_lower_cased_and_have_several_units(server: EmbeddedServer) -> None:
    balance = server.ledger.balance("tenant:ACME/agent:bot", unit="TOKENS")
    assert (balance.scope, balance.scope_path) == ("agent:bot", "tenant:acme/agent:bot")
    assert balance.allocated == cycles.tokens(500)
    assert (balance.debt, balance.overdraft_limit, balance.is_over_limit) == (cycles.tokens(0), cycles.tokens(0), False)
    assert server.ledger.balance("tenant:other").remaining.amount == cycles.usd(2).amount
    with pytest.raises(ValueError, match="pass unit="):
        server.ledger.balance("tenant:acme/agent:bot")


@pytest.mark.parametrize(
    "scope", ["acme", "tenant:", "team:x", "agent:x/tenant:y", "tenant:x/tenant:y", "", "tenant:a/"]
)
def test_the_error_for_a_malformed_scope_shows_the_form(scope: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        EmbeddedServer({scope: cycles.usd(1)})


@pytest.mark.parametrize("budget", [5, "10USD", [5], None])
def test_the_error_for_a_budget_without_amount_shows_what_to_pass(budget: Any) -> None:
    with pytest.raises(
        ValueError, match=r"budgets\['tenant:a'\] is not an amount: .*; pass one such as cycles.usd\(10\)"
    ):
        EmbeddedServer({"tenant:a": budget})


def test_a_scope_without_budget_raises_key_error(server: EmbeddedServer) -> None:
    for look in (server.ledger.balance, server.spent):
        with pytest.raises(KeyError, match="no budget for tenant:nobody"):
            look("tenant:nobody")
        with pytest.raises(KeyError, match="in CREDITS"):
            look("tenant:other", "CREDITS")
    with pytest.raises(KeyError):
        server.ledger.fund("tenant:other", cycles.tokens(1))
    server.ledger.delete_budget("tenant:nobody", unit="TOKENS")


def test_the_first_tenant_keeps_its_case(server: EmbeddedServer) -> None:
    assert (server.tenant, server.tenants) == ("Acme", ["Acme", "other"])
    assert server.api_key == server.api_key_for("Acme") != server.api_key_for("other")
    client = server.client()
    with client.reserve(cycles.usd("0.5"), action=ACTION, subject={"agent": "Bot"}) as guard:
        guard.commit(cycles.usd("0.25"))
    assert server.spent("tenant:acme/agent:bot", unit="USD_MICROCENTS") == cycles.usd("0.25")


def test_a_server_without_tenants_has_a_default_tenant() -> None:
    server = EmbeddedServer({"agent:bot": cycles.tokens(5)})
    assert server.tenant == "default"
    assert list(server.client().balances()) == []
    late = EmbeddedServer()
    late.ledger.set_budget("tenant:late", cycles.tokens(1))
    assert late.tenant == "late"


def test_a_revoked_key_stays_the_servers_key(server: EmbeddedServer) -> None:
    key = server.api_key
    server.ledger.set_api_key(key, tenant="Acme", status="REVOKED")
    assert server.api_key == key
    with pytest.raises(cycles.UnauthorizedError, match="KEY_REVOKED"):
        server.client().decide(cycles.usd(1), action=ACTION)


# --- funding --------------------------------------------------------------------------------------------------------


def test_funding_repays_debt_first_and_clears_the_over_limit_flag(server: EmbeddedServer) -> None:
    ledger = server.ledger
    ledger.set_budget("tenant:x", cycles.tokens(100), spent=100, debt=30, overdraft_limit=10, is_over_limit=True)
    ledger.fund("tenant:x", cycles.tokens(15))
    balance = ledger.balance("tenant:x")
    assert (balance.debt, balance.allocated, balance.is_over_limit) == (cycles.tokens(15), cycles.tokens(100), True)
    ledger.fund("tenant:x", cycles.tokens(5))
    assert ledger.balance("tenant:x").is_over_limit is False  # ten is within the limit of ten
    ledger.fund("tenant:x", cycles.tokens(50))
    balance = ledger.balance("tenant:x")
    assert (balance.debt, balance.allocated) == (cycles.tokens(0), cycles.tokens(140))
    assert balance.remaining.amount == 40


def test_replacing_a_budget_keeps_the_reserved_amount(server: EmbeddedServer) -> None:
    guard = server.client(tenant="other").reserve(cycles.usd(1), action=ACTION).acquire()
    server.ledger.set_budget("tenant:other", cycles.usd(5), spent=100_000_000)
    assert server.ledger.balance("tenant:other").reserved == cycles.usd(1)
    server.ledger.set_budget("tenant:other", cycles.usd(5), reserved=cycles.usd(2).amount)
    assert server.ledger.balance("tenant:other").reserved == cycles.usd(2)
    guard.release()
    assert server.ledger.balance("tenant:other").reserved == cycles.usd(1)


def test_a_reservation_holds_nothing_of_a_new_budget_in_another_unit(server: EmbeddedServer) -> None:
    with server.client(tenant="other").reserve(cycles.usd(1), action=ACTION) as guard:
        server.ledger.set_budget("tenant:other", cycles.tokens(5))
        guard.release()
    assert server.ledger.balance("tenant:other", unit="TOKENS").remaining.amount == 5


@pytest.mark.parametrize(
    "wrong", [{"debt": -1}, {"spent": 2**63}, {"reserved": -1}, {"overdraft_limit": -5}, {"caps": {"max_money": 1}}]
)
def test_an_impossible_budget_is_rejected(server: EmbeddedServer, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"a number of tenant:other is out of range|unknown cap: 'max_money'"):
        server.ledger.set_budget("tenant:other", cycles.usd(1), **wrong)  # type: ignore[arg-type]
    assert server.ledger.balance("tenant:other").allocated == cycles.usd(2)


# --- clients --------------------------------------------------------------------------------------------------------


def test_one_client_serves_sync_and_async_code(server: EmbeddedServer) -> None:
    client = server.client(tenant="other")

    async def work() -> None:
        async with client.reserve(cycles.usd("0.5"), action=ACTION) as guard:
            await guard.commit(cycles.usd("0.5"))

    asyncio.run(work())
    with client.reserve(cycles.usd("0.5"), action=ACTION) as guard:
        guard.commit(cycles.usd("0.5"))
    assert server.spent("tenant:other") == cycles.usd(1)
    with pytest.raises(cycles.BudgetExceededError), client.reserve(cycles.usd("1.01"), action=ACTION):
        pytest.fail("the block must not run")


def test_the_journal_is_off_unless_a_directory_or_a_store_is_given(server: EmbeddedServer, tmp_path: Path) -> None:
    assert server.client().config.journal is False
    assert server.client(journal_dir=tmp_path).config.journal is True
    assert server.client(journal_store=MemoryStore()).config.journal is True
    assert server.client(journal_store=MemoryStore(), journal=False).config.journal is False
    assert server.client(journal=True, journal_dir=tmp_path).config.journal is True


def test_a_closed_server_accepts_no_requests(server: EmbeddedServer) -> None:
    with httpx.Client(transport=server.transport(), base_url="http://x") as http:
        server.close()
        server.close()
        with pytest.raises(httpx.ConnectError, match="closed"):
            http.get("/v1/balances")


# --- over a socket ----------------------------------------------------------------------------------------------------


def test_one_ledger_serves_in_process_and_two_sockets_in_turn(server: EmbeddedServer) -> None:
    for _ in range(2):
        with server.listen() as url:
            assert url.startswith("http://127.0.0.1:")
            client = cycles.Cycles(base_url=url, api_key=server.api_key_for("other"), tenant="other", journal=False)
            with client:
                client.record(cycles.usd("0.5"), action=ACTION)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    assert server.spent("tenant:other") == cycles.usd(1)


def test_the_error_for_a_used_port_names_it(server: EmbeddedServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(cycles.ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            server.listen(port=port).start()


def test_ipv6(server: EmbeddedServer) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server.listen("::1") as url:
        assert httpx.get(f"{url}/v1/balances").status_code == 401


def send(url: str, data: bytes) -> bytes:
    """Send bytes on a raw connection and return what the server sends until it closes."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def test_the_server_survives_garbage_and_huge_headers(server: EmbeddedServer) -> None:
    with server.listen() as url:
        assert send(url, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
        head = b"GET /v1/balances HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "
        assert b"text/html" in send(url, head + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n")
        # The size is an estimate: 16 bytes below the limit and 24 above it are on the right side.
        assert send(url, head + b"a" * (MAX_HEAD_BYTES - 20 - len(head)) + b"\r\n\r\n").startswith(b"HTTP/1.1 401")
        assert send(url, head + b"a" * (MAX_HEAD_BYTES + 20 - len(head)) + b"\r\n\r\n").startswith(b"HTTP/1.1 400")
        without_end = send(url, head + b"a" * (MAX_PARSED_HEAD_BYTES + 1))
        assert without_end.startswith(b"HTTP/1.1 400")
        assert httpx.get(f"{url}/v1/balances").status_code == 401


def test_an_endless_body_is_truncated(server: EmbeddedServer) -> None:
    key = server.api_key.encode()
    head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Cycles-API-Key: " + key
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with server.listen() as url:
        # The last byte exceeds the limit: a socket that is closed with unread bytes resets the connection.
        body = chunk * (MAX_DRAINED_BYTES // 0x10000) + b"1\r\n "
        response = send(url, head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        assert response.startswith(b"HTTP/1.1 413")
        assert b"larger than" in response


def test_responses_are_compressed_if_the_client_accepts_gzip(server: EmbeddedServer) -> None:
    for number in range(20):
        server.ledger.set_budget(f"tenant:other/agent:{number}", cycles.usd(1))
    with server.listen() as url, httpx.Client(headers={"X-Cycles-API-Key": server.api_key_for("other")}) as http:
        plain = http.get(f"{url}/v1/balances?tenant=other", headers={"Accept-Encoding": "identity"})
        short = http.get(f"{url}/v1/balances?toolset=none", headers={"Accept-Encoding": "gzip"})
        without_key = httpx.get(f"{url}/v1/balances", headers={"Accept-Encoding": "gzip"})
        packed = http.get(f"{url}/v1/balances?tenant=other", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.json() == plain.json() == json.loads(plain.content)
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert "Content-Encoding" not in plain.headers
    assert (short.headers["Content-Encoding"], short.json()["balances"]) == ("gzip", [])
    assert "Content-Encoding" not in without_key.headers
