"""The events of the dashboard: how changes are merged and numbered, how a page continues, and when streams end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import attrs
import httpx
import pytest

import cycles
from cycles.embedded.dashboard.app import DashboardApp
from cycles.embedded.dashboard.event_log import EventLog
from cycles.embedded.dashboard.feed import MAX_MERGED, Feed
from cycles.embedded.dashboard.redaction import Redactor
from cycles.embedded.dashboard.routes import Dashboard, Stream as StreamRequest
from tests.support.waiting import forever

ACTION = ("llm.completion", "small-model")


@attrs.define
class Event:
    """A server-sent event."""

    name: str
    id: int
    data: dict[str, Any]


def parsed(text: str) -> list[Event]:
    """Return the events of a part of a stream; comments are none."""
    events = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            events.append(Event(fields.get("event", "message"), int(fields["id"]), json.loads(fields["data"])))
    return events


class Page:
    """A feed with a timer that a test moves."""

    def __init__(self, server: cycles.EmbeddedServer) -> None:
        self.now_s = 0.0
        self.feed = Feed(server.ledger, server.faults, server._clock, Redactor([]).encode, lambda: self.now_s)
        self.position = self.feed.last_event_id

    def after(self, seconds: float) -> list[Event]:
        """Return the events that are new after a pause."""
        self.now_s += seconds
        self.feed.publish()
        events, self.position = self.feed.after(self.position)
        return parsed(b"".join(events).decode())


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock()


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(10)}, clock=clock) as server:
        yield server


def test_a_state_is_not_older_than_the_event_that_it_names(
    server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page continues with the events after it, so a change that is in neither would stay away."""
    page, read = Page(server), server.ledger.reservations

    def reservations() -> Any:
        server.ledger.fund("tenant:acme", cycles.usd(1))  # the budgets of the state are read
        page.now_s += 1
        page.feed.publish()
        return read()

    monkeypatch.setattr(server.ledger, "reservations", reservations)
    state = page.feed.state()
    events, _ = page.feed.after(state["last_event_id"])
    (event,) = parsed(b"".join(events).decode())
    shown = [row["allocated"]["amount"] for row in (*state["budgets"], *event.data["budgets"])]
    assert shown == [cycles.usd(10).amount, cycles.usd(11).amount]


def test_changes_are_merged_into_at_most_ten_events_a_second(server: cycles.EmbeddedServer) -> None:
    page = Page(server)
    found: list[Event] = []
    for _ in range(300):  # one change each hundredth of a second
        server.ledger.fund("tenant:acme", cycles.usd(1))
        found += page.after(0.01)
    assert 28 <= len(found) <= 30
    assert [event.id for event in found] == list(range(found[0].id, found[0].id + len(found)))
    assert all(event.data["last_event_id"] == event.id for event in found)
    [budget] = found[-1].data["budgets"]
    assert budget["allocated"]["amount"] >= 300_00_000_000
    assert set(found[-1].data) == {"last_event_id", "at_ms", "budgets"}  # only what changed


def test_without_a_change_there_is_no_event(server: cycles.EmbeddedServer) -> None:
    page = Page(server)
    assert page.after(1) == page.after(1) == []


def test_an_advanced_clock_and_changed_faults_are_events(
    server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    page = Page(server)
    clock.advance(500)
    [event] = page.after(1)
    assert set(event.data) == {"last_event_id", "at_ms"}
    assert event.data["at_ms"] == 1_700_000_000_500
    server.faults.delay("commit", 2.0)
    [event] = page.after(1)
    assert event.data["faults"] == [{"operation": "commit", "kind": "delay", "times": 1, "seconds": 2.0}]
    server.ledger.set_budget("tenant:new", cycles.usd(1))
    [event] = page.after(1)
    assert event.data["budget_count"] == 2


def test_an_expired_reservation_is_an_event_without_a_request(
    server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    page = Page(server)
    server.client().reserve(cycles.usd(1), action=ACTION, ttl_ms=60_000, grace_period_ms=0).acquire().detach()
    [event] = page.after(1)
    assert [row["status"] for row in event.data["reservations"]] == ["ACTIVE"]
    clock.advance(60_001)
    [event] = page.after(1)
    assert [row["status"] for row in event.data["reservations"]] == ["EXPIRED"]
    assert event.data["budgets"][0]["reserved"]["amount"] == 0


def test_a_deleted_budget_and_too_many_changes_reset_the_page(server: cycles.EmbeddedServer) -> None:
    page = Page(server)
    server.ledger.delete_budget("tenant:acme")
    [event] = page.after(1)
    assert (event.name, event.data) == ("reset", {"last_event_id": event.id})
    assert page.feed.state()["budget_count"] == 0
    for number in range(MAX_MERGED + 1):
        server.ledger.set_budget(f"tenant:acme/agent:bot-{number}", cycles.usd(1))
    [event] = page.after(1)
    assert event.name == "reset"


def test_the_last_1000_events_are_kept_and_an_older_or_unknown_id_gets_a_reset() -> None:
    log = EventLog(5_000, lambda data: json.dumps(data).encode())
    for number in range(1_200):
        log.add({"budget_count": number})
    assert log.last_id == 6_200
    assert log.since(6_200) == []
    kept = parsed(b"".join(log.since(5_200)).decode())
    assert [event.id for event in kept] == list(range(5_201, 6_201))
    assert kept[0].data == {"last_event_id": 5_201, "budget_count": 200}
    for unknown in (5_199, 0, -1, 6_201):
        [event] = parsed(b"".join(log.since(unknown)).decode())
        assert (event.name, event.id, event.data) == ("reset", 6_200, {"last_event_id": 6_200})


def test_the_ids_of_a_later_server_are_higher(server: cycles.EmbeddedServer) -> None:
    first = Page(server)
    assert abs(first.feed.last_event_id - time.time() * 1000) < 60_000
    for _ in range(5):
        server.ledger.fund("tenant:acme", cycles.usd(1))
        first.after(0.1)
    assert Page(server).feed.last_event_id <= time.time() * 1000


def test_a_change_between_state_and_event_is_in_one_of_them(server: cycles.EmbeddedServer) -> None:
    page = Page(server)
    page.after(1)
    server.ledger.fund("tenant:acme", cycles.usd(1))
    state = page.feed.state()
    [event] = page.after(1)
    assert state["last_event_id"] == event.id - 1
    assert event.data["budgets"] == state["budgets"]


# --- streams ----------------------------------------------------------------------------------------------------------


class Stream:
    """An open stream of events, read by a thread."""

    def __init__(self, http: httpx.Client, last_event_id: int | str | None) -> None:
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        self._text = ""
        self._news = threading.Condition()
        self._response = http.stream("GET", "/dashboard/events", headers=headers, timeout=120)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.headers: httpx.Headers | None = None
        self._thread.start()

    def _read(self) -> None:
        with self._response as response:
            self.headers = response.headers
            for part in response.iter_text():
                with self._news:
                    self._text += part
                    self._news.notify_all()

    def wait_for(self, count: int) -> list[Event]:
        """Return the events once there are `count`."""
        with self._news:
            assert self._news.wait_for(lambda: len(parsed(self._text)) >= count, 60), self._text
            return parsed(self._text)

    def wait_for_start(self) -> None:
        """Return when the first byte arrived."""
        with self._news:
            assert self._news.wait_for(lambda: bool(self._text), 60)

    def ends_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def test_a_stream_sends_changes_and_a_later_one_continues(server: cycles.EmbeddedServer) -> None:
    opened: list[Stream] = []

    def stream(last_event_id: int | str | None) -> Stream:
        opened.append(Stream(http, last_event_id))
        return opened[-1]

    with httpx.Client() as http:
        with server.listen() as http.base_url:
            begun = http.get("/dashboard/state").json()["last_event_id"]
            first = stream(begun)
            first.wait_for_start()
            for count in (1, 2, 3):
                server.ledger.fund("tenant:acme", cycles.usd(1))
                first.wait_for(count)
            events = first.wait_for(3)
            assert first.headers is not None
            assert first.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert events[0].id == begun + 1
            assert stream(events[0].id).wait_for(2)[:2] == events[1:3]
            [reset] = stream(begun - 1).wait_for(1)
            assert reset.name == "reset"
            assert stream("nonsense").wait_for(1)[0].name == "reset"
            new = stream(None)
            new.wait_for_start()
            server.ledger.fund("tenant:acme", cycles.usd(1))
            assert new.wait_for(1)[0].id == events[-1].id + 1  # a page without an id begins now
        # A thread that still reads when the client is closed fails the test that runs then.
        assert all(each.ends_within(60) for each in opened)


def test_streams_end_immediately_when_the_listener_stops(server: cycles.EmbeddedServer) -> None:
    listener = server.listen()
    with httpx.Client() as http:
        http.base_url = listener.start()
        streams = [Stream(http, None) for _ in range(5)]
        for stream in streams:
            stream.wait_for_start()
        began = time.monotonic()
        listener.stop()
        assert all(stream.ends_within(60) for stream in streams)
        assert time.monotonic() - began < 30
        http.base_url = listener.start()  # a listener can start again
        again = Stream(http, None)
        again.wait_for_start()
        listener.stop()
        assert again.ends_within(60)


@pytest.mark.parametrize("fails", [True, False])
def test_a_stream_that_ends_no_longer_waits_for_its_client(fails: bool) -> None:
    async def run() -> None:
        waits, ended = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            waits.set()
            try:
                await forever()
            finally:
                ended.set()
            return {}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await waits.wait()
                app.close()
                if fails:
                    raise OSError("the connection is lost")

        with cycles.EmbeddedServer() as server:
            app = DashboardApp(Dashboard(server.ledger, server.faults, cycles.ManualClock(), None), "localhost")
            with pytest.raises(OSError, match="lost") if fails else nullcontext():
                await app.stream(StreamRequest(0), receive, send)
            for _ in range(3):  # what is cancelled ends in the next rounds of the loop
                await asyncio.sleep(0)
            assert ended.is_set()

    asyncio.run(run())


def test_streams_end_when_the_server_is_closed(server: cycles.EmbeddedServer) -> None:
    with httpx.Client() as http, server.listen() as http.base_url:
        stream = Stream(http, None)
        stream.wait_for_start()
        server.close()
        assert stream.ends_within(60)
