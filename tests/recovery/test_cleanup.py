"""Reservations that a create of unknown outcome may have made: found under its key and released."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import cycles
from cycles._core.messages.requests import Call
from cycles._core.settlement.schedule import Item
from cycles._drivers.work.queue import CREATE_CLEANUPS
from cycles._drivers.work.work import Later, attempt
from cycles._flows.io import CleanUp, Settle, run
from cycles._flows.reserve import clean_up_create
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, TENANT, Setup
from tests.support.inside import runtime_of


def reserved(world: Setup) -> int:
    balance = world.server.ledger.balance(f"tenant:{TENANT}", unit="TOKENS").reserved
    return 0 if balance is None else balance.amount


def requests(world: Setup, operation: str) -> list[dict[str, Any]]:
    return [seen.body for seen in world.server.seen if seen.operation == operation]


def test_a_create_whose_two_responses_are_lost_is_released(world: Setup) -> None:
    world.server.faults.drop_response("reserve", times=2)
    with world.client() as client:
        with pytest.raises(cycles.TransportError):
            client.reserve(cycles.tokens(100), action=ACTION).acquire()
        world.server.wait_for("release")
        assert client.flush(PATIENCE_S).pending == 0
    assert reserved(world) == 0
    assert len({body["idempotency_key"] for body in requests(world, "reserve")}) == 1


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(429, "LIMIT_EXCEEDED", cycles.RateLimitedError), (403, "FORBIDDEN", cycles.ForbiddenError)],
)
def test_a_lost_response_followed_by_an_error_response_is_released(
    world: Setup, status: int, code: str, error: type[cycles.CyclesError]
) -> None:
    world.server.faults.drop_response("reserve")
    world.server.faults.status("reserve", status, body={"error": code, "message": "m", "request_id": "r"})
    with world.client() as client:
        with pytest.raises(error):
            client.reserve(cycles.tokens(100), action=ACTION).acquire()
        world.server.wait_for("release")
    assert reserved(world) == 0


@pytest.mark.parametrize("key", [None, "job-1"])
def test_a_block_that_runs_unreserved_has_its_event_and_no_reservation(world: Setup, key: str | None) -> None:
    world.server.faults.drop_response("reserve", times=2)
    with world.client() as client:
        options: Any = {"on_unavailable": "allow", "idempotency_key": key}
        with client.reserve(cycles.tokens(100), action=ACTION, **options) as guard:
            guard.spend(cycles.tokens(7))
        world.server.wait_for("release")
        assert client.flush(PATIENCE_S).pending == 0
    assert (world.server.charged, reserved(world)) == (7, 0)


def test_an_unreserved_guard_that_is_dropped_has_its_event(world: Setup) -> None:
    world.server.faults.drop_response("reserve", times=2)
    with world.client() as client:
        guard: Any = client.reserve(cycles.tokens(100), action=ACTION, on_unavailable="allow").acquire()
        guard.spend(cycles.tokens(7))
        with pytest.warns(ResourceWarning, match="its known spend of 7 tokens is committed"):
            guard = None
        assert client.flush(PATIENCE_S).pending == 0
    assert world.server.charged == 7


def test_the_reservation_of_a_callers_key_stays_for_the_next_run(world: Setup) -> None:
    world.server.faults.drop_response("reserve", times=2)
    with world.client() as client:
        with pytest.raises(cycles.TransportError):
            client.reserve(cycles.tokens(100), action=ACTION, idempotency_key="job-1").acquire()
        assert reserved(world) == 100
        guard = client.reserve(cycles.tokens(100), action=ACTION, idempotency_key="job-1").acquire()
        guard.commit(cycles.tokens(5))
    assert requests(world, "release") == []
    assert (world.server.charged, reserved(world)) == (5, 0)


def test_a_request_that_was_not_sent_needs_no_cleanup(world: Setup) -> None:
    url = "http://127.0.0.1:9"  # the port of the discard service: nothing listens
    with world.client(base_url=url) as client:
        with pytest.raises(cycles.TransportError):
            client.reserve(cycles.tokens(100), action=ACTION).acquire()
        assert len(runtime_of(client).background._schedule.items) == 0


def test_a_create_for_which_the_server_could_not_check_the_key_needs_no_cleanup(world: Setup) -> None:
    """A failing store is no wrong key, so it is tried once more; neither attempt has run the operation."""
    body = {"error": "UNAUTHORIZED", "message": "INTERNAL_ERROR", "request_id": "r"}
    world.server.faults.status("reserve", 401, body=body, times=None)
    with world.client(retry_initial_delay=3600.0) as client:
        with pytest.raises(cycles.CyclesError):
            client.reserve(cycles.tokens(100), action=ACTION).acquire()
        client.flush(0.01)
        assert len(requests(world, "reserve")) == 2


def test_a_denied_create_needs_no_cleanup(world: Setup) -> None:
    with world.client() as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.tokens(5_000_000), action=ACTION).acquire()
    assert len(requests(world, "reserve")) == 1


def test_the_cleanup_repeats_its_release_with_one_key(world: Setup) -> None:
    seen: list[Any] = []
    world.server.faults.drop_response("reserve", times=2)
    world.server.faults.drop_response("release")
    with world.client(retry_initial_delay=0.01) as client:
        client.on_event(seen.append)
        with pytest.raises(cycles.TransportError):
            client.reserve(cycles.tokens(100), action=ACTION).acquire()
        world.server.wait_for("release", times=2)
        assert client.flush(PATIENCE_S).pending == 0
    assert len({body["idempotency_key"] for body in requests(world, "release")}) == 1
    assert not [event for event in seen if type(event).__name__ == "ReleaseFailed" and not event.retrying]
    assert reserved(world) == 0


def test_a_repeated_cleanup_releases_with_the_same_key(world: Setup) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        (create,) = requests(world, "reserve")
        call = Call("createReservation", body=create)
        for _ in range(2):
            run(clean_up_create(runtime_of(client).blocking, call))
        first, second = requests(world, "release")
        assert first == second
        guard.release()  # a guard that is dropped after the close would be released while the next test runs


def test_two_cleanups_release_with_two_keys(world: Setup) -> None:
    with world.client() as client:
        client.reserve(cycles.tokens(100), action=ACTION).acquire().release()
        (create,) = requests(world, "reserve")
        for key in ("first", "second"):
            call = Call("createReservation", body={**create, "idempotency_key": key})
            run(clean_up_create(runtime_of(client).blocking, call))
    assert len({body["idempotency_key"] for body in requests(world, "release")}) == 3
    assert reserved(world) == 0


def test_a_release_is_sent_five_times_at_most(world: Setup) -> None:
    """Once by its caller, and four times in the background; then the budget is returned when the lease ends."""
    ended = threading.Event()
    world.server.faults.status("release", 503, times=None)
    with world.client(retry_initial_delay=0.01, retry_max_delay=0.01) as client:
        client.on_event(lambda event: ended.set() if getattr(event, "retrying", None) is False else None)
        client.reserve(cycles.tokens(100), action=ACTION).acquire().release("not needed")
        assert ended.wait(PATIENCE_S)
        assert client.flush(PATIENCE_S).pending == 0
    assert len(requests(world, "release")) == 5


def test_a_conflict_that_says_released_is_a_success(world: Setup) -> None:
    seen: list[Any] = []
    body = {"error": "RESERVATION_FINALIZED", "message": "reservation r is RELEASED", "request_id": "r"}
    world.server.faults.status("release", 409, body=body)
    with world.client() as client:
        client.on_event(seen.append)
        client.reserve(cycles.tokens(100), action=ACTION).acquire().release("not needed")
    assert [type(event).__name__ for event in seen if "Release" in type(event).__name__] == ["Released"]


@pytest.mark.parametrize("reason", [5, b"x", ["why"]])
def test_a_release_reason_that_is_no_string_leaves_the_guard_active(world: Setup, reason: Any) -> None:
    with world.client() as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        with pytest.raises(cycles.InvalidRequestError, match="reason must be a string"):
            guard.release(reason)
        assert guard.state == "active"
        guard.release("a string")
    assert reserved(world) == 0


class Broken:
    """A record with a bug."""

    reservation_id = "broken"
    may_have_arrived = True
    attempts = 0

    @property
    def rejected(self) -> Any:
        Broken.attempts += 1
        raise TypeError("a bug")


def test_an_exception_of_one_task_reaches_neither_flush_nor_the_other_tasks(
    world: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    Broken.attempts = 0
    world.server.faults.refuse("commit")
    with world.client(retry_initial_delay=0.001) as client:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.commit(cycles.tokens(5))
        broken: Any = Broken()
        runtime_of(client).background._schedule.add("broken", Settle(broken, None, "pending"), 0.0)
        assert client.flush(PATIENCE_S).pending == 0
    assert world.server.charged == 5
    assert Broken.attempts == 5  # bounded
    assert "a bug" in caplog.text


def create_call(key: str) -> Call:
    body = {"idempotency_key": key, "ttl_ms": 60_000}
    return Call("createReservation", body=body)


def test_a_create_is_not_sent_again_after_its_reservation_must_have_ended(world: Setup) -> None:
    with world.client() as client:
        runtime = runtime_of(client)
        over_s = time.monotonic() - 66.0  # ttl_ms of the call, and the default grace period
        item: Item[Any] = Item("create:k", CleanUp(create_call("k")), over_s)
        assert run(attempt(runtime.blocking, runtime.records, item)) is None
    assert requests(world, "reserve") == []


@pytest.mark.parametrize("is_sent", [False, True])
def test_only_an_attempt_that_may_have_made_a_reservation_lets_its_cleanup_go_on_for_longer(
    world: Setup, is_sent: bool
) -> None:
    world.server.faults.drop_response("reserve", times=None)
    with world.client(flush_timeout=0.0, **({} if is_sent else {"base_url": "http://127.0.0.1:9"})) as client:
        runtime = runtime_of(client)
        begun_s = time.monotonic() - 60.0
        item: Item[Any] = Item("create:k", CleanUp(create_call("k")), begun_s)
        assert isinstance(run(attempt(runtime.blocking, runtime.records, item)), Later)
    assert (item.since > begun_s) == is_sent


def test_at_most_1024_cleanups_wait(world: Setup, caplog: pytest.LogCaptureFixture) -> None:
    world.server.faults.refuse("reserve", times=None)
    with world.client(flush_timeout=0.01) as client:
        background = runtime_of(client).background
        for number in range(CREATE_CLEANUPS + 3):
            background.hand_over(CleanUp(create_call(f"k{number}")), now=True)
        waiting = [item for item in background._schedule if isinstance(item.value, CleanUp)]
        assert len(waiting) == CREATE_CLEANUPS
        assert background._schedule.items.get("create:k0") is None
        assert background._schedule.items.get(f"create:k{CREATE_CLEANUPS + 2}") is not None
    assert "create cleanup dropped" in caplog.text


def test_a_create_that_failed_is_cleaned_up_after_the_pause_of_a_retry(world: Setup) -> None:
    world.server.faults.status("reserve", 503, times=None)
    with world.client(retry_initial_delay=3600.0, flush_timeout=0.0) as client, pytest.raises(cycles.ServerError):
        client.reserve(cycles.tokens(100), action=ACTION).acquire()
    assert len(requests(world, "reserve")) == 2  # that of the caller, and its one retry


async def fails_async(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.ServerError):
        await client.reserve(cycles.tokens(100), action=ACTION)
    await client.aclose()


def test_a_create_of_a_task_that_failed_is_cleaned_up_after_that_pause_too(world: Setup) -> None:
    world.server.faults.status("reserve", 503, times=None)
    asyncio.run(fails_async(world.client(retry_initial_delay=3600.0, flush_timeout=0.0)))
    assert len(requests(world, "reserve")) == 2


def test_one_attempt_of_the_cleanup_sends_one_create(world: Setup) -> None:
    world.server.faults.status("reserve", 503, times=None)
    with world.client() as client:
        outcome = run(clean_up_create(runtime_of(client).blocking, create_call("k")))
    assert outcome.status == 503  # type: ignore[union-attr]
    assert len(requests(world, "reserve")) == 1
