"""A guard in the hand: what it reads, what ends it, and that it ends once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.io import run
from cycles._journal.files.locked_file import is_supported
from cycles._journal.files.spend import read_entries
from tests.support.inside import runtime_of, state_of
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, Shop, World

pytestmark = pytest.mark.anyio

T = cycles.tokens


async def test_everything_that_can_be_read(world: World, shop: Shop) -> None:
    shop.ledger.set_budget("tenant:acme", T(1000), caps={"max_tokens": 50, "tool_allowlist": ["web"]})
    guard = await world.acquire(world.reserve(T(100), metadata={"run": 1}, idempotency_key="k-1"))
    assert type(guard).__name__ == ("AsyncGuard" if world.is_async else "Guard")
    assert isinstance(guard.reservation_id, str)
    assert (guard.decision, guard.is_capped, guard.reason_code) == ("ALLOW_WITH_CAPS", True, None)
    assert guard.caps is not None
    assert guard.caps.max_tokens == 50
    assert guard.expires_at_ms == round(guard.expires_at.timestamp() * 1000)
    assert guard.expires_at.tzinfo is UTC
    assert (guard.affected_scopes, guard.scope_path) == (["tenant:acme"], "tenant:acme")
    assert (guard.reserved, guard.estimate, guard.spent) == (T(100), T(100), None)
    assert guard.balances[0].reserved == T(100)
    assert (guard.state, guard.lease_error, guard.settlement) == ("active", None, None)
    assert guard.subject == cycles.Subject(tenant="acme")
    assert guard.action == cycles.Action(*ACTION)
    assert guard.usage.tokens_input == 0
    assert guard.request_id
    assert guard.trace_id == shop.sent("reserve")[0].headers["traceparent"].split("-")[1]
    assert guard.idempotency_key == "k-1"
    assert guard.allows_tool("web")
    with pytest.raises(cycles.ToolNotAllowedError):
        guard.require_tool("shell")
    before = guard.expires_at_ms
    extended = await world.get(guard.extend(30_000))
    assert guard.expires_at_ms == extended.expires_at_ms == before + 30_000
    settlement = await world.get(guard.commit(T(7)))
    assert guard.balances == settlement.balances
    assert guard.balances[0].spent == T(7)
    assert settlement.trace_id
    assert settlement.request_id == settlement.response.request_id


@pytest.mark.parametrize("first", ["commit", "release"])
@pytest.mark.parametrize("second", ["commit", "release", "extend", "spend"])
async def test_a_guard_ends_once(world: World, shop: Shop, first: str, second: str) -> None:
    verbs: dict[str, Callable[[Any], Any]] = {
        "commit": lambda guard: guard.commit(T(1)),
        "release": lambda guard: guard.release(),
        "extend": lambda guard: guard.extend(),
        "spend": lambda guard: guard.spend(T(1)),
    }
    guard = await world.acquire(world.reserve())
    await world.get(verbs[first](guard))
    with pytest.raises(cycles.GuardFinalizedError):
        await world.get(verbs[second](guard))
    assert shop.operations == ["reserve", first]


async def test_a_guard_is_extended_as_often_as_requested(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve(ttl_ms=20_000))
    await world.get(guard.extend())
    await world.get(guard.extend(5_000))
    assert [body["extend_by_ms"] for body in shop.bodies("extend")] == [20_000, 5_000]
    assert len({body["idempotency_key"] for body in shop.bodies("extend")}) == 2
    await world.get(guard.release())


@pytest.mark.parametrize("by", [0, -1, 86_400_001, True, "5", 1.5])
async def test_an_extension_out_of_bounds_is_rejected_before_it_is_sent(world: World, shop: Shop, by: Any) -> None:
    guard = await world.acquire(world.reserve())
    with pytest.raises(cycles.InvalidRequestError, match="extend_by_ms"):
        await world.get(guard.extend(by))
    assert shop.operations == ["reserve"]
    await world.get(guard.release())


def test_of_threads_that_race_for_one_guard_one_settles_it(client: cycles.Cycles, shop: Shop) -> None:
    for _ in range(5):
        shop.server.requests.clear()
        guard = client.reserve(T(100), action=ACTION).acquire()
        start = threading.Barrier(4)
        lost: list[BaseException] = []

        def end(verb: Callable[[], object], start: threading.Barrier = start, lost: list[BaseException] = lost) -> None:
            start.wait(PATIENCE_S)
            try:
                verb()
            except cycles.GuardFinalizedError as error:
                lost.append(error)

        verbs = [lambda g=guard: g.commit(T(5)), lambda g=guard: g.release()] * 2
        threads = [threading.Thread(target=end, args=(verb,)) for verb in verbs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(lost) == 3
        assert len(shop.sent("commit") + shop.sent("release")) == 1
    assert shop.money()[1] == 0


@pytest.mark.parametrize("wrong", [cycles.usd(1), 5, "5", None])
async def test_what_cannot_be_settled_leaves_the_guard_unchanged(world: World, shop: Shop, wrong: Any) -> None:
    guard = await world.acquire(world.reserve())
    with pytest.raises(cycles.InvalidRequestError):
        await world.get(guard.commit(wrong))
    with pytest.raises(cycles.InvalidRequestError):
        guard.spend(wrong)
    assert (guard.state, guard.spent, shop.operations) == ("active", None, ["reserve"])
    await world.get(guard.commit(T(5)))
    assert shop.money() == (5, 0)


@pytest.mark.parametrize(
    "extras",
    [
        {"metrics": {"tokens_input": -1}},
        {"metrics": {"no_such": 1}},
        {"metrics": 5},
        {"metadata": {"when": object()}},
        {"metadata": "text"},
    ],
)
async def test_a_wrong_label_never_keeps_an_amount_from_being_settled(world: World, shop: Shop, extras: Any) -> None:
    async with world.enter(world.reserve()) as guard:
        await world.get(guard.commit(T(32), **extras))
    assert guard.state == "committed"
    assert shop.money() == (32, 0)
    assert "metadata" not in shop.bodies("commit")[0]


class Spending(Mapping[str, Any]):
    """What another thread spends during its reading."""

    def __init__(self, guard: Any) -> None:
        self._guard = guard

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        if self._guard.spent.amount > 5:
            return iter(())
        thread = threading.Thread(target=self._guard.spend, args=(T(3),))
        thread.start()
        thread.join(PATIENCE_S)
        return iter(())

    def __len__(self) -> int:
        return 0


async def test_what_is_spent_while_a_commit_begins_is_committed_too(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        guard.spend(T(5))
        guard.usage.custom["reader"] = Spending(guard)
        settlement = await world.get(guard.commit())
    assert settlement.actual == guard.spent == T(8)
    assert shop.money() == (8, 0)


async def test_a_guard_without_a_block_is_settled_by_hand(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve())
    assert cycles.current_guard() is not guard
    await world.get(guard.commit(T(5)))
    assert shop.money() == (5, 0)


async def test_a_guard_that_was_acquired_may_be_entered(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve())
    async with world.enter(guard) as same:
        assert same is guard
        guard.spend(T(2))
    assert shop.money() == (2, 0)


async def test_a_description_may_be_used_again(world: World, shop: Shop) -> None:
    reservation = world.reserve(actual=T(2))
    assert shop.operations == []
    ids = set()
    for _ in range(2):
        async with world.enter(reservation) as guard:
            ids.add(guard.reservation_id)
    assert len(ids) == 2
    async with world.enter(reservation):
        with pytest.raises(cycles.GuardFinalizedError, match="entered already"):
            async with world.enter(reservation):
                pass
    assert len({body["idempotency_key"] for body in shop.bodies("reserve")}) == 3
    assert shop.money() == (6, 0)


async def test_usage_becomes_the_metrics(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve(actual=T(5))) as guard:
        guard.usage.add(tokens_input=3, tokens_output=4)
        guard.usage.model_version = "m-1"
        guard.usage.custom["retries"] = 2
    metrics = shop.bodies("commit")[0]["metrics"]
    assert isinstance(metrics.pop("latency_ms"), int)
    assert metrics == {"tokens_input": 3, "tokens_output": 4, "model_version": "m-1", "custom": {"retries": 2}}


async def test_metrics_that_are_given_win(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        guard.usage.add(tokens_input=3)
        await world.get(guard.commit(T(5), metrics=cycles.Metrics(tokens_input=9), metadata={"a": 1}))
    assert shop.bodies("commit")[0]["metrics"] == {"tokens_input": 9}
    assert shop.bodies("commit")[0]["metadata"] == {"a": 1}


async def test_poison_in_the_usage_is_left_out_and_the_amount_settled(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        guard.usage.custom["handle"] = object()
        guard.usage.custom["fine"] = 1
        guard.spend(T(5))
    assert shop.bodies("commit")[0]["metrics"]["custom"] == {"fine": 1}
    assert shop.money() == (5, 0)


async def test_a_server_that_rejects_the_labels_gets_the_amount_without_them(world: World, shop: Shop) -> None:
    shop.faults.status("commit", 400, body={"error": "INVALID_REQUEST", "message": "metrics!", "request_id": "r"})
    async with world.enter(world.reserve()) as guard:
        await world.get(guard.commit(T(5), metadata={"a": 1}))
    first, second = shop.bodies("commit")
    assert "metadata" in first
    assert second == {"idempotency_key": first["idempotency_key"], "actual": T(5).to_dict()}
    assert shop.money() == (5, 0)


async def test_an_amount_without_labels_that_is_rejected_is_not_sent_again(world: World, shop: Shop) -> None:
    shop.faults.status("commit", 400, body={"error": "INVALID_REQUEST", "message": "amount!", "request_id": "r"})
    with pytest.raises(cycles.ProtocolError, match="amount!"):
        async with world.enter(world.reserve()) as guard:
            await world.get(guard.commit(T(5)))
    assert (guard.state, len(shop.bodies("commit"))) == ("rejected", 1)


async def test_a_guard_that_is_dropped_releases_its_budget(world: World, shop: Shop, events: list[Any]) -> None:
    guard = await world.acquire(world.reserve())
    held = [guard]
    del guard
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    shop.until(lambda: shop.sent("release"))
    assert shop.bodies("release")[0]["reason"] == "guard_dropped"
    assert shop.money() == (0, 0)
    assert any(isinstance(event, cycles.events.GuardNotCommitted) for event in events)


async def test_a_guard_that_is_dropped_pays_what_it_spent(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve())
    guard.spend(T(6))
    held = [guard]
    del guard
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    shop.until(lambda: shop.sent("commit"))
    assert shop.bodies("commit")[0]["metadata"] == {"outcome": "dropped"}
    assert shop.money() == (6, 0)


class Interrupted(BaseException):
    """What a signal handler raises."""


class InterruptedValues(dict[str, Any]):
    """Metadata, in whose check the signal comes."""

    def __iter__(self) -> Any:
        raise Interrupted

    items = __iter__


def test_a_guard_without_a_reservation_that_is_dropped_pays_what_its_commit_reported(shop: Shop) -> None:
    shop.faults.refuse("reserve", times=None)
    guard = shop.client(max_retries=0).reserve(T(10), action=ACTION, on_unavailable="allow").acquire()
    shop.faults.clear()
    with pytest.raises(Interrupted):
        guard.commit(T(6), metadata=InterruptedValues(run=1))
    held = [guard]
    del guard
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    shop.until(lambda: shop.sent("event"))
    shop.until(lambda: shop.money() == (6, 0))  # the clean-up of the lost reserve may hold the estimate for a moment


async def test_a_guard_that_was_settled_may_be_dropped(world: World, shop: Shop) -> None:
    guard = await world.acquire(world.reserve())
    await world.get(guard.commit(T(5)))
    del guard
    assert shop.operations == ["reserve", "commit"]


async def test_what_a_thread_spends_while_the_block_ends_is_committed(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It spends just after the end of the block has found nothing to commit."""
    async with world.enter(world.reserve()) as guard:
        hold = state_of(guard)
        claim = hold.claim

        def spend_first(self: Any, what: str, *known: Any) -> bool:
            if what == "release":
                monkeypatch.undo()
                self.spend(T(3))
            return bool(claim(what, *known))

        monkeypatch.setattr(type(hold), "claim", spend_first)
    assert shop.money() == (3, 0)


async def test_the_end_of_a_block_leaves_a_guard_alone_that_another_thread_just_ended(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.enter(world.reserve(actual=T(9))) as guard:
        hold = state_of(guard)
        claim = hold.claim

        def too_late(self: Any, what: str, *known: Any) -> bool:
            monkeypatch.undo()
            claim("commit")
            return bool(claim(what, *known))

        monkeypatch.setattr(type(hold), "claim", too_late)
    assert shop.operations == ["reserve"]


async def test_an_interrupt_while_a_shadow_commits_sends_nothing(
    world: World, shop: Shop, client: cycles.Cycles
) -> None:
    def interrupts(event: object) -> None:
        if type(event).__name__ == "ShadowSettled":
            raise KeyboardInterrupt

    client.on_event(interrupts)
    guard = await world.acquire(world.reserve(shadow=True))
    with pytest.raises(KeyboardInterrupt):
        await world.get(guard.commit(T(5)))
    assert client.pending() == []
    assert (shop.sent("event"), shop.money()) == ([], (0, 0))


def test_one_extend_of_a_lease_is_sent_at_a_time(client: cycles.Cycles, shop: Shop) -> None:
    guard = client.reserve(T(100), action=ACTION).acquire()
    heartbeat, blocking = state_of(guard).heartbeat, runtime_of(client).blocking
    shop.on_arrival["extend"] = lambda: run(send_heartbeat(blocking, heartbeat))
    run(send_heartbeat(blocking, heartbeat))
    assert shop.operations == ["reserve", "extend"]
    guard.release()


def test_the_response_to_an_extend_of_a_guard_that_has_ended_is_not_reported(
    client: cycles.Cycles, shop: Shop, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    respond = shop.hold(monkeypatch)
    shop.faults.delay("extend", 1.0)
    guard = client.reserve(T(100), action=ACTION).acquire()
    renewal = send_heartbeat(runtime_of(client).blocking, state_of(guard).heartbeat)
    sender = threading.Thread(target=run, args=(renewal,))
    sender.start()
    shop.until(lambda: shop.sent("extend"))
    guard.commit(T(7))
    respond.set()
    sender.join()
    assert [type(event).__name__ for event in events if "Lease" in type(event).__name__] == []


def test_what_owns_a_lease_finds_the_cause_of_its_loss(client: cycles.Cycles, shop: Shop) -> None:
    """A chunk cancels the blocks of its guards then, which raise it."""
    causes = []

    class Owner:
        def may_extend(self) -> bool:
            return True

        def lease_changed(self, _: object) -> None:
            causes.append(heartbeat.lost_error().__cause__)

        def lease_lost(self) -> None:
            causes.append(heartbeat.lost_error().__cause__)

    guard = client.reserve(T(100), action=ACTION).acquire()
    heartbeat = state_of(guard).heartbeat
    heartbeat.owner = Owner()
    expired = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
    shop.faults.status("extend", 410, body=expired)
    run(send_heartbeat(runtime_of(client).blocking, heartbeat))
    assert [type(cause) for cause in causes] == [cycles.ReservationExpiredError] * 2
    guard.release()


@pytest.mark.skipif(not is_supported(), reason="spend is written ahead under file locks")
async def test_a_detached_guard_leaves_no_spend_behind(world: World, tmp_path: Path) -> None:
    """The token has it. A later process of this machine would commit it as well."""

    def left() -> int:
        return sum(len(read_entries(log.read_bytes())) for log in tmp_path.rglob("spend-*.log"))

    guard = await world.acquire(world.reserve())
    guard.spend(T(3))
    assert left() == 1
    token = guard.detach()
    assert left() == 0
    continued = await world.acquire(world.client.attach(token))
    assert (await world.get(continued.commit())).actual == T(3)
