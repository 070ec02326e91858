"""Parameters of the methods of a guard, and what its requests have of the options of its reservation."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from tests.options.test_operations import HEADERS, TIMEOUT_S
from tests.options.ways import SPENT, Place, T, Use
from tests.support.waiting import PATIENCE_S
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

EXPIRED = {"error": "RESERVATION_EXPIRED", "message": "its lease is over", "request_id": "r-1"}
OPTIONS: dict[str, Any] = {"timeout": TIMEOUT_S, "extra_headers": HEADERS}


async def guard_of(use: Use, **options: Any) -> Any:
    """Return the guard of a new reservation, without a block."""
    return await use.world.acquire(use.world.client.reserve(T(100), action=ACTION, **options))


def has_options(use: Use, *operations: str) -> bool:
    """Return whether these were the requests, and each had the timeout and the header."""
    assert [each.operation for each in use.sent] == list(operations)
    return all_have_options(use)


def all_have_options(use: Use) -> bool:
    """Return whether each request had the timeout and the header."""
    return all(each.timeout["read"] == TIMEOUT_S and each.headers.get("x-team") == "red" for each in list(use.sent))


async def test_every_request_of_a_guard_has_the_options_of_its_reservation(place: Place) -> None:
    client = place.client()
    use = place.use(client)
    guard = await guard_of(use, **OPTIONS)
    await use.world.get(guard.extend())
    await use.world.get(guard.commit(SPENT))
    assert has_options(use, "reserve", "extend", "commit")
    use = place.use(client)
    await use.world.get((await guard_of(use, **OPTIONS)).release())
    assert has_options(use, "reserve", "release")
    use = place.use(client)
    guard = await guard_of(use, **OPTIONS)
    use.server.faults.status("commit", 410, body=EXPIRED)
    await use.world.get(guard.commit(SPENT))
    assert has_options(use, "reserve", "commit", "event")


async def test_the_parameters_of_commit(place: Place) -> None:
    use = place.use()
    guard = await guard_of(use)
    settlement = await use.world.get(guard.commit(SPENT, metrics={"tokens_input": 5}, metadata={"run": 1}, wait=False))
    assert settlement.status == "pending"
    assert (await use.world.get(guard.settled(timeout=PATIENCE_S))).status == "committed"
    body = use.content("commit")
    assert (body["actual"], body["metrics"], body["metadata"]) == (SPENT.to_dict(), {"tokens_input": 5}, {"run": 1})
    assert not use.of("commit")[0].is_foreground


async def test_the_parameters_of_release_and_extend(place: Place) -> None:
    use = place.use()
    guard = await guard_of(use, ttl_ms=20_000)
    await use.world.get(guard.extend())
    await use.world.get(guard.extend(extend_by_ms=9_000))
    await use.world.get(guard.release(reason="no longer needed"))
    assert [each.body["extend_by_ms"] for each in use.of("extend")] == [20_000, 9_000]
    assert use.content("release")["reason"] == "no longer needed"


@pytest.mark.parametrize("raised", [None, KeyError("mine")])
async def test_the_parameter_of_end(place: Place, raised: Any) -> None:
    use = place.use()
    guard = await guard_of(use)
    guard.spend(SPENT)
    await use.world.get(guard.end(raised=raised))
    assert use.content("commit").get("metadata", {}).get("outcome") == (None if raised is None else "error")


@pytest.mark.parametrize("settle", [True, False])
async def test_the_parameters_of_wrap(place: Place, settle: bool) -> None:
    use = place.use()
    guard = await guard_of(use, actual=lambda usage: T(usage.tokens_output))
    stream = use.world.generator(lambda: iter([3, 4]))()
    wrapped = guard.wrap(stream, usage=lambda chunk: {"tokens_output": chunk}, settle=settle)
    assert await use.world.all(wrapped) == [3, 4]
    assert guard.state == ("committed" if settle else "active")
    await use.world.get(guard.end())
    assert use.content("commit")["actual"] == T(7).to_dict()


@pytest.mark.parametrize("giver", ["client", "view"])
@pytest.mark.parametrize("what", ["shadow", "extend", "attach"])
async def test_max_retries_counts_for_each_write_of_a_guard(place: Place, what: str, giver: str) -> None:
    client = place.client(max_retries=0) if giver == "client" else place.client().with_options(max_retries=0)
    use, operation = place.use(client), "reserve" if what == "shadow" else "extend"
    guard = await guard_of(use)
    before = len(use.of(operation))
    use.server.faults.status(operation, 502, times=2)
    if what == "shadow":  # its block runs without a decision
        shadow = await guard_of(use, shadow=True)
        assert (shadow.decision, len(use.of(operation))) == (None, before + 1)
        await use.world.get(shadow.release())
    elif what == "extend":
        with pytest.raises(cycles.ServerError):
            await use.world.get(guard.extend())
    else:
        token = guard.detach()
        with pytest.raises(cycles.ServerError):
            await use.world.acquire(client.attach(token))
    assert len(use.of(operation)) == before + 1
    if what != "attach":
        await use.world.get(guard.release())


async def test_the_options_of_attach(place: Place) -> None:
    client = place.client()
    token = (await guard_of(place.use(client))).detach()
    use = place.use(client)
    async with use.world.enter(client.attach(token, actual=T(9), **OPTIONS)):
        pass
    assert has_options(use, "extend", "commit")
    assert use.content("commit")["actual"] == T(9).to_dict()
    use = place.use(client)
    async with use.world.enter(client.attach((await guard_of(use)).detach(), actual=T(9))):
        pass
    assert [each.timeout["read"] for each in use.sent] == [5.0] * 3


@pytest.mark.parametrize("giver", ["client", "view"])
@pytest.mark.parametrize("source", ["token", "row"])
async def test_the_options_of_a_client_are_those_of_its_attached_guards(place: Place, source: str, giver: str) -> None:
    client = place.client()
    view = client.with_options(**OPTIONS, lease_policy="fail_on_finalize")
    if giver == "client":
        settings = {"timeout": OPTIONS["timeout"], "default_headers": OPTIONS["extra_headers"]}
        view = place.client(**settings, lease_policy="fail_on_finalize")
    use = place.use(client)
    guard = await guard_of(use)
    row = await use.world.get(use.world.operations.reservation(guard.reservation_id))
    token = guard.detach()
    use = place.use(view)
    attached = await use.world.acquire(view.attach(token if source == "token" else row))
    use.lose(attached)
    if source == "row":
        with pytest.raises(cycles.LeaseLostError):
            await use.world.get(attached.commit())
    else:  # it has the policy of the guard that was detached
        await use.world.get(attached.commit())
    assert has_options(use, "extend", "commit")


@pytest.mark.parametrize(
    ("source", "kept", "given"),
    [
        ("token", "fail_on_finalize", None),
        ("token", "warn", "fail_on_finalize"),
        ("row", "warn", "fail_on_finalize"),
    ],
)
async def test_the_lease_policy_of_an_attached_guard(place: Place, source: str, kept: Any, given: Any) -> None:
    use = place.use()
    guard = await guard_of(use, lease_policy=kept)
    row = await use.world.get(use.world.operations.reservation(guard.reservation_id))
    token = guard.detach()
    attached = await use.world.acquire(use.world.client.attach(token if source == "token" else row, lease_policy=given))
    use.lose(attached)
    with pytest.raises(cycles.LeaseLostError):
        await use.world.get(attached.commit())


async def test_an_attached_guard_has_the_overage_policy_of_its_reservation(place: Place) -> None:
    use = place.use()
    token = (await guard_of(use, overage_policy="ALLOW_WITH_OVERDRAFT")).detach()
    attached = await use.world.acquire(use.world.client.attach(token))
    use.server.faults.status("commit", 410, body=EXPIRED)
    await use.world.get(attached.commit(SPENT))
    assert use.content("event")["overage_policy"] == "ALLOW_WITH_OVERDRAFT"


@pytest.mark.parametrize("giver", ["call", "view"])
@pytest.mark.parametrize("name", ["record", "commit_reservation"])
async def test_a_pending_settlement_is_sent_again_with_the_options_of_its_call(
    place: Place, name: str, giver: str
) -> None:
    client = place.client(retry_initial_delay=60.0)
    use = place.use(client.with_options(**OPTIONS) if giver == "view" else client)
    of_call = OPTIONS if giver == "call" else {}
    operation = "event" if name == "record" else "commit"
    use.server.faults.status(operation, 503, headers={"X-Request-ID": "r-9"})
    guard = await guard_of(place.use(client))
    if name == "record":
        made = use.world.operations.record(SPENT, action=ACTION, **of_call)
    else:
        made = use.world.operations.commit_reservation(guard.reservation_id, SPENT, **of_call)
    result = await use.world.get(made)
    assert (result.status, result.request_id, result.http.status) == ("PENDING", "r-9", 503)
    assert (await use.world.get(use.world.operations.flush(timeout=PATIENCE_S))).pending == 0
    assert [each.headers.get("x-team") for each in use.of(operation)] == ["red", "red"]
    assert [each.timeout["read"] for each in use.of(operation)] == [TIMEOUT_S] * 2
    traces = [each.headers["traceparent"].split("-")[1] for each in use.of(operation)]
    assert traces == [result.trace_id] * 2
    guard.detach()


async def test_the_reader_of_the_names_of_tools(place: Place) -> None:
    scope = "tenant:acme/agent:tools"
    place.server.ledger.set_budget(scope, T(10**9), caps={"tool_allowlist": ["web"]})
    use = place.use()
    guard = await guard_of(use, subject={"agent": "tools"})
    assert guard.filter_tools([("web", 1), ("shell", 2)], name=lambda tool: tool[0]) == [("web", 1)]
    await use.world.get(guard.release())
