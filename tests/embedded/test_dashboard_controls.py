"""Every sentence of the dashboard's controls, and both sides of each of their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import pytest

import cycles
from cycles.embedded.dashboard.control import Controls
from cycles.embedded.dashboard.rows import fault_rows

ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
UNITS: Final = "USD_MICROCENTS, TOKENS, CREDITS, RISK_POINTS"
LONG: Final = "x" * 100
CUT: Final = "'" + 79 * "x"  # 80 characters of its repr


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock()


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    budgets: dict[str, Any] = {ACME: [cycles.usd(10), cycles.tokens(500)], BOT: cycles.usd(1)}
    with cycles.EmbeddedServer(budgets, clock=clock) as server:
        yield server


@pytest.fixture
def controls(server: cycles.EmbeddedServer, clock: cycles.ManualClock) -> Controls:
    return Controls(server.ledger, server.faults, clock)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"do": "fund", "scope": f" {BOT} ", "amount": "2"}, f"funded {BOT} with $2.00"),
        ({"do": "fund", "scope": ACME, "amount": "1,500", "unit": "TOKENS"}, f"funded {ACME} with 1500 tokens"),
        ({"do": "fund", "scope": ACME, "amount": "1.5", "unit": "USD_MICROCENTS"}, f"funded {ACME} with $1.50"),
        ({"do": "fund", "scope": ACME, "amount": "1.5USD", "unit": "TOKENS"}, f"funded {ACME} with $1.50"),
        ({"do": "set", "scope": BOT, "amount": "7"}, f"set the budget of {BOT} to $7.00"),
        ({"do": "freeze", "scope": BOT}, f"froze {BOT}"),
        ({"do": "freeze", "scope": ACME, "unit": "TOKENS"}, f"froze {ACME}"),
        ({"do": "unfreeze", "scope": BOT, "unit": "USD"}, f"unfroze {BOT}"),
        ({"do": "advance", "ms": 1}, "advanced the clock by 1 ms"),
        ({"do": "advance", "ms": 315_359_999_999}, "advanced the clock by 315359999999 ms"),
        ({"do": "clear_faults"}, "removed all faults"),
    ],
)
def test_a_control_says_what_it_did(controls: Controls, form: dict[str, Any], message: str) -> None:
    assert controls.run(form) == message


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "the body is not a JSON object; send one like {'do': 'clear_faults'}"),
        ({"do": LONG}, f"unknown do: {CUT}; use fund, set, freeze, unfreeze, advance, fault, clear_faults"),
        ({"do": "fund", "amount": "1USD"}, "scope must be a string, got None"),
        ({"do": "fund", "scope": "  ", "amount": "1USD"}, "scope must be a string, got '  '"),
        ({"do": "fund", "scope": BOT, "amount": [LONG]}, f"amount must be a string, got [{CUT[:-1]}"),
        ({"do": "fund", "scope": ACME, "amount": "1.2.3"}, f"'1.2.3' names no unit; use USD, {UNITS}"),
        ({"do": "fund", "scope": ACME, "amount": "1", "unit": "EUR"}, f"'1EUR' names no unit; use USD, {UNITS}"),
        ({"do": "fund", "scope": ACME, "amount": "1", "unit": 5}, "unit must be a string, got 5"),
        ({"do": "freeze", "scope": BOT, "unit": 7}, "unit must be a string, got 7"),
        ({"do": "freeze", "scope": BOT, "unit": ""}, "unit must be a string, got ''"),
        ({"do": "unfreeze", "scope": BOT, "unit": 0}, "unit must be a string, got 0"),
        ({"do": "freeze", "scope": BOT, "unit": LONG}, f"unknown unit: {CUT}; use {UNITS}"),
        ({"do": "freeze", "scope": "tenant:nobody"}, "no budget for tenant:nobody; use set to create one"),
        ({"do": "freeze", "scope": BOT, "unit": "TOKENS"}, f"no budget for {BOT} in TOKENS; use set to create one"),
        ({"do": "advance"}, "ms must be an integer, got None; send 1 to 315359999999"),
        ({"do": "advance", "ms": 0}, "ms must be an integer, got 0; send 1 to 315359999999"),
        ({"do": "advance", "ms": 1.0}, "ms must be an integer, got 1.0; send 1 to 315359999999"),
        ({"do": "advance", "ms": 315_360_000_000}, "ms must be an integer, got 315360000000; send 1 to 315359999999"),
        ({"do": "advance", "ms": LONG}, f"ms must be an integer, got {CUT}; send 1 to 315359999999"),
    ],
)
def test_a_wrong_control_changes_nothing_and_says_why(
    controls: Controls, server: cycles.EmbeddedServer, clock: cycles.ManualClock, form: object, message: str
) -> None:
    before = (server.ledger.records(), clock.now_ms())
    with pytest.raises(cycles.InvalidRequestError) as wrong:
        controls.run(form)
    assert str(wrong.value) == message
    assert (server.ledger.records(), clock.now_ms()) == before


@pytest.mark.parametrize(
    ("form", "message", "row"),
    [
        ({"kind": "delay"}, "delay to the next request", {"times": 1, "seconds": 1.0}),
        ({"kind": "delay", "seconds": 0}, "delay to the next request", {"times": 1}),
        ({"kind": "delay", "seconds": 3600}, "delay to the next request", {"times": 1, "seconds": 3600.0}),
        ({"kind": "drip", "times": 2}, "drip to the next 2 requests", {"times": 2, "seconds": 0.05}),
        ({"kind": "drip", "seconds": 0}, "drip to the next request", {"times": 1}),
        ({"kind": "drop_response", "times": 999_999}, "drop_response to the next 999999 requests", {"times": 999_999}),
        ({"kind": "status"}, "status to the next request", {"times": 1, "status": 503}),
        ({"kind": "status", "status": 200}, "status to the next request", {"times": 1, "status": 200}),
        ({"kind": "status", "status": 599}, "status to the next request", {"times": 1, "status": 599}),
        ({"kind": " status ", "times": 3}, "status to the next 3 requests", {"times": 3, "status": 503}),
    ],
)
def test_a_fault_has_the_defaults_of_its_kind(
    controls: Controls, server: cycles.EmbeddedServer, form: dict[str, Any], message: str, row: dict[str, Any]
) -> None:
    assert controls.run({"do": "fault", "operation": "commit", **form}) == f"added {message} of commit"
    assert fault_rows(server.faults) == [{"operation": "commit", "kind": form["kind"].strip(), **row}]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"operation": None, "kind": "delay"}, "operation must be a string, got None"),
        ({"kind": None}, "kind must be a string, got None"),
        ({"kind": LONG}, f"unknown kind: {CUT}; use delay, drop_response, status, drip"),
        ({"kind": "delay", "times": 0}, "times must be an integer, got 0; send 1 to 999999"),
        ({"kind": "delay", "times": 1_000_000}, "times must be an integer, got 1000000; send 1 to 999999"),
        ({"kind": "delay", "times": True}, "times must be an integer, got True; send 1 to 999999"),
        ({"kind": "status", "status": 199}, "status must be an integer, got 199; send 200 to 599"),
        ({"kind": "status", "status": 600}, "status must be an integer, got 600; send 200 to 599"),
        ({"kind": "delay", "seconds": 3600.5}, "seconds must be a number, got 3600.5; send 0 to 3600"),
        ({"kind": "delay", "seconds": -0.5}, "seconds must be a number, got -0.5; send 0 to 3600"),
        ({"kind": "delay", "seconds": True}, "seconds must be a number, got True; send 0 to 3600"),
        ({"kind": "delay", "seconds": math.nan}, "seconds must be a number, got nan; send 0 to 3600"),
        ({"kind": "drip", "seconds": math.inf}, "seconds must be a number, got inf; send 0 to 3600"),
        ({"kind": "drip", "seconds": None}, "seconds must be a number, got None; send 0 to 3600"),
        ({"kind": "drip", "seconds": LONG}, f"seconds must be a number, got {CUT}; send 0 to 3600"),
    ],
)
def test_a_wrong_fault_is_not_added(
    controls: Controls, server: cycles.EmbeddedServer, form: dict[str, Any], message: str
) -> None:
    with pytest.raises(cycles.InvalidRequestError) as wrong:
        controls.run({"do": "fault", "operation": "commit", **form})
    assert str(wrong.value) == message
    assert fault_rows(server.faults) == []
