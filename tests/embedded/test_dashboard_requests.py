"""What each request to the dashboard gets, without a socket, and what its feed keeps and merges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

import cycles
from cycles.embedded.dashboard import checks, feed as feeds
from cycles.embedded.dashboard.app import DashboardApp, Message
from cycles.embedded.dashboard.event_log import EventLog
from cycles.embedded.dashboard.feed import Feed
from cycles.embedded.dashboard.redaction import Redactor
from cycles.embedded.dashboard.routes import Dashboard, Stream
from cycles.embedded.dashboard.summary import View
from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response

ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
START_MS: Final = 1_700_000_000_000
LONG: Final = "x" * 100
CUT: Final = "'" + 79 * "x"  # 80 characters of its repr
LOST: Final = "the dashboard has no such path, or does not keep this request any more"
NO_TOKEN: Final = "the token is missing or wrong; open the address that the server printed, with its fragment"
TOO_LARGE: Final = "the body is too large; send at most 10000 bytes"
NO_JSON: Final = "the body is not JSON; send an object like {'do': 'clear_faults'}"
USE: Final = "unknown method for this path; use "


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock(START_MS)


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({ACME: cycles.tokens(100), BOT: cycles.tokens(9)}, clock=clock) as server:
        yield server


@pytest.fixture
def dashboard(server: cycles.EmbeddedServer, clock: cycles.ManualClock) -> Dashboard:
    return Dashboard(server.ledger, server.faults, clock, None)


def sent(
    dashboard: Dashboard, method: str, target: str, body: bytes = b"", *, reads_freely: bool = True, **headers: str
) -> Response | Stream:
    named = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = Request(method=method, target=target, headers=named, body=body)
    return dashboard.handle(request, frozenset(), reads_freely=reads_freely)


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "header", "message"),
    [
        ("GET /", 302, ("Location", "/dashboard"), None),
        ("HEAD /?a=b", 302, ("Location", "/dashboard"), None),
        ("PUT /", 405, ("Allow", "GET, HEAD"), f"{USE}GET"),
        ("HEAD /dashboard/", 200, ("Content-Type", "text/html; charset=utf-8"), None),
        ("PUT /dashboard", 405, ("Allow", "GET, HEAD"), f"{USE}GET"),
        ("HEAD /dashboard/state", 405, ("Allow", "GET"), f"{USE}GET"),
        ("POST /dashboard/state", 405, ("Allow", "GET"), f"{USE}GET"),
        ("GET /dashboard/control", 405, ("Allow", "POST"), f"{USE}POST"),
        ("PUT /dashboard/control", 405, ("Allow", "POST"), f"{USE}POST"),
        ("POST /dashboard/control", 401, ("WWW-Authenticate", "Bearer"), NO_TOKEN),
        ("GET /dashboard/nonsense", 404, ("Content-Type", "application/json"), LOST),
        ("GET /dashboard/requests", 404, ("Content-Type", "application/json"), LOST),
        ("GET /dashboard/requests/1", 404, ("Content-Type", "application/json"), LOST),
        ("GET /dashboard/other/1", 404, ("Content-Type", "application/json"), LOST),
        (f"GET /dashboard/requests/{'9' * 5_000}", 404, ("Content-Type", "application/json"), LOST),
        (
            f"GET /dashboard/state?sort={LONG}",
            400,
            ("Content-Type", "application/json"),
            f"unknown sort: {CUT}; use share, name, left",
        ),
        (
            f"GET /dashboard/summary?period={LONG}",
            400,
            ("Content-Type", "application/json"),
            f"unknown period: {CUT}; use 5m, 1h, 24h, all",
        ),
        (
            f"GET /dashboard/summary?by={LONG}",
            400,
            ("Content-Type", "application/json"),
            f"unknown by: {CUT}; use unit, scope, action",
        ),
        ("GET /dashboard/state?sort=nonsense&sort=name", 200, ("X-Cycles-Clock", "manual"), None),
    ],
)
def test_each_request_gets_its_status_header_and_message(
    dashboard: Dashboard, line: str, status: int, header: tuple[str, str], message: str | None
) -> None:
    method, _, target = line.partition(" ")
    found = sent(dashboard, method, target)
    assert isinstance(found, Response)
    assert (found.status, found.headers[header[0]]) == (status, header[1])
    assert found.headers.items() >= checks.HEADERS.items()
    if message is not None:
        assert json.loads(found.body) == {"message": message}


@pytest.mark.parametrize("path", ["state", "summary", "denials", "requests/1", "nonsense"])
def test_reading_needs_the_token_unless_the_host_is_loopback(dashboard: Dashboard, path: str) -> None:
    for token in ("", f"Bearer {dashboard.token}x"):
        found = sent(dashboard, "GET", f"/dashboard/{path}", reads_freely=False, authorization=token)
        assert isinstance(found, Response)
        assert (found.status, json.loads(found.body)) == (401, {"message": NO_TOKEN})
    allowed = sent(
        dashboard, "GET", f"/dashboard/{path}", reads_freely=False, authorization=f"Bearer {dashboard.token}"
    )
    assert isinstance(allowed, Response)
    assert allowed.status in (200, 404)


CLEAR: Final = b'{"do":"clear_faults"}'


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (CLEAR, 200, "removed all faults"),
        (CLEAR.rjust(10_000), 200, "removed all faults"),
        (CLEAR.rjust(10_001), 400, TOO_LARGE),
        (b"{", 400, NO_JSON),
        (b"", 400, NO_JSON),
        (b"\xff", 400, NO_JSON),
        (b"[" * 10_000, 400, NO_JSON),
        (b"[]", 400, "the body is not a JSON object; send one like {'do': 'clear_faults'}"),
    ],
)
def test_the_body_of_a_control(dashboard: Dashboard, body: bytes, status: int, message: str) -> None:
    found = sent(dashboard, "POST", "/dashboard/control", body, authorization=f"Bearer {dashboard.token}")
    assert isinstance(found, Response)
    assert (found.status, json.loads(found.body)) == (status, {"message": message})


def test_a_stream_begins_after_the_id_that_a_page_names(dashboard: Dashboard) -> None:
    assert len(dashboard.token) == 32
    now = dashboard.feed.last_event_id
    assert sent(dashboard, "GET", "/dashboard/events") == Stream(now)
    for given, begins in (("7", 7), ("9" * 19, int("9" * 19)), ("9" * 20, -1), ("-7", -1), ("", -1), ("x", -1)):
        assert sent(dashboard, "GET", "/dashboard/events", last_event_id=given) == Stream(begins)


def test_scope_and_search_are_read_without_case_blanks_and_slashes(dashboard: Dashboard) -> None:
    def scopes(query: str) -> list[str]:
        found = sent(dashboard, "GET", f"/dashboard/state?{query}")
        assert isinstance(found, Response)
        return [row["scope_path"] for row in json.loads(found.body)["budgets"]]

    assert scopes("sort=name") == [ACME, BOT]
    assert scopes("scope=%20/Tenant:ACME/agent:bot/%20") == [BOT]
    assert scopes(f"scope={ACME}&scope={BOT}") == [BOT]
    assert scopes("search=%20AGENT%20") == [BOT]
    assert scopes("search=nothing&search=acme&sort=name") == [ACME, BOT]
    assert scopes(f"search=agent&scope={ACME}") == [BOT]
    summary = sent(dashboard, "GET", "/dashboard/summary?scope=%20/Tenant:ACME/agent:BOT/%20&period=all&period=5m")
    assert isinstance(summary, Response)
    shown = json.loads(summary.body)
    assert (shown["allocated"], shown["step_ms"]) == (9, 5_000)


def test_a_request_is_shown_without_keys_that_were_set_later(
    dashboard: Dashboard, server: cycles.EmbeddedServer
) -> None:
    server.ledger.set_api_key("set-while-it-runs", tenant="acme")
    request = Request(method="POST", target="/v1/x?set-while-it-runs", headers={}, body=b"a set-while-it-runs")
    dashboard.feed.finished(request, "event", Response(201, {}, b"b"), None, 1.0)
    found = sent(dashboard, "GET", "/dashboard/requests/1")
    assert isinstance(found, Response)
    assert (found.status, json.loads(found.body)) == (200, {"id": 1, "body": "a ***", "response": "b"})
    state = sent(dashboard, "GET", "/dashboard/state")
    assert isinstance(state, Response)
    assert json.loads(state.body)["requests"][0]["target"] == "/v1/x?***"


# --- the feed ---------------------------------------------------------------------------------------------------------


class Page:
    """A feed with a timer that a test moves; requests are handed to it."""

    def __init__(self, server: cycles.EmbeddedServer, clock: cycles.ManualClock) -> None:
        self.now_s = 100.0
        self.feed = Feed(server.ledger, server.faults, clock, Redactor([]).encode, lambda: self.now_s)

    def handled(
        self,
        operation: str | None = "reserve",
        status: int | None = 409,
        body: bytes = b'{"subject":{"tenant":"acme"},"estimate":{"unit":"TOKENS","amount":500}}',
        result: bytes = b'{"error":"BUDGET_EXCEEDED"}',
        fault: Fault | None = None,
    ) -> None:
        request = Request(method="POST", target="/v1/x", headers={}, body=body)
        self.feed.finished(request, operation, None if status is None else Response(status, {}, result), fault, 1.0)

    def events(self, position: int) -> list[dict[str, Any]]:
        texts = b"".join(self.feed.after(position)[0]).decode().split("\n\n")
        return [json.loads(text.partition("data: ")[2]) for text in texts if text]


@pytest.fixture
def page(server: cycles.EmbeddedServer, clock: cycles.ManualClock) -> Page:
    return Page(server, clock)


def test_an_event_is_made_a_tenth_of_a_second_after_the_last_one(page: Page, server: cycles.EmbeddedServer) -> None:
    begun = page.feed.last_event_id
    assert page.feed.publish() == 0.1  # nothing changed
    server.ledger.fund(ACME, cycles.tokens(1))
    assert page.feed.publish() == 0.1
    server.ledger.fund(ACME, cycles.tokens(1))
    page.now_s += 0.0625
    assert page.feed.publish() == pytest.approx(0.0375)
    assert page.feed.last_event_id == begun + 1
    page.now_s = 100.0 + 0.1
    assert page.feed.publish() == 0.1
    assert page.feed.last_event_id == begun + 2
    page.feed.close()
    server.ledger.fund(ACME, cycles.tokens(1))
    page.now_s += 60
    assert page.feed.publish() == 0.01
    assert page.feed.last_event_id == begun + 2


def test_an_event_has_only_what_changed_the_latest_first(
    page: Page, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    begun = page.feed.last_event_id
    server.ledger.fund(BOT, cycles.tokens(1))
    server.ledger.fund(ACME, cycles.tokens(1))
    page.feed.publish()
    page.handled("decide")
    page.handled("get", 200)
    page.handled("commit", None)
    page.now_s += 1
    page.feed.publish()
    page.now_s += 1
    page.feed.publish()
    budgets, requests = page.events(begun)
    assert budgets.keys() == {"last_event_id", "at_ms", "budgets"}
    assert [row["scope_path"] for row in budgets["budgets"]] == [ACME, BOT]
    assert requests.keys() == {"last_event_id", "at_ms", "requests", "decisions"}
    assert [row["operation"] for row in requests["requests"]] == ["commit", "get", "decide"]
    assert [(row["operation"], row["denied_by"]) for row in requests["decisions"]] == [("decide", ACME)]
    clock.advance(5)
    page.now_s += 1
    page.feed.publish()
    [advanced] = page.events(begun + 2)
    assert advanced == {"last_event_id": begun + 3, "at_ms": START_MS + 5}


def test_records_that_the_page_does_not_show_are_no_event(page: Page, server: cycles.EmbeddedServer) -> None:
    begun = page.feed.last_event_id
    server.ledger.set_tenant("acme")
    page.feed.publish()
    server.ledger.delete_tenant("acme")
    page.now_s += 1
    page.feed.publish()
    assert page.events(begun) == []


def test_an_event_shows_at_most_200_requests_and_decisions(page: Page) -> None:
    begun = page.feed.last_event_id
    for _ in range(201):
        page.handled("decide")
    page.feed.publish()
    [event] = page.events(begun)
    assert [row["id"] for row in event["requests"]] == list(range(201, 1, -1))
    assert [row["id"] for row in event["decisions"]] == list(range(201, 1, -1))


def test_the_state_shows_the_last_200_requests_and_the_last_200_decisions(page: Page) -> None:
    for _ in range(201):
        page.handled("decide")
    for _ in range(3):
        page.handled("commit", 200)
    found = page.feed.state()
    assert [row["id"] for row in found["requests"]] == list(range(204, 4, -1))
    assert [row["id"] for row in found["decisions"]] == list(range(201, 1, -1))


@pytest.mark.parametrize(
    ("operation", "status", "replay"),
    [
        ("decide", 200, True),
        ("reserve", 201, True),
        ("commit", 299, True),
        ("release", 200, True),
        ("extend", 200, True),
        ("event", 201, True),
        ("event", 300, False),
        ("event", 409, False),
        ("event", None, False),
        ("get", 200, False),
        ("balances", 200, False),
        (None, 200, False),
    ],
)
def test_a_success_that_stored_nothing_is_a_replay(
    page: Page, server: cycles.EmbeddedServer, operation: str | None, status: int | None, replay: bool
) -> None:
    page.feed.started()
    page.handled(operation, status)
    assert page.feed.state()["requests"][0]["replay"] is replay


def test_a_request_that_stored_a_response_is_no_replay_and_the_next_one_is(
    page: Page, server: cycles.EmbeddedServer
) -> None:
    page.feed.started()
    body = {
        "idempotency_key": "k-1",
        "subject": {"tenant": "acme"},
        "action": {"kind": "tool", "name": "x"},
        "actual": {"unit": "TOKENS", "amount": 1},
    }
    headers = {"x-cycles-api-key": server.api_key, "content-type": "application/json"}
    sent = Request(method="POST", target="/v1/events", headers=headers, body=json.dumps(body).encode())
    assert server.handle(sent) is not None
    page.handled("event", 201)
    page.feed.started()
    page.handled("event", 201)
    assert [row["replay"] for row in page.feed.state()["requests"]] == [True, False]


def test_denials_are_counted_for_the_deepest_scope(page: Page, clock: cycles.ManualClock) -> None:
    bot = b'{"subject":{"tenant":"acme","agent":"bot"},"estimate":{"unit":"TOKENS","amount":10}}'
    page.handled(body=bot)
    page.handled(body=bot, result=b'{"error":"BUDGET_FROZEN"}')
    page.handled()
    page.handled(body=b"{}", result=b'{"error":"NOT_FOUND"}')
    page.handled("commit")
    page.handled(status=201)
    assert page.feed.denied() == {"since_ms": START_MS, "denied": {BOT: 2, ACME: 1, "": 1}}
    assert page.feed.summary(View(BOT))["denied"]["count"] == 2
    clock.advance(400_000)
    later = page.feed.summary(View(BOT, period="5m"))["denied"]
    assert (later["count"], later["since_ms"]) == (0, (START_MS + 400_000) // 5_000 * 5_000 - 295_000)


def test_the_kept_requests_and_reads_are_limited_and_the_page_says_since_when(
    monkeypatch: pytest.MonkeyPatch, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    monkeypatch.setattr(feeds, "KEPT_REQUESTS", 3)
    monkeypatch.setattr(feeds, "KEPT_READS", 2)
    page = Page(server, clock)
    for operation in ("get", "list", "get", "reserve", None, "reserve"):
        clock.advance(1)
        page.handled(operation)
    found = page.feed.state()
    assert [row["id"] for row in found["requests"]] == [6, 5, 4, 3]
    assert found["kept_since_ms"] == START_MS
    clock.advance(1)
    page.handled("commit")
    assert page.feed.state()["kept_since_ms"] == START_MS + 4
    assert page.feed.request(3) is not None
    assert page.feed.request(2) is None


def test_a_long_body_is_cut_and_a_lost_response_is_empty(page: Page) -> None:
    page.handled(body=b"a" * 100_001, status=None)
    page.handled(body=b"\xff", result=b"b" * 100_000)
    assert page.feed.request(1) == {"id": 1, "body": "a" * 100_000, "response": ""}
    assert page.feed.request(2) == {"id": 2, "body": "\ufffd", "response": "b" * 100_000}


@pytest.mark.parametrize(
    ("active", "ended", "shown"), [(11, 0, (10, 0)), (11, 2, (8, 2)), (8, 5, (7, 3)), (2, 9, (2, 8))]
)
def test_a_page_has_a_limited_number_of_reservations_and_some_of_them_are_settled(
    monkeypatch: pytest.MonkeyPatch,
    page: Page,
    server: cycles.EmbeddedServer,
    active: int,
    ended: int,
    shown: tuple[int, int],
) -> None:
    monkeypatch.setattr(feeds, "MAX_ROWS", 10)
    monkeypatch.setattr(feeds, "MIN_SETTLED", 3)
    client, names = server.client(tenant="acme"), []
    server.ledger.set_budget(ACME, cycles.tokens(1_000))
    for count, end in ((ended, "release"), (active, "detach")):
        for _ in range(count):
            guard = client.reserve(cycles.tokens(1), action=("a", "b")).acquire()
            names.append(guard.reservation_id)
            getattr(guard, end)()
    rows = page.feed.state()["reservations"]
    assert [row["status"] for row in rows] == ["ACTIVE"] * shown[0] + ["RELEASED"] * shown[1]
    assert [row["reservation_id"] for row in rows[: shown[0]]] == names[: -shown[0] - 1 : -1]  # the latest first


@pytest.mark.parametrize(("allocated", "left_ms"), [(100, 80 * 6_400), (999, 979 * 6_400), (1_000, None)])
def test_a_budget_that_is_used_up_after_the_end_of_its_window_has_no_forecast(
    page: Page, server: cycles.EmbeddedServer, clock: cycles.ManualClock, allocated: int, left_ms: int | None
) -> None:
    for scope in (ACME, BOT):
        server.ledger.set_budget(scope, cycles.tokens(allocated))
    server.ledger.set_window(BOT, cycles.window(cycles.tokens(allocated), "day"), "TOKENS")
    client = server.client(tenant="acme")
    for _ in range(4):  # 20 tokens in 128 s; the day ends 6,272 s later
        client.reserve(cycles.tokens(5), action=("a", "b"), subject={"agent": "bot"}).acquire().commit(cycles.tokens(5))
        clock.advance(32_000)
    found = {row["scope_path"]: row for row in page.feed.state()["budgets"]}
    assert found[ACME]["exhausted_at_ms"] == clock.now_ms() + (allocated - 20) * 6_400
    assert ("period" in found[ACME], found[BOT]["period"]) == (False, "day")
    assert found[BOT].get("exhausted_at_ms") == (None if left_ms is None else clock.now_ms() + left_ms)


def test_a_feed_shows_what_happened_before_it_began(server: cycles.EmbeddedServer, clock: cycles.ManualClock) -> None:
    client = server.client(tenant="acme")
    client.record(cycles.tokens(3), action=("tool", "search"))
    for amount in (1, 2, 3):
        client.reserve(cycles.tokens(5), action=("llm", "m")).acquire().commit(cycles.tokens(amount))
        clock.advance(60_000)
    client.reserve(cycles.tokens(7), action=("llm", "m")).acquire().detach()
    page = Page(server, clock)
    shown = page.feed.summary(View(period="1h", by="action"))
    assert [(group["name"], group["spent"]) for group in shown["groups"]] == [("llm m", 6), ("tool search", 3)]
    assert (shown["reserved"], shown["held"][-1], page.feed.state()["budget_count"]) == (7, 7, 2)
    assert [row["status"] for row in page.feed.state()["reservations"]] == ["ACTIVE", *["COMMITTED"] * 3]
    [acme, bot] = sorted(page.feed.state()["budgets"], key=lambda row: str(row["scope_path"]))
    assert ("exhausted_at_ms" in acme, "exhausted_at_ms" in bot) == (True, False)
    position = page.feed.last_event_id
    page.feed.publish()
    assert page.events(position) == []


def test_events_are_numbered_text_and_none_is_a_reset() -> None:
    log = EventLog(7, lambda data: json.dumps(data).encode())
    log.add({"a": 1})
    log.add(None)
    texts: Sequence[bytes] = log.since(7)
    assert texts == [
        b'id: 8\ndata: {"last_event_id": 8, "a": 1}\n\n',
        b'event: reset\nid: 9\ndata: {"last_event_id": 9}\n\n',
    ]
    assert (log.since(8), log.since(9)) == ([texts[1]], [])
    assert log.since(10) == log.since(6) == [b'event: reset\nid: 9\ndata: {"last_event_id": 9}\n\n']


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_which_paths_are_those_of_the_dashboard(dashboard: Dashboard, host: str) -> None:
    app = DashboardApp(dashboard, host)
    for path in ("/", "/dashboard", "/dashboard/", "/dashboard/state"):
        assert app.serves(path)
    for path in ("", "/dashboards", "/v1", "/v1/dashboard", "/Dashboard"):
        assert not app.serves(path)


def test_a_stream_begins_with_a_comment_sends_each_event_once_and_ends_when_it_is_closed(
    server: cycles.EmbeddedServer, dashboard: Dashboard
) -> None:
    app = DashboardApp(dashboard, "127.0.0.1")
    sent: list[Message] = []

    async def run() -> None:
        async def receive() -> Message:
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 2:  # the comment
                server.ledger.fund(ACME, cycles.tokens(1))
            if len(sent) == 3:  # the event
                app.close()

        app.open()
        begun = app.handle(Request(method="GET", target="/dashboard/events", headers={"host": "localhost"}), "")
        assert isinstance(begun, Stream)
        await asyncio.wait_for(app.stream(begun, receive, send), 60)

    asyncio.run(run())
    start, comment, event, end = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert headers == {**checks.HEADERS, "Content-Type": "text/event-stream; charset=utf-8"}
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert comment == {"type": "http.response.body", "body": f": at_ms={START_MS}\n\n".encode(), "more_body": True}
    assert event["body"].count(b"data: ") == 1
    assert event["more_body"] is True
    assert end == {"type": "http.response.body"}


def test_a_stream_ends_when_its_client_disconnects(dashboard: Dashboard) -> None:
    app = DashboardApp(dashboard, "127.0.0.1")
    sent: list[Message] = []

    async def run() -> None:
        disconnected: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            return await disconnected

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 2 and not disconnected.done():
                disconnected.set_result({"type": "http.disconnect"})

        await asyncio.wait_for(app.stream(Stream(0), receive, send), 60)

    asyncio.run(run())
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 2]
    assert sent[1]["body"].startswith(b"event: reset\nid: ")
