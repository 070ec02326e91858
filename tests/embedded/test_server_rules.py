"""The server as an object: what each call, fault, option and entry of its logs is, without a socket."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer
from cycles.embedded.errors import ApiError
from cycles.embedded.faults import Fault, Faults
from cycles.embedded.http import Request, Response
from cycles.embedded.records import Budget, BudgetWindow, Reservation
from cycles.embedded.request_log import ReceivedRequest, RequestLog
from cycles.embedded.store import SqliteStore
from cycles.embedded.tables import Tables
from tests.support.waiting import PATIENCE_S

ADMIN, NOW = "admin-key", 1_700_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
RESERVE: dict[str, Any] = {
    "idempotency_key": "k", "subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"},
    "estimate": {"unit": "TOKENS", "amount": 1},
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    budgets = {"tenant:acme": cycles.tokens(100)}
    with EmbeddedServer(budgets, clock=cycles.ManualClock(NOW), admin_api_key=ADMIN) as server:
        yield server


def send(
    server: EmbeddedServer, method: str, target: str, body: Any = None, **headers: str
) -> tuple[Response | None, Fault | None]:
    given = {"x-cycles-api-key": server.api_key_for("acme"), "content-type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = b"" if body is None else json.dumps(body).encode()
    return server.handle(Request(method=method, target=target, headers=given, body=content))


def responded(server: EmbeddedServer, method: str, target: str, body: Any = None, **headers: str) -> Response:
    response, _ = send(server, method, target, body, **headers)
    assert response is not None
    return response


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/actuator/health/liveness", "/actuator/health/readiness"])
def test_the_health_of_the_server_needs_no_key(server: EmbeddedServer, path: str) -> None:
    for method in ("GET", "HEAD"):
        response = responded(server, method, path, x_cycles_api_key="")
        assert (response.status, response.body) == (200, b'{"status":"UP"}')
        assert response.headers == {"Content-Type": "application/json"}
    assert responded(server, "POST", path, x_cycles_api_key="").status == 401
    assert responded(server, "GET", f"{path}/x", x_cycles_api_key="").status == 401


def test_which_requests_are_logged(server: EmbeddedServer) -> None:
    server.faults.refuse("decide")
    assert send(server, "POST", "/v1/decide", RESERVE) == (None, Fault(reaches_ledger=False, lost=True))
    assert list(server.requests) == []
    server.faults.drop_response("decide")
    response, fault = send(server, "POST", "/v1/decide", RESERVE)
    assert (response is not None, fault) == (True, Fault(lost=True))
    server.faults.status("decide", 503, body="x", headers={"a": "b"})
    response, fault = send(server, "POST", "/v1/decide", RESERVE)
    assert response == Response(503, {"Content-Type": "application/json", "a": "b"}, b"x")
    server.faults.status("decide", 204, reaches_ledger=True)
    replaced = responded(server, "POST", "/v1/decide", RESERVE)
    assert (replaced.status, replaced.body, "X-Request-Id" in replaced.headers) == (204, b"", True)
    server.faults.body("decide", [1], headers={"Content-Type": "x"})
    replaced = responded(server, "POST", "/v1/decide", RESERVE)
    assert (replaced.status, replaced.body, replaced.headers["Content-Type"]) == (200, b"[1]", "x")
    assert [each.status for each in server.requests] == [200, None, 200, 200]
    assert [(each.idempotency_key, each.json) for each in server.requests] == [("k", RESERVE)] * 4
    responded(server, "GET", "/v1/nope?x=1")
    last = server.requests[-1]
    assert (last.operation, last.method, last.target, last.body, last.status) == (None, "GET", "/v1/nope?x=1", b"", 404)
    server.close()
    assert send(server, "GET", "/v1/balances") == (None, None)
    assert len(server.requests) == 5


def test_a_release_by_the_operator_is_in_the_audit_log(server: EmbeddedServer) -> None:
    def release(reason: str | None, **headers: str) -> Response:
        made = responded(server, "POST", "/v1/reservations", {**RESERVE, "idempotency_key": str(reason)})
        rid = json.loads(made.body)["reservation_id"]
        form = {"idempotency_key": f"r{reason}", **({} if reason is None else {"reason": reason})}
        return responded(server, "POST", f"/v1/reservations/{rid}/release", form, **headers)

    def logs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            responded(server, "GET", "/v1/admin/audit/logs?sort_by=timestamp&sort_dir=asc", x_admin_api_key=ADMIN).body
        )["logs"]
        return found

    assert release("own").status == 200
    assert logs() == []
    response = release("stuck", x_admin_api_key=ADMIN, x_cycles_trace_id=TRACE)
    (row,) = logs()
    rid = server.requests.of("release")[-1].target.split("/")[3]
    assert row == {
        "log_id": row["log_id"], "timestamp": "2023-11-14T22:13:20.000Z", "tenant_id": "acme",
        "operation": "releaseReservation", "status": 200, "request_id": response.headers["X-Request-Id"],
        "trace_id": TRACE, "source_ip": "127.0.0.1", "resource_type": "reservation", "resource_id": rid,
        "metadata": {"actor_type": "admin_on_behalf_of", "reason": "stuck"},
    }  # fmt: skip
    release(None, x_admin_api_key=ADMIN)
    assert sorted(each["metadata"].get("reason", "") for each in logs()) == ["", "stuck"]
    for method, path in (("POST", "/v1/reservations/nope/release"), ("GET", f"/v1/reservations/{rid}")):
        responded(server, method, path, {"idempotency_key": "x"}, x_admin_api_key=ADMIN)
    assert len(logs()) == 2


def test_an_event_has_the_ids_of_its_request(server: EmbeddedServer) -> None:
    body = {**RESERVE, "estimate": {"unit": "TOKENS", "amount": 101}}
    response = responded(server, "POST", "/v1/decide", body, x_cycles_trace_id=TRACE)
    (event,) = [each for each in server.webhooks.events() if each["event_type"] == "reservation.denied"]
    assert (event["request_id"], event["trace_id"]) == (response.headers["X-Request-Id"], TRACE)
    assert event["actor"] == {"type": "api_key", "source_ip": "127.0.0.1"}


# --- options --------------------------------------------------------------------------------------------------------


def test_the_budgets_that_a_file_has_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    first: dict[str, Any] = {
        "tenant:Acme": [cycles.tokens(1), cycles.usd(1)],
        "tenant:other": cycles.window(cycles.tokens(3), "day"),
    }
    with EmbeddedServer(first, path=path, api_keys={"k1": "acme"}, clock=cycles.ManualClock(NOW)) as server:
        assert (server.tenants, server.tenant) == (["Acme", "other"], "Acme")
    again: dict[str, Any] = {
        "tenant:ACME": [cycles.tokens(9), cycles.window(cycles.Amount("CREDITS", 4), "hour")],
        "tenant:other": cycles.tokens(9),
    }
    with EmbeddedServer(again, path=path, api_keys={"k2": "acme"}, clock=cycles.ManualClock(NOW)) as server:
        ledger = server.ledger
        found = {unit: ledger.balance("tenant:acme", unit).remaining.amount for unit in ("TOKENS", "CREDITS")}
        assert (found, ledger.balance("tenant:other").remaining.amount) == ({"TOKENS": 1, "CREDITS": 4}, 3)
        window = ledger.window("tenant:acme", "CREDITS")
        assert window is not None
        assert (window.period, ledger.window("tenant:acme", "TOKENS")) == ("hour", None)
        assert {"k1", "k2"} <= set(ledger.api_keys())
        assert server.tenants == ["ACME", "other"]
    with EmbeddedServer({"agent:x": cycles.tokens(1)}) as server:
        assert (server.tenants, server.tenant) == ([], "default")


def test_the_options_of_a_client(server: EmbeddedServer) -> None:
    with server.client() as client:
        assert (client.config.base_url, client.config.journal) == ("http://embedded.cycles.invalid", False)
        assert client.decide(cycles.tokens(1), action=("a", "b")).decision == "ALLOW"
    with server.client(tenant="other", base_url="http://x.invalid") as client:
        assert client.config.base_url == "http://x.invalid"
        assert list(client.balances()) == []
    assert {each.headers["host"] for each in server.requests} == {"embedded.cycles.invalid", "x.invalid"}
    assert server.dashboard_url is None


def test_the_protocols_of_a_server() -> None:
    for protocol, status in (("0.1.25", 404), ("0.1.26", 200)):
        with EmbeddedServer({"tenant:acme": cycles.tokens(1)}, protocol=protocol) as server:
            assert responded(server, "GET", "/v1/action-kinds").status == status
    with pytest.raises(cycles.InvalidRequestError) as caught:
        EmbeddedServer(protocol="0.1.2")
    assert str(caught.value) == "protocol must be one of 0.1.25, 0.1.26, got '0.1.2'"


# --- faults ---------------------------------------------------------------------------------------------------------


def test_each_fault() -> None:
    faults = Faults()
    faults.refuse("reserve")
    faults.drop_response("reserve")
    faults.delay("reserve", 1.5)
    faults.drip("reserve")
    faults.status("reserve", 500, body={"a": 1})
    faults.body("reserve", b"x", headers={"a": "b"}, times=2)
    expected = [
        ("refuse", Fault(reaches_ledger=False, lost=True)),
        ("drop_response", Fault(lost=True)),
        ("delay", Fault(delay_s=1.5)),
        ("drip", Fault(drip_s=0.05)),
        ("status", Fault(reaches_ledger=False, status=500, body=b'{"a": 1}')),
        ("body", Fault(body=b"x", headers={"a": "b"})),
        ("body", Fault(body=b"x", headers={"a": "b"})),
    ]
    assert [(name, times) for name, _, times in faults.waiting()] == [("reserve", 1)] * 5 + [("reserve", 2)]
    assert (faults.take("commit"), faults.take(None)) == (None, None)
    taken = [faults.take("reserve") for _ in expected]
    assert [(fault.kind, fault) for fault in taken if fault is not None] == expected
    assert (faults.take("reserve"), faults.waiting()) == (None, [])


def test_how_often_a_fault_happens() -> None:
    faults = Faults()
    faults.delay("commit", 1.0, times=3)
    faults.delay("release", 1.0, times=None)
    for left in (2, 1):
        assert faults.take("commit") == Fault(delay_s=1.0)
        assert faults.waiting()[0][2] == left
    assert [faults.take("commit"), faults.take("commit")] == [Fault(delay_s=1.0), None]
    assert [faults.take("release") for _ in range(3)] == [Fault(delay_s=1.0)] * 3
    assert [name for name, *_ in faults.waiting()] == ["release"]
    faults.clear()
    assert (faults.waiting(), faults.take("release")) == ([], None)
    for times in (0, -1):
        with pytest.raises(cycles.InvalidRequestError) as caught:
            faults.drip("commit", times=times)
        assert str(caught.value) == f"times must be 1 or more: {times}; pass None for every request"
    with pytest.raises(cycles.InvalidRequestError, match="unknown operation: 'x'; pass one of decide, reserve, list"):
        faults.refuse("x")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("delay", "timeout", "status"),
    [(0.0, 0.01, 200), (0.001, None, 200), (0.001, 5.0, 200), (0.01, 0.01, 0), (9, 0.01, 0)],
)
def test_a_delay_up_to_the_timeout(
    server: EmbeddedServer, is_async: bool, delay: float, timeout: float | None, status: int
) -> None:
    server.faults.delay("balances", delay)
    url, headers = "http://x/v1/balances?tenant=acme", {"X-Cycles-API-Key": server.api_key_for("acme")}

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=server.transport(), timeout=timeout) as client:
            return await client.get(url, headers=headers)

    def call() -> httpx.Response:
        if is_async:
            return asyncio.run(get())
        with httpx.Client(transport=server.transport(), timeout=timeout) as client:
            return client.get(url, headers=headers)

    if status:
        assert call().status_code == status
    else:
        with pytest.raises(httpx.ReadTimeout, match="the server did not respond in time"):
            call()
    assert len(server.requests) == 1


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("kind", "timeout", "waited"),
    [("delay", 9.0, [3.0]), ("delay", 2.0, [2.0]), ("drip", 2.0, [3.0, b"{", 3.0, b'"', 3.0, b"b"])],
)
def test_when_a_client_waits(
    server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
    kind: str,
    timeout: float,
    waited: list[Any],
) -> None:
    notes: list[Any] = []

    async def sleep(seconds: float) -> None:
        notes.append(seconds)

    monkeypatch.setattr("cycles.embedded.transports.asyncio", SimpleNamespace(sleep=sleep))
    event = SimpleNamespace(wait=notes.append)
    monkeypatch.setattr("cycles.embedded.transports.threading", SimpleNamespace(Event=lambda: event))
    plans: dict[str, Callable[[], None]] = {
        "delay": lambda: server.faults.delay("balances", 3.0),
        "drip": lambda: server.faults.drip("balances", interval=3.0),
    }
    plans[kind]()
    target: dict[str, Any] = {
        "url": "http://x/v1/balances?tenant=acme",
        "headers": {"X-Cycles-API-Key": server.api_key_for("acme")},
    }

    async def get() -> None:
        async with (
            httpx.AsyncClient(transport=server.transport(), timeout=timeout) as client,
            client.stream("GET", **target) as response,
        ):
            async for chunk in response.aiter_bytes():
                notes.append(chunk)

    def get_blocking() -> None:
        with (
            httpx.Client(transport=server.transport(), timeout=timeout) as client,
            client.stream("GET", **target) as response,
        ):
            notes.extend(response.iter_bytes())

    is_late = kind == "delay" and timeout == 2.0
    with pytest.raises(httpx.ReadTimeout) if is_late else nullcontext():
        asyncio.run(get()) if is_async else get_blocking()
    assert notes[: len(waited)] == waited
    assert (len(notes) > len(waited)) is not is_late


@pytest.mark.parametrize("is_async", [False, True])
def test_a_body_in_parts_is_read_whole(server: EmbeddedServer, is_async: bool) -> None:
    headers = {"X-Cycles-API-Key": server.api_key_for("acme"), "Content-Type": "application/json"}
    content = json.dumps(RESERVE).encode()

    async def parts() -> AsyncIterator[bytes]:
        for part in (content[:9], content[9:]):
            yield part

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=server.transport(), headers=headers) as client:
            return await client.post("http://x/v1/decide", content=parts())

    def post_blocking() -> httpx.Response:
        with httpx.Client(transport=server.transport(), headers=headers) as client:
            return client.post("http://x/v1/decide", content=iter([content[:9], content[9:]]))

    response = asyncio.run(post()) if is_async else post_blocking()
    assert (response.status_code, server.requests[0].body) == (200, content)


def test_what_a_client_in_this_process_gets(server: EmbeddedServer) -> None:
    key = server.api_key_for("acme").encode()
    headers = [(b"X-Cycles-API-Key", key), (b"X-Twice", b"\xe9"), (b"X-Twice", b"2")]
    with httpx.Client(transport=server.transport(), headers=headers, base_url="http://x") as client:
        server.faults.drip("balances", interval=0.0)
        response = client.get("/v1/balances?tenant=%41")
        assert response.headers["Content-Length"] == str(len(response.content))
        assert (server.requests[0].target, server.requests[0].headers["x-twice"]) == ("/v1/balances?tenant=%41", "é")
        for plan, error, text in (
            (server.faults.refuse, httpx.ConnectError, "Connection refused"),
            (server.faults.drop_response, httpx.RemoteProtocolError, "Server disconnected without sending a response."),
        ):
            plan("balances")
            with pytest.raises(error, match=text):
                client.get("/v1/balances?tenant=acme")
        server.close()
        with pytest.raises(httpx.ConnectError, match="the embedded server is closed"):
            client.get("/v1/balances?tenant=acme")


# --- the log of requests --------------------------------------------------------------------------------------------


def received(body: bytes, operation: str = "reserve") -> ReceivedRequest:
    return ReceivedRequest(operation=operation, method="POST", target="/", headers={"a": "secret"}, body=body, status=1)


def test_the_log_of_requests() -> None:
    keys = {b"": None, b"[]": None, b'{"idempotency_key": "k"}': "k", b"{}": None}
    assert {body: received(body).idempotency_key for body in keys} == keys
    with pytest.raises(ValueError, match="Expecting"):
        assert received(b"{").json
    log = RequestLog()
    entries = [received(b"[%d]" % number, "reserve" if number % 2 else "commit") for number in range(10_001)]
    for each in entries:
        log.add(each)
    assert (len(log), log[0], log[-1], log[:2]) == (10_000, entries[1], entries[-1], entries[1:3])
    assert (list(log), len(log.of("commit")), log.of("extend")) == (entries[1:], 5_000, [])
    log.clear()
    log.add(entries[0])
    assert "secret" not in repr(log)
    assert repr(log).startswith("<RequestLog [ReceivedRequest(operation='commit', method='POST', target='/', status=1)")


# --- records --------------------------------------------------------------------------------------------------------


def row(rid: str, **members: Any) -> Reservation:
    fixed: dict[str, Any] = {
        "reservation_id": rid, "number": 1, "tenant": "acme", "idempotency_key": "k", "subject": {}, "action": {},
        "unit": "TOKENS", "reserved": 1, "overage_policy": "REJECT", "scopes": ("a",), "budgeted": ("a",),
        "created_at_ms": 0, "expires_at_ms": 10, "grace_period_ms": 5, "max_extensions": 10,
    }  # fmt: skip
    return Reservation(**{**fixed, **members})


def test_which_record_is_overdue() -> None:
    tables = Tables()
    seen: list[Any] = []
    tables.observers.append(seen.append)
    first, second, budget = row("1"), row("2", grace_period_ms=0), Budget(scope="a", unit="TOKENS", allocated=1)
    window = BudgetWindow(scope="a", unit="TOKENS", period="day", timezone="UTC", ends_ms=13)
    tables.apply(first, second, budget, window)
    assert seen == [[(None, first), (None, second), (None, budget), (None, window)]]
    assert [tables.overdue(now) for now in (10, 11, 12)] == [None, second, second]
    tables.apply(deleted=[second, row("unknown")])
    assert (seen[1], tables.overdue(12)) == ([(second, None), (row("unknown"), None)], None)
    assert tables.overdue(13) is window
    later = row("1", expires_at_ms=100)
    tables.apply(later, deleted=[window])
    assert (seen[2], tables.overdue(105), tables.overdue(106)) == ([(first, later), (window, None)], None, later)
    assert (tables.reservations, tables.windows) == ({("1",): later}, {})


def test_the_file_of_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    budget = Budget(scope="a", unit="TOKENS", allocated=1)
    store.write([row("2"), row("1"), budget], [])
    with ThreadPoolExecutor(1) as pool:  # any thread may use it, one at a time
        pool.submit(store.write, [row("2", scopes=("x", "y"))], [budget]).result(PATIENCE_S)
    assert list(store.load()) == [row("2", scopes=("x", "y")), row("1")]
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()
    with sqlite3.connect(path) as file:
        numbers = [file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        assert (numbers, file.execute("PRAGMA journal_mode").fetchone()) == ([0x4359434C, 1], ("wal",))
        file.execute("PRAGMA user_version = 2")
    file.close()
    with pytest.raises(cycles.ConfigurationError) as caught:
        SqliteStore(path)
    assert str(caught.value) == f"{path} has layout 2 of another version of this server; pass another file"
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE x (y)")
        file.execute("PRAGMA user_version = 1")
    file.close()
    before = other.read_bytes()
    with pytest.raises(cycles.ConfigurationError) as caught:
        SqliteStore(other)
    assert str(caught.value) == f"{other} is a database, but not a ledger of the embedded server; pass another file"
    assert other.read_bytes() == before
    with sqlite3.connect(other, timeout=0) as file:
        file.execute("CREATE TABLE z (y)")  # it is closed
    file.close()
    (tmp_path / "text").write_text("x" * 2_000)
    with pytest.raises(cycles.ConfigurationError, match=r"cannot open the ledger .*text .* pass another file"):
        SqliteStore(tmp_path / "text")
    held = SqliteStore(path := tmp_path / "held.db")
    held.write([budget], [])
    held.close()
    again = SqliteStore(path)
    assert list(again.load()) == [budget]
    again.close()


@pytest.mark.parametrize("kind", [None, object()])
def test_a_change_that_fails_halfway_is_not_in_the_file(tmp_path: Path, kind: Any) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    good, wrong = Budget(scope="a", unit="TOKENS", allocated=1), SimpleNamespace(kind=kind, key=("a",), to_json=dict)
    store.write([good], [])
    halfway: list[tuple[list[Any], list[Any]]] = [([row("1"), wrong], [good])]
    halfway += [([row("1")], [good, wrong])] if kind is not None else []
    for saved, deleted in halfway:
        with pytest.raises(ApiError, match=r"cannot write the ledger's file \(.*\); nothing was changed") as caught:
            store.write(saved, deleted)
        assert (caught.value.code, list(store.load())) == ("INTERNAL_ERROR", [good])
    store.write([row("1")], [])
    assert list(store.load()) == [good, row("1")]
    store.close()


# --- listening and closing ------------------------------------------------------------------------------------------


def test_which_listener_has_the_dashboard(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.embedded.serve.Listener", lambda *args: args)
    made: list[Any] = [
        server.listen(), server.listen("0.0.0.0", 5), server.listen("localhost", 6, dashboard=False),
        server.listen("0.0.0.0", 7, dashboard=True),
    ]  # fmt: skip
    assert [(each[0] is server, *each[1:3], len(each)) for each in made] == [
        (True, "127.0.0.1", 0, 5), (True, "0.0.0.0", 5, 3), (True, "localhost", 6, 3), (True, "0.0.0.0", 7, 5),
    ]  # fmt: skip
    assert server.dashboard_url is None
    announce = made[0][4]
    announce("http://x/dashboard")
    found = server.dashboard_url
    assert found is not None
    page, token = found.split("#")
    assert (page, len(token) > 20) == ("http://x/dashboard", True)
    announce("http://y/dashboard")
    assert server.dashboard_url == f"http://y/dashboard#{token}"
    announce(None)
    assert server.dashboard_url is None


def test_a_server_with_a_wrong_budget_leaves_its_file_to_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with pytest.raises(cycles.InvalidRequestError, match="scope") as caught:
        EmbeddedServer({"tenant:a": cycles.tokens(1), "nothing": cycles.tokens(1)}, path=path)
    with EmbeddedServer(path=path) as server:
        assert server.tenants == ["a"]
    assert caught.value.__traceback__ is not None  # it refers to the first server, which was closed all the same


def test_the_clients_of_a_caller_are_used(server: EmbeddedServer) -> None:
    with (
        httpx.Client(transport=server.transport(), headers={"X-Own": "1"}) as http,
        server.client(http_client=http, api_key="wrong") as client,
        pytest.raises(cycles.UnauthorizedError),
    ):
        client.decide(cycles.tokens(1), action=("a", "b"))
    assert (server.requests[-1].headers["x-own"], server.requests[-1].headers["x-cycles-api-key"]) == ("1", "wrong")
