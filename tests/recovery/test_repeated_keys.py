"""A caller's idempotency key whose first run is settled later does not run again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import cycles
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, Setup


def test_a_key_whose_first_run_is_not_settled_yet_does_not_run_again(world: Setup) -> None:
    """The server still has an active reservation under the key, but the work is done."""
    world.server.faults.refuse("commit", times=None)
    with world.client(flush_timeout=0.0) as client:
        reservation = client.reserve(cycles.tokens(100), action=ACTION, idempotency_key="job-7")
        with reservation as guard:
            assert guard.commit(cycles.tokens(7)).status == "pending"
        with pytest.raises(cycles.ReservationNotActiveError, match=r"job-7.* pending commit of 7 tokens") as caught:
            reservation.acquire()
        assert caught.value.reservation_id == guard.reservation_id


def test_a_key_whose_first_run_is_settled_during_the_reserve_does_not_run_again(world: Setup) -> None:
    """The server makes its response while the reservation is active; the background settles it before it arrives."""
    world.server.faults.refuse("commit")
    flushed: list[int] = []

    def settle(response: httpx.Response) -> None:
        if response.request.url.path == "/v1/reservations" and client.pending():
            flushed.append(client.flush(timeout=PATIENCE_S).settled)

    with (
        httpx.Client(event_hooks={"response": [settle]}) as http_client,
        world.client(http_client=http_client, retry_initial_delay=3600.0) as client,
    ):
        reservation = client.reserve(cycles.tokens(100), action=ACTION, idempotency_key="job-7")
        with reservation as guard:
            assert guard.commit(cycles.tokens(7)).status == "pending"
        with pytest.raises(cycles.ReservationNotActiveError, match=r"job-7.* committed 7 tokens") as caught:
            reservation.acquire()
        assert caught.value.reservation_id == guard.reservation_id
    assert flushed == [1]
    assert world.server.charged == 7


@pytest.mark.parametrize(
    "changed",
    [{"actual": cycles.tokens(8)}, {"action": ("llm.completion", "another-model")}, {"subject": {"agent": "another"}}],
    ids=str,
)
def test_another_amount_under_the_key_of_a_pending_one_is_not_sent(world: Setup, changed: dict[str, Any]) -> None:
    """It would replace the record of the first one, which the server has never seen."""
    world.server.faults.refuse("event", times=None)
    first: dict[str, Any] = {"actual": cycles.tokens(7), "action": ACTION, "idempotency_key": "k"}
    with world.client(retry_initial_delay=3600.0, flush_timeout=0.0) as client:
        assert client.record(**first).status == "PENDING"
        sent = len(world.server.seen)
        with pytest.raises(cycles.IdempotencyMismatchError, match="another amount is pending under this"):
            client.record(**first | changed)
        assert len(world.server.seen) == sent
        world.server.faults.clear()
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert world.server.charged == 7
