"""The reservations of an agent behind the tools of `cycles mcp`, without MCP."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles.cli._mcp_desk import AgentError, Desk, text_of
from cycles.cli.mcp import _sigterm_as_interrupt as sigterm_as_interrupt
from tests.support.waiting import until

ACTION = "tool.call/web_search"
BOT = {"agent": "bot"}
BUDGETS: dict[str, Any] = {"tenant:acme": cycles.usd(10), "tenant:acme/agent:bot": [cycles.usd(1), cycles.tokens(500)]}


@pytest.fixture
def ledger() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer(budgets=BUDGETS) as server:
        yield server


@pytest.fixture
def desk_of(ledger: cycles.EmbeddedServer) -> Iterator[Callable[..., Desk]]:
    with ledger.client(tenant="acme", journal=False) as client, contextlib.ExitStack() as desks:

        def make(most: cycles.Amount | None = None, clock: Callable[[], float] = lambda: 0.0) -> Desk:
            return desks.enter_context(contextlib.closing(Desk(client, BOT, most, clock=clock)))

        yield make


def spent(ledger: cycles.EmbeddedServer) -> tuple[int, int]:
    """Return what the agent has spent and what is reserved, in microcents."""
    balance = ledger.ledger.balance("tenant:acme/agent:bot", "USD_MICROCENTS")
    return getattr(balance.spent, "amount", 0), getattr(balance.reserved, "amount", 0)


def test_what_was_left_for_ttl_s_is_released_and_a_late_amount_is_charged(
    ledger: cycles.EmbeddedServer, desk_of: Callable[..., Desk]
) -> None:
    now = [0.0]
    desk = desk_of(clock=lambda: now[0])
    desk.reserve("0.40USD", ACTION, 600, "a")
    desk.reserve("0.20USD", ACTION, 60, "b")
    now[0] = 59
    desk.expire()
    assert spent(ledger) == (0, 60_000_000)
    now[0] = 60
    desk.expire()
    desk.expire()
    assert spent(ledger) == (0, 40_000_000)
    # The money was spent, so a late amount is charged, once.
    assert desk.commit("b", "0.15USD") == {"committed": "0.15USD"}
    assert ledger.requests.of("event")[-1].json["idempotency_key"] == "mcp-b"
    with pytest.raises(AgentError, match="there is no open reservation 'b'"):
        desk.commit("b", "0.15USD")
    desk.close()
    assert spent(ledger) == (15_000_000, 0)


def test_an_amount_that_was_not_charged_may_be_sent_again(
    ledger: cycles.EmbeddedServer, desk_of: Callable[..., Desk]
) -> None:
    now = [0.0]
    desk = desk_of(clock=lambda: now[0])
    desk.reserve("0.40USD", ACTION, 60, "a")
    now[0] = 60.0
    desk.expire()
    frozen = {"error": "BUDGET_FROZEN", "message": "the budget is frozen", "request_id": "r"}
    ledger.faults.status("event", 409, body=frozen)
    with pytest.raises(AgentError, match="the budget's server rejected this"):
        desk.commit("a", "0.15USD")
    assert desk.commit("a", "0.15USD") == {"committed": "0.15USD"}
    assert spent(ledger) == (15_000_000, 0)


@pytest.mark.parametrize(("of_tenant", "of_agent"), [(3, 8), (8, 3)])
def test_the_budget_in_which_the_least_is_left_counts(of_tenant: int, of_agent: int) -> None:
    budgets = {"tenant:acme": cycles.tokens(of_tenant), "tenant:acme/agent:bot": cycles.tokens(of_agent)}
    with cycles.EmbeddedServer(budgets) as server, server.client(tenant="acme", journal=False) as client:
        assert Desk(client, BOT, clock=lambda: 0.0).left() == {"TOKENS": "3TOKENS"}


@pytest.mark.parametrize("missing", list(cycles.Unit))
def test_what_is_left_is_told_for_every_unit_that_has_a_budget(missing: cycles.Unit) -> None:
    budgets = [cycles.Amount(unit, 100_000_000) for unit in cycles.Unit if unit != missing]
    server = cycles.EmbeddedServer({"tenant:acme": budgets})
    with server, server.client(tenant="acme", journal=False) as client:
        assert set(Desk(client, BOT, clock=lambda: 0.0).left().values()) == {text_of(each) for each in budgets}


def test_an_action_is_checked_and_reserved_up_to_the_budget(
    ledger: cycles.EmbeddedServer, desk_of: Callable[..., Desk]
) -> None:
    desk = desk_of()
    assert desk.left() == {"USD": "1.00USD", "TOKENS": "500TOKENS"}
    assert desk.check("1USD", ACTION) == {"allowed": True}
    assert desk.check("1.01USD", ACTION) == {"allowed": False, "reason": "BUDGET_EXCEEDED"}
    assert desk.reserve("0.60USD", ACTION, 60, "a") == {"allowed": True, "id": "a"}
    assert desk.reserve("0.60USD", ACTION, 60, "b") == {"allowed": False, "reason": "BUDGET_EXCEEDED"}
    assert desk.commit("a", "0.70USD") == {"committed": "0.70USD"}
    assert desk.reserve("0.30USD", ACTION, 60, "c") == {"allowed": True, "id": "c"}
    assert desk.left() == {"USD": "0.00USD", "TOKENS": "500TOKENS"}
    assert desk.release("c") == {"released": True}
    assert spent(ledger) == (70_000_000, 0)


def test_a_limit_is_for_one_reservation_in_its_unit(desk_of: Callable[..., Desk]) -> None:
    desk = desk_of(cycles.usd("0.50"))
    asks: list[Callable[[str, str], dict[str, Any]]] = [
        desk.check,
        lambda estimate, action: desk.reserve(estimate, action, 60, "a"),
    ]
    for ask in asks:
        assert ask("0.50USD", ACTION)["allowed"]
        too_much, other = ask("0.51USD", ACTION), ask("5TOKENS", ACTION)
        assert too_much == {"allowed": False, "reason": "one reservation may be at most 0.50USD"}
        assert other == {"allowed": False, "reason": "a reservation must be in USD"}


def test_a_wrong_call_is_an_error_for_the_model_and_reserves_nothing(
    ledger: cycles.EmbeddedServer, desk_of: Callable[..., Desk]
) -> None:
    desk = desk_of()
    wrong: list[tuple[Any, str]] = [
        (("1", ACTION, 60), "estimate: "),
        ((1, ACTION, 60), 'estimate must be a string such as "0.40USD", got 1'),
        (("1USD", "search", 60), "action must be KIND/NAME"),
        (("1USD", f"{'k' * 65}/name", 60), "action must be KIND/NAME"),
        (("1USD", ACTION, 0), "ttl_s must be an integer from 1 to 86400, got 0"),
        (("1USD", ACTION, 86_401), "ttl_s must be an integer from 1 to 86400, got 86401"),
        (("1USD", ACTION, True), "ttl_s must be an integer from 1 to 86400, got True"),
    ]
    for (estimate, action, ttl_s), message in wrong:
        with pytest.raises(AgentError, match=re.escape(message)):
            desk.reserve(estimate, action, ttl_s, "a")
    desk.reserve("1USD", ACTION, 86_400, "a")
    with pytest.raises(AgentError, match="actual is in TOKENS, but USD was reserved; convert it"):
        desk.commit("a", "5TOKENS")
    desk.close()
    assert spent(ledger) == (0, 0)


def test_of_two_calls_with_one_id_the_second_finds_it_ended(ledger: cycles.EmbeddedServer) -> None:
    errors: list[str] = []

    def again() -> None:
        try:
            desk.release("a")
        except AgentError as error:
            errors.append(str(error))

    second = threading.Thread(target=again)

    def begin_the_second(event: object) -> None:
        if isinstance(event, cycles.events.Settled):
            second.start()
            until(lambda: second.ident and vars(sys)["_current_frames"]()[second.ident].f_code.co_name == "_taken")

    with ledger.client(tenant="acme", journal=False) as client:
        desk = Desk(client, BOT, clock=lambda: 0.0)
        client.on_event(begin_the_second)
        desk.reserve("0.40USD", ACTION, 60, "a")
        assert desk.commit("a", "0.30USD") == {"committed": "0.30USD"}
        second.join(60)
    assert errors == ["there is no open reservation 'a': it was committed or released, or the id is wrong"]


def test_a_server_that_limits_requests_gives_no_decision_now(
    ledger: cycles.EmbeddedServer, desk_of: Callable[..., Desk]
) -> None:
    ledger.faults.status("decide", 429, headers={"Retry-After": "3600"}, times=None)
    with pytest.raises(AgentError, match="the budget cannot be checked now"):
        desk_of().check("0.10USD", ACTION)


def test_without_a_server_the_message_has_no_address() -> None:
    with cycles.Cycles(
        base_url="http://127.0.0.1:9", api_key="k", tenant="acme", journal=False, max_retries=0, timeout=0.2
    ) as client:
        desk = Desk(client, BOT, clock=lambda: 0.0)
        for use in (desk.left, lambda: desk.reserve("1USD", ACTION, 60, "a"), lambda: desk.check("1USD", ACTION)):
            with pytest.raises(AgentError, match="the budget cannot be checked now") as caught:
                use()
            assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(cycles.usd("0.4"), "0.40USD"), (cycles.usd("0.00005"), "0.00005USD"), (cycles.tokens(7), "7TOKENS")],
)
def test_amounts_are_texts_that_can_be_read_again(amount: cycles.Amount, text: str) -> None:
    assert text_of(amount) == text
    assert cycles.Amount.parse(text) == amount


def test_sigterm_ends_a_session_and_its_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def own(*_: Any) -> None:
        """Do nothing."""

    signal.signal(signal.SIGTERM, own)
    try:
        with sigterm_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the session has not ended")
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
