"""What tests of guards share: no late request of one test, or of another client, takes what a test has prepared."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cycles._drivers.work.queue import WorkQueue
from cycles._journal.records import Records
from cycles.embedded.http import Request
from tests.support.doors import Door
from tests.support.waiting import PATIENCE_S

from .conftest import Shop

REFUSED = (None, None)


class Server:
    """Responds with its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def handle(self, request: Request) -> Any:
        return self.name


class Key(str):
    """An API key. The next test begins while this one is looked up: 1 is the first look-up, 0 is none."""

    begin_next: Callable[[], None]
    lookups: int

    def __hash__(self) -> int:
        self.lookups -= 1
        if self.lookups == 0:
            self.begin_next()
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def send(door: Door, key: str | None) -> Any:
    headers = {} if key is None else {"x-cycles-api-key": key}
    return door.handle(Request(method="POST", target="/v1/reservations/r/commit", headers=headers))


@pytest.mark.parametrize(("lookups", "outcome"), [(0, REFUSED), (1, REFUSED), (2, "first")])
def test_a_late_request_does_not_reach_the_server_of_the_next_test(lookups: int, outcome: Any) -> None:
    door = Door()
    with contextlib.ExitStack() as test:

        def begin_next() -> None:
            test.close()
            test.enter_context(door.serves(Server("second"), "key of the second"))

        test.enter_context(door.serves(Server("first"), "key of the first"))
        late = Key("key of the first")
        late.begin_next, late.lookups = begin_next, lookups
        if lookups == 0:
            begin_next()
        assert send(door, late) == outcome
        assert send(door, "key of the second") == "second"
    assert send(door, "key of the second") == REFUSED


def test_every_key_that_a_server_was_sent_belongs_to_its_test() -> None:
    door = Door()
    with door.serves(Server("first"), "its own"):
        assert [send(door, "another"), send(door, None)] == ["first", "first"]
    with door.serves(Server("second"), "new"):
        assert [send(door, key) for key in ("its own", "another")] == [REFUSED, REFUSED]
        assert [send(door, "new"), send(door, None)] == ["second", "second"]


def test_a_client_has_read_the_journal_before_other_clients_save_in_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would send what it finds there, as what an earlier process has left."""
    awaited = threading.Event()
    read: list[Any] = []
    left_by_others, pending = Records.left_by_others, WorkQueue.pending

    def slow(records: Records, now_ms: int) -> Any:
        assert awaited.wait(PATIENCE_S)
        read.append(left_by_others(records, now_ms))
        return read[-1]

    def wait(queue: WorkQueue, *given: Any) -> Any:
        awaited.set()
        return pending(queue, *given)

    monkeypatch.setattr(Records, "left_by_others", slow)
    monkeypatch.setattr(WorkQueue, "pending", wait)
    try:
        shop.client()
        assert read == [[]]
    finally:
        awaited.set()
