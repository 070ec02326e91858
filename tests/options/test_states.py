"""Each property of a guard, and each member of its settlement, in each state, sync and async."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import pytest

import cycles
from tests.options.test_guards import EXPIRED
from tests.options.ways import Place, T, Use
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

SCOPE = "tenant:acme/agent:capped"
SUBJECT = {"agent": "capped"}
SPENT = T(7)
GIVEN = "given"
"""Stands in for an id, a time or an object whose value no test knows."""


def seen(guard: Any) -> dict[str, Any]:
    """Return every property of a guard and its repr, without what differs from run to run."""
    names = [name for name, value in inspect.getmembers(type(guard)) if isinstance(value, property)]
    values = {name: getattr(guard, name) for name in names}
    if values["expires_at"] is not None:
        assert values["expires_at"].tzinfo is not None
        assert round(values["expires_at"].timestamp() * 1000) == values["expires_at_ms"]
    for name in ("reservation_id", "request_id", "trace_id", "idempotency_key", "expires_at", "expires_at_ms"):
        assert isinstance(values[name], str | int | datetime | None)
        values[name] = GIVEN if values[name] else values[name]
    values["caps"] = None if values["caps"] is None else values["caps"].max_tokens
    values["balances"] = [each.scope_path for each in values["balances"]]
    values["lease_error"] = None if values["lease_error"] is None else type(values["lease_error"]).__name__
    values["usage"] = values["usage"].tokens_input
    values["settlement"] = settled(values["settlement"], guard)
    if "chunk" in values:
        values["chunk"] = (values["chunk"].reserved, values["chunk"].spent, values["chunk"].guards)
    shown = re.sub(r"(, \d+ s left|[0-9a-f]{8}…)", "", repr(guard)).split(" ", 1)[1]
    return {**values, "repr": " ".join(shown.split())}


def settled(settlement: Any, guard: Any) -> dict[str, Any] | None:
    """Return the members of a settlement that are not None."""
    if settlement is None:
        return None
    found = {
        name: getattr(settlement, name)
        for name in ("status", "actual", "charged", "released", "event_id", "request_id", "trace_id", "evidence")
        if getattr(settlement, name) is not None
    }
    found |= {name: GIVEN for name in ("event_id", "request_id") if name in found}
    if "trace_id" in found:
        assert found["trace_id"] == guard.trace_id
        found["trace_id"] = GIVEN
    if settlement.http is not None:
        found["http"] = settlement.http.status
    if settlement.response is not None:
        assert settlement.response.request_id == settlement.request_id
        found["response"] = settlement.response.status
    return {**found, "undercharged": settlement.undercharged}


async def made(use: Use, **options: Any) -> Any:
    reservation = use.world.client.reserve(T(100), action=ACTION, **{"subject": SUBJECT, **options})
    return await use.world.acquire(reservation)


async def active(use: Use) -> Any:
    return await made(use)


async def spent(use: Use) -> Any:
    guard = await made(use)
    guard.spend(SPENT)
    guard.usage.add(tokens_input=5)
    return guard


async def committed(use: Use) -> Any:
    guard = await made(use)
    await use.world.get(guard.commit(SPENT))
    return guard


async def recorded_as_event(use: Use) -> Any:
    guard = await made(use)
    use.server.faults.status("commit", 410, body=EXPIRED)
    await use.world.get(guard.commit(SPENT))
    return guard


async def pending(use: Use) -> Any:
    guard = await made(use)
    use.server.faults.status("commit", 503, times=None)
    await use.world.get(guard.commit(SPENT))
    return guard


async def rejected(use: Use) -> Any:
    guard = await made(use)
    use.server.faults.status("commit", 400, body={**EXPIRED, "error": "UNIT_MISMATCH"})
    with pytest.raises(cycles.ProtocolError):
        await use.world.get(guard.commit(SPENT))
    return guard


async def released(use: Use) -> Any:
    guard = await made(use)
    await use.world.get(guard.release())
    return guard


async def detached(use: Use) -> Any:
    guard = await made(use)
    guard.detach()
    return guard


async def lost(use: Use) -> Any:
    guard = await made(use)
    use.lose(guard)
    return guard


async def unreserved(use: Use) -> Any:
    use.server.faults.refuse("reserve", times=None)
    return await made(use, on_unavailable="allow")


async def unreserved_and_committed(use: Use) -> Any:
    guard = await unreserved(use)
    await use.world.get(guard.commit(SPENT))
    return guard


async def shadow(use: Use) -> Any:
    return await made(use, shadow=True)


async def shadow_denied(use: Use) -> Any:
    reservation = use.world.client.reserve(T(10**15), action=ACTION, subject=SUBJECT, shadow=True)
    return await use.world.acquire(reservation)


async def shadow_committed(use: Use) -> Any:
    guard = await shadow(use)
    await use.world.get(guard.commit(SPENT))
    return guard


async def observed(use: Use) -> Any:
    return await made(use, observe=True)


async def observed_and_committed(use: Use) -> Any:
    guard = await observed(use)
    await use.world.get(guard.commit(SPENT))
    return guard


async def pooled(use: Use) -> Any:
    pool = use.world.client.pool(T(400), chunk=T(400), action=ACTION, subject=SUBJECT)
    return await use.world.acquire(pool.reserve(T(100)))


async def pooled_and_committed(use: Use) -> Any:
    guard = await pooled(use)
    await use.world.get(guard.commit(SPENT))
    return guard


ACTIVE: dict[str, Any] = {
    "reservation_id": GIVEN,
    "decision": "ALLOW_WITH_CAPS",
    "reason_code": None,
    "caps": 50,
    "is_capped": True,
    "expires_at": GIVEN,
    "expires_at_ms": GIVEN,
    "affected_scopes": ["tenant:acme", SCOPE],
    "scope_path": SCOPE,
    "reserved": T(100),
    "balances": ["tenant:acme", SCOPE],
    "estimate": T(100),
    "state": "active",
    "lease_error": None,
    "usage": 0,
    "subject": cycles.Subject(tenant="acme", agent="capped"),
    "action": cycles.Action(*ACTION),
    "settlement": None,
    "spent": None,
    "is_pooled": False,
    "request_id": GIVEN,
    "trace_id": GIVEN,
    "idempotency_key": GIVEN,
    "repr": "active 100 tokens reserved>",
}
"""Every property of a guard that is in use."""
NOTHING_HELD = dict.fromkeys(("reservation_id", "expires_at", "expires_at_ms", "reserved"))
UNRESERVED: dict[str, Any] = {
    **NOTHING_HELD,
    **dict.fromkeys(("decision", "caps", "scope_path", "request_id")),
    "is_capped": False,
    "affected_scopes": [],
    "balances": [],
    "state": "unreserved",
    "repr": "without reservation unreserved 100 tokens estimated>",
}
CHARGED = {"actual": SPENT, "charged": SPENT, "undercharged": False}
IDS = {"request_id": GIVEN, "trace_id": GIVEN}
AS_EVENT = {**CHARGED, **IDS, "status": "recorded_as_event", "event_id": GIVEN, "http": 201, "response": "APPLIED"}
AS_SHADOW = {"status": "shadow", "actual": SPENT, "undercharged": False}
POOLED: dict[str, Any] = {"is_pooled": True, "chunk": (T(400), T(0), 0)}
IN_CHUNK = {"status": "pooled", "actual": SPENT, "trace_id": GIVEN, "undercharged": False}
STATES: dict[Callable[[Use], Awaitable[Any]], Mapping[str, Any]] = {
    active: {},
    spent: {"spent": SPENT, "usage": 5},
    committed: {
        "state": "committed",
        "repr": "committed 7 tokens charged>",
        "settlement": {
            **CHARGED,
            **IDS,
            "status": "committed",
            "released": T(93),
            "http": 200,
            "response": "COMMITTED",
        },
    },
    recorded_as_event: {"state": "committed", "settlement": AS_EVENT, "repr": "committed 7 tokens charged>"},
    pending: {
        "state": "pending",
        "repr": "pending 7 tokens>",
        "settlement": {"status": "pending", "actual": SPENT, "trace_id": GIVEN, "http": 503, "undercharged": False},
    },
    rejected: {"state": "rejected", "repr": "rejected 100 tokens reserved>"},
    released: {"state": "released", "repr": "released 100 tokens>"},
    detached: {"state": "detached", "repr": "detached 100 tokens reserved>"},
    lost: {"state": "lost", "spent": SPENT, "lease_error": "LeaseLostError", "repr": "lost 100 tokens reserved>"},
    unreserved: UNRESERVED,
    unreserved_and_committed: {
        **UNRESERVED,
        "balances": ["tenant:acme", SCOPE],
        "state": "committed",
        "settlement": AS_EVENT,
        "repr": "without reservation committed 7 tokens charged>",
    },
    shadow: {**NOTHING_HELD, "repr": "without reservation active 100 tokens estimated>"},
    shadow_denied: {
        **NOTHING_HELD,
        "estimate": T(10**15),
        "repr": "without reservation active 1000000000000000 tokens estimated>",
        "decision": "DENY",
        "reason_code": "BUDGET_EXCEEDED",
        "caps": None,
        "is_capped": False,
        "balances": [],
    },
    shadow_committed: {
        **NOTHING_HELD,
        "state": "committed",
        "settlement": AS_SHADOW,
        "repr": "without reservation committed 7 tokens spent>",
    },
    observed: {**NOTHING_HELD, "state": "observed", "repr": "without reservation observed 100 tokens estimated>"},
    observed_and_committed: {
        **NOTHING_HELD,
        "state": "observed",
        "settlement": AS_SHADOW,
        "repr": "without reservation observed 7 tokens spent>",
    },
    pooled: POOLED,
    pooled_and_committed: {
        **POOLED,
        "chunk": (T(400), SPENT, 1),
        "state": "pooled",
        "settlement": IN_CHUNK,
        "repr": "pooled 7 tokens spent>",
    },
}
"""How a guard gets into each state, and the properties that differ then from those of an active one."""


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_every_property_in_each_state(place: Place, state: Callable[[Use], Awaitable[Any]]) -> None:
    place.server.ledger.set_budget(SCOPE, T(10**9), caps={"max_tokens": 50})
    use = place.use()
    guard = await state(use)
    assert seen(guard) == {**ACTIVE, **STATES[state]}
    use.server.faults.clear()
    if guard.state in ("active", "lost", "unreserved", "observed") and guard.settlement is None:
        await use.world.get(guard.release())
