"""Each option of a reservation has its effect however it is given and however the reservation is used.

An option may come from the call, from a view (`with_options`) or from the settings of the client.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pytest

import cycles
from tests.options.ways import SPENT, WAYS, Place, T, Use
from tests.support.waiting import PATIENCE_S
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

Run = Callable[[], Awaitable[None]]
Check = Callable[[Use, Run], Awaitable[None]]
TIMEOUT_S = 3.25
HEADERS = {"X-Team": "red"}


class Given(NamedTuple):
    """Options that are given together, and how their effect shows."""

    options: Mapping[str, Any]
    check: Check


def in_requests(**wanted: Any) -> Check:
    """Return a check of the members of the reserve request, and of the time and the headers of all requests."""

    async def check(use: Use, run: Run) -> None:
        await run()
        body = use.content("reserve")
        assert {name: body.get(name) for name in wanted} == wanted
        assert [each.operation for each in use.sent] == ["reserve", "commit"]
        assert [each.timeout["read"] for each in use.sent] == [TIMEOUT_S] * 2
        assert [each.headers.get("x-team") for each in use.sent] == ["red"] * 2

    return check


async def commits_the_actual(use: Use, run: Run) -> None:
    use.work = lambda guard: None
    await run()
    assert use.content("commit")["actual"] == T(9).to_dict()


async def raises_the_loss(use: Use, run: Run) -> None:
    use.work = use.lose
    with pytest.raises(cycles.LeaseLostError):
        await run()
    assert use.content("commit")["actual"] == SPENT.to_dict()


async def holds_nothing(use: Use, run: Run) -> None:
    await run()
    assert use.content("reserve")["dry_run"] is True
    assert [each.operation for each in use.sent] == ["reserve"]


async def runs_without_a_server(use: Use, run: Run) -> None:
    use.server.faults.refuse("reserve", times=None)
    await run()
    assert use.state == "unreserved"
    assert use.content("event")["actual"] == SPENT.to_dict()


async def reserves_after_a_429(use: Use, run: Run) -> None:
    use.server.faults.status("reserve", 429, headers={"Retry-After": "0"})
    await run()
    assert len(use.of("reserve")) == 2
    assert use.state == "active"


async def runs_observed(use: Use, run: Run) -> None:
    use.server.ledger.set_tenant("acme", observe_mode="OBSERVE")
    try:
        await run()
    finally:
        use.server.ledger.set_tenant("acme", observe_mode="ENFORCE")
    assert use.state == "observed"
    assert "observe_mode" not in use.content("reserve")


async def requests_to_be_observed(use: Use, run: Run) -> None:
    await run()
    assert use.state == "observed"
    assert use.content("reserve")["observe_mode"] == "OBSERVE"


async def settles_in_the_background(use: Use, run: Run) -> None:
    await run()
    settlement = await use.world.get(use.guard.settled(PATIENCE_S))
    assert settlement.status == "committed"
    assert [(each.operation, each.is_foreground) for each in use.sent] == [("reserve", True), ("commit", False)]


async def sends_once(use: Use, run: Run) -> None:
    use.server.faults.status("reserve", 502, times=None)
    with pytest.raises(cycles.ServerError):
        await run()
    assert len(use.of("reserve")) == 1


SHOWN_BY_REQUESTS: dict[str, Any] = {
    "estimate": T(123),
    "action": ("tool.call", "x"),
    "subject": {"agent": "bot"},
    "ttl_ms": 7_000,
    "grace_period_ms": 3_000,
    "overage_policy": "ALLOW_WITH_OVERDRAFT",
    "metadata": {"run": 1},
    "idempotency_key": "another one in each test",
}
SENT = {
    **SHOWN_BY_REQUESTS,
    "estimate": T(123).to_dict(),
    "action": {"kind": "tool.call", "name": "x"},
    "subject": {"tenant": "acme", "agent": "bot"},
}
TRANSPORT = {"timeout": TIMEOUT_S, "extra_headers": HEADERS}
LEVELS = {level: f"the-{level}" for level in ("workspace", "app", "workflow", "agent", "toolset")}

OF_CALL: dict[str, Given] = {
    "requests": Given({**SHOWN_BY_REQUESTS, **TRANSPORT}, in_requests(**SENT)),
    "actual": Given({"actual": T(9)}, commits_the_actual),
    "lease_policy": Given({"lease_policy": "fail_on_finalize"}, raises_the_loss),
    "shadow": Given({"shadow": True}, holds_nothing),
    "on_unavailable": Given({"on_unavailable": "allow"}, runs_without_a_server),
    "wait": Given({"wait": 30.0}, reserves_after_a_429),
    "on_observed": Given({"on_observed": "run"}, runs_observed),
    "observe": Given({"observe": True}, requests_to_be_observed),
    "settle": Given({"settle": "background"}, settles_in_the_background),
}
"""The options of `reserve`, `guarded` and `lease_series`."""

OF_VIEW: dict[str, Given] = {
    "requests": Given(
        {"subject": {"agent": "bot"}, "overage_policy": "ALLOW_WITH_OVERDRAFT", **TRANSPORT},
        in_requests(subject=SENT["subject"], overage_policy="ALLOW_WITH_OVERDRAFT"),
    ),
    "lease_policy": OF_CALL["lease_policy"],
    "max_retries": Given({"max_retries": 0}, sends_once),
}
"""The options of `with_options`."""

OF_CLIENT: dict[str, Given] = {
    "requests": Given(
        {**LEVELS, "timeout": TIMEOUT_S, "default_headers": HEADERS}, in_requests(subject={"tenant": "acme", **LEVELS})
    ),
    "max_retries": OF_VIEW["max_retries"],
    **{name: OF_CALL[name] for name in ("lease_policy", "shadow", "on_observed")},
}
"""The settings of a client that each of its reservations has."""

NOT_OF_SERIES = ("idempotency_key", "actual")
CASES = [
    *[("requests", way) for way in WAYS],
    *[("actual", way) for way in WAYS if way != "series"],
    *[(name, way) for name in list(OF_CALL)[2:] for way in ("block", "function", "generator", "series")],
]


@pytest.mark.parametrize(("name", "way"), CASES)
async def test_options_of_a_call_have_their_effect_in_each_way_to_use_it(place: Place, name: str, way: str) -> None:
    use, given = place.use(), OF_CALL[name]
    use.world.client.reserve(T(100), action=ACTION)  # a request that is kept must not replace one with options
    options = dict(given.options)
    if "idempotency_key" in options:  # the server has those of other tests
        key = options["idempotency_key"] = secrets.token_hex(8)
        given = Given(options, in_requests(**{**SENT, "idempotency_key": key}))
    if way == "series":
        options = {name: value for name, value in options.items() if name not in NOT_OF_SERIES}
        sent = {name: value for name, value in SENT.items() if name not in NOT_OF_SERIES}
        given = Given(options, in_requests(**sent) if name == "requests" else given.check)
    await given.check(use, lambda: use.run(WAYS[way], **options))
    assert {each.is_async for each in use.sent if each.is_foreground} == {place.is_async}


@pytest.mark.parametrize("name", [name for name in SHOWN_BY_REQUESTS if name != "idempotency_key"])
async def test_a_request_that_is_kept_replaces_none_with_another_option(place: Place, name: str) -> None:
    client = place.client()
    client.reserve(T(100), action=ACTION)
    for _ in range(2):
        use = place.use(client)
        await use.run(WAYS["by_hand"], **{name: SHOWN_BY_REQUESTS[name]})
        assert use.content("reserve")[name] == SENT[name]
    use = place.use(client)
    await use.run(WAYS["by_hand"])
    assert use.content("reserve").get(name) != SENT[name]


@pytest.mark.parametrize("way", ["default_client", "series"])
@pytest.mark.parametrize("name", OF_VIEW)
async def test_options_of_a_view_have_their_effect_in_each_way_to_use_it(place: Place, name: str, way: str) -> None:
    options, check = OF_VIEW[name]
    use = place.use(place.client().with_options(**options))
    await check(use, lambda: use.run(WAYS[way]))


@pytest.mark.parametrize("name", OF_CLIENT)
async def test_settings_of_a_client_have_their_effect_in_each_reservation(place: Place, name: str) -> None:
    options, check = OF_CLIENT[name]
    use = place.use(place.client(**options))
    await check(use, lambda: use.run(WAYS["function"]))


@pytest.mark.parametrize("way", WAYS)
async def test_without_options_there_is_none_of_their_effects(place: Place, way: str) -> None:
    use = place.use()
    await use.run(WAYS[way])
    assert [(each.operation, each.is_foreground) for each in use.sent] == [("reserve", True), ("commit", True)]
    assert use.content("reserve").keys() == {"idempotency_key", "subject", "action", "estimate", "ttl_ms"}
    assert use.content("reserve")["ttl_ms"] == 60_000
    assert [each.timeout["read"] for each in use.sent] == [5.0, 5.0]
    assert (use.state, use.guard.state) == ("active", "committed")


@pytest.mark.parametrize(("part_ms", "parts"), [(None, 1), (0, 2)])
async def test_the_age_of_a_part_of_a_series(place: Place, part_ms: int | None, parts: int) -> None:
    use = place.use()
    async with use.world.enter(use.world.client.lease_series(T(100), action=ACTION, part_ms=part_ms)) as series:
        for _ in range(2):
            use.do(await use.world.get(series.next()))
    assert len(use.of("commit")) == parts
    assert len(series.settlements) == parts
    assert (series.spent, series.guard) == (T(14), None)
