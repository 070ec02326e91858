"""FastAPI and ASGI: the subject of a request, guarded endpoints and websockets, problem details, the lifespan."""

# No postponed annotations: FastAPI resolves those of endpoints in the module, and these are local.

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

import cycles
from tests.integrations.conftest import Ledger

pytest.importorskip("fastapi")

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.websockets import WebSocketDisconnect

from cycles.integrations._problems import close_code_of, problem_of
from cycles.integrations.fastapi import Guarded, ProblemDetails, SubjectMiddleware, lifespan, problem_details

pytestmark = pytest.mark.anyio

Guard = cycles.AsyncGuard


class Response:
    """What an ASGI application sent."""

    def __init__(self, messages: list[Any]) -> None:
        start = next(message for message in messages if message["type"] == "http.response.start")
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(m.get("body", b"") for m in messages if m["type"] == "http.response.body")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def send_to(
    app: Any,
    path: str = "/",
    headers: dict[str, str] | None = None,
    *,
    raw: list[tuple[bytes, bytes]] | None = None,
    leave_after: int | None = None,
    spec: str = "2.4",
    state: dict[str, Any] | None = None,
) -> Response:
    """Send one request; with `leave_after` the caller leaves after that many parts of the body."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec},
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": raw or [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "state": state or {},
    }
    sent: list[Any] = []
    left = asyncio.Event()
    requested = False

    async def receive() -> dict[str, Any]:
        nonlocal requested
        if not requested:
            requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if left.is_set() and spec >= "2.4":
            raise OSError("the caller left")
        sent.append(message)
        if leave_after is not None and len(sent) > leave_after:
            left.set()
            await asyncio.sleep(0)

    await app(scope, receive, send)
    return Response(sent)


async def connect(app: Any, path: str, headers: dict[str, str] | None = None) -> list[Any]:
    """Open a websocket, send one text, leave, and return what the application sent."""
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "ws",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "subprotocols": [],
        "state": {},
    }
    incoming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    with contextlib.suppress(WebSocketDisconnect):
        await app(scope, receive, send)
    return sent


@pytest.fixture
def make(client: cycles.Cycles) -> Callable[..., FastAPI]:
    """Return a function that makes an application with one endpoint at "/" of a given body."""

    def make(endpoint: Any, *, middleware: Any = (), handler: Any = problem_details) -> FastAPI:
        app = FastAPI()
        for options in middleware:
            app.add_middleware(SubjectMiddleware, **options)
        app.add_exception_handler(cycles.CyclesError, handler)
        app.post("/")(endpoint)
        return app

    return make


@pytest.fixture
def guarded(client: cycles.Cycles) -> Callable[..., Guarded]:
    def guarded(estimate: Any = None, **options: Any) -> Guarded:
        return Guarded(estimate or cycles.tokens(100), client=client, **options)

    return guarded


async def test_an_endpoint_is_guarded_until_its_response_has_ended(make: Any, guarded: Any, ledger: Ledger) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7)))]) -> bool:
        return cycles.current_guard() is guard

    assert (await send_to(make(ask))).json is True
    assert ledger.spent() == 7
    assert (ledger.rows()[0].action.kind, ledger.rows()[0].action.name) == ("http.request", "POST /")


async def test_callables_get_the_connection_and_may_be_coroutines(make: Any, guarded: Any, ledger: Ledger) -> None:
    async def estimate(connection: Any) -> cycles.Amount:
        return cycles.tokens(len(connection.url.path))

    dependency = guarded(
        estimate,
        action=lambda connection: ("a", connection.headers["x-name"]),
        subject=lambda connection: {"agent": "bot"},
        actual=lambda usage: cycles.tokens(usage.tokens_output),
    )

    async def ask(guard: Annotated[Guard, Depends(dependency)]) -> None:
        guard.usage.add(tokens_output=3)

    await send_to(make(ask), headers={"X-Name": "ask"})
    [row] = ledger.rows()
    assert (row.action.name, row.subject.agent, row.reserved) == ("ask", "bot", cycles.tokens(1))
    assert ledger.spent() == 3


async def test_an_estimate_of_none_guards_nothing(make: Any, guarded: Any, ledger: Ledger) -> None:
    async def ask(guard: Annotated[Guard | None, Depends(guarded(lambda connection: None))]) -> bool:
        return guard is None

    assert (await send_to(make(ask))).json is True
    assert ledger.rows() == []


async def test_a_denied_request_does_not_run_and_its_problem_leaks_nothing(
    make: Any, guarded: Any, ledger: Ledger
) -> None:
    ran: list[int] = []

    async def ask(guard: Annotated[Guard, Depends(guarded(subject={"agent": "poor"}))]) -> None:
        ran.append(1)

    response = await send_to(make(ask))
    assert not ran
    assert response.status == 402
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert "retry-after" not in response.headers
    assert set(response.json) == {"type", "title", "status", "code", "request_id", "trace_id"}
    assert response.json["type"] == "urn:cycles:problem:budget-exceeded"
    assert not any(secret in response.body.decode() for secret in ("acme", "poor", "tokens"))


@pytest.mark.parametrize("error", [ZeroDivisionError(), HTTPException(404)])
async def test_an_endpoint_that_raises_releases(make: Any, guarded: Any, ledger: Ledger, error: Exception) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7)))]) -> None:
        raise error

    if isinstance(error, HTTPException):
        assert (await send_to(make(ask))).status == 404
    else:
        with pytest.raises(ZeroDivisionError):
            await send_to(make(ask))
    assert ledger.spent() == 0


def streaming(dependency: Guarded, parts: int = 3, seen: list[Any] | None = None) -> Any:
    async def ask(guard: Annotated[Guard, Depends(dependency)]) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for n in range(parts):
                guard.spend(cycles.tokens(1))
                if seen is not None:
                    seen.append(guard.state)
                yield str(n).encode()
                await asyncio.sleep(0)

        return StreamingResponse(body())

    return ask


async def test_a_streamed_body_is_guarded_to_its_end(make: Any, guarded: Any, ledger: Ledger) -> None:
    seen: list[str] = []
    assert (await send_to(make(streaming(guarded(), seen=seen)))).body == b"012"
    assert seen == ["active"] * 3
    assert ledger.spent() == 3
    assert ledger.metadata() == [{}]


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@pytest.mark.parametrize(("spends", "committed"), [(True, 2), (False, 0)])
async def test_a_caller_who_leaves_in_the_middle_of_a_body_pays_known_spend_only(
    make: Any, guarded: Any, ledger: Ledger, spec: str, spends: bool, committed: int
) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(50)))]) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for n in range(50):
                if spends and n < 2:
                    guard.spend(cycles.tokens(1))
                yield b"x"
                await asyncio.sleep(0)

        return StreamingResponse(body())

    app = make(ask, middleware=[{}])
    try:
        await send_to(app, leave_after=4, spec=spec)
    except Exception as error:  # newer servers raise in `send`
        assert spec == "2.4", error  # noqa: PT017
    assert ledger.spent() == committed
    if spends:
        assert ledger.metadata() == [{"outcome": "error"}]


async def test_a_blocking_endpoint_may_spend(make: Any, guarded: Any, ledger: Ledger) -> None:
    def ask(guard: Annotated[Guard, Depends(guarded())]) -> bool:
        guard.spend(cycles.tokens(5))
        return cycles.current_guard() is guard

    assert (await send_to(make(ask))).json is True
    assert ledger.spent() == 5


async def test_the_idempotency_header_makes_the_key(make: Any, guarded: Any, ledger: Ledger) -> None:
    ran: list[int] = []

    async def ask(
        guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7), idempotency_header="Idempotency-Key"))],
    ) -> None:
        ran.append(1)

    app = make(ask, middleware=[{"headers": {"X-Agent": "agent"}}])
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-Agent": "a"})).status == 200
    replay = await send_to(app, headers={"Idempotency-Key": "k", "X-Agent": "a"})
    assert (replay.status, replay.json["code"]) == (409, "RESERVATION_NOT_ACTIVE")
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-Agent": "b"})).status == 200
    assert len(ran) == 2
    assert ledger.spent() == 14


async def test_a_replay_with_another_estimate_is_a_conflict(make: Any, guarded: Any) -> None:
    async def ask(
        guard: Annotated[
            Guard,
            Depends(
                guarded(
                    lambda connection: cycles.tokens(int(connection.headers["x-n"])),
                    actual=cycles.tokens(1),
                    idempotency_header="Idempotency-Key",
                )
            ),
        ],
    ) -> None:
        return None

    app = make(ask)
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-N": "10"})).status == 200
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-N": "11"})).status == 409


async def test_thirty_concurrent_requests_have_a_guard_each(make: Any, guarded: Any, ledger: Ledger) -> None:
    async def ask(request: Request, guard: Annotated[Guard, Depends(guarded())]) -> bool:
        await asyncio.sleep(0)
        guard.spend(cycles.tokens(int(request.headers["x-n"])))
        return cycles.current_guard() is guard

    app = make(ask)
    responses = await asyncio.gather(*[send_to(app, headers={"X-N": str(n)}) for n in range(1, 31)])
    assert all(response.json is True for response in responses)
    assert ledger.spent() == sum(range(1, 31))


async def test_a_websocket_is_guarded_until_it_closes(guarded: Any, ledger: Ledger) -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def talk(socket: WebSocket, guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7)))]) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text() + guard.state)

    sent = await connect(app, "/ws")
    assert sent[1]["text"] == "helloactive"
    assert ledger.spent() == 7
    assert ledger.rows()[0].action.name == "WEBSOCKET /ws"


@pytest.mark.parametrize(("options", "code"), [({"subject": {"agent": "poor"}}, 1008), ({"dead": True}, 1013)])
async def test_a_denied_websocket_is_closed_with_a_code(guarded: Any, options: Any, code: int) -> None:
    app = FastAPI()
    dead = cycles.Cycles(base_url="http://127.0.0.1:9", api_key="k", tenant="acme", journal=False)
    dependency = Guarded(cycles.tokens(1), client=dead) if options.pop("dead", False) else guarded(**options)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, guard: Annotated[Guard, Depends(dependency)]) -> None:
        await socket.accept()

    sent = await connect(app, "/ws")
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", code)]
    dead.close()


async def seen_subject() -> Any:
    subject = cycles.current_subject()
    return None if subject is None else subject.to_dict()


@pytest.mark.parametrize(
    ("middleware", "headers", "state", "subject"),
    [
        ({"headers": {"X-Customer": "workspace"}}, {"X-Customer": "c1"}, {}, {"workspace": "c1"}),
        ({"headers": {"X-Team": "dimensions.team"}}, {"X-Team": "t1"}, {}, {"dimensions": {"team": "t1"}}),
        ({"claims": {"sub": "agent"}}, {}, {"claims": {"sub": "a1"}}, {"agent": "a1"}),
        ({"claims": {"sub": "agent"}, "claims_of": lambda scope: {"sub": "a2"}}, {}, {}, {"agent": "a2"}),
        (
            {"headers": {"X-A": "agent"}, "subject": lambda scope: cycles.Subject(agent="own", app="x")},
            {"X-A": "header"},
            {},
            {"agent": "own", "app": "x"},
        ),
        ({}, {}, {}, {}),
    ],
)
async def test_the_subject_comes_from_headers_claims_and_the_callable(
    make: Any, middleware: Any, headers: Any, state: Any, subject: Any
) -> None:
    response = await send_to(make(seen_subject, middleware=[middleware]), headers=headers, state=state)
    assert response.json == subject
    assert cycles.current_subject() is None


@pytest.mark.parametrize(
    ("middleware", "raw"),
    [
        ({"headers": {"X-A": "agent"}}, [(b"x-a", b"a b")]),
        ({"headers": {"X-A": "agent"}}, [(b"x-a", b"")]),
        ({"headers": {"X-A": "agent"}}, [(b"x-a", b"a"), (b"X-A", b"b")]),
        ({"headers": {"X-A": "agent"}, "required": ["agent"]}, [(b"x-b", b"b")]),
        ({"claims": {"sub": "agent"}, "claims_of": lambda scope: {"sub": 5}}, [(b"x-b", b"b")]),
        ({"subject": lambda scope: {"agent": "x" * 129}}, [(b"x-b", b"b")]),
        ({"subject": lambda scope: {"level": "x"}}, [(b"x-b", b"b")]),
    ],
)
async def test_a_subject_that_is_invalid_is_rejected_and_never_another_budget(
    make: Any, middleware: Any, raw: Any
) -> None:
    app = make(seen_subject, middleware=[middleware])
    response = await send_to(app, raw=raw)
    assert (response.status, response.json["code"]) == (400, "INVALID_SUBJECT")
    headers = {name.decode(): value.decode() for name, value in dict(raw).items()}
    if len(raw) == 1:
        assert await connect(app, "/ws", headers) == [{"type": "websocket.close", "code": 1008}]


async def test_the_subject_holds_for_the_streamed_body_and_background_tasks(make: Any) -> None:
    seen: list[Any] = []

    async def ask() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            seen.append(await seen_subject())
            yield b"x"

        async def later() -> None:
            seen.append(await seen_subject())

        return StreamingResponse(body(), background=BackgroundTask(later))

    await send_to(make(ask, middleware=[{"headers": {"X-A": "agent"}}]), headers={"X-A": "a"})
    assert seen == [{"agent": "a"}] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X-T": "tenant"}},
        {"headers": {"X-T": "level"}},
        {"claims": ["sub"]},
        {"claims": {"sub": "dimensions."}},
        {"subject": {"agent": "a"}},
        {"required": ["nothing"]},
    ],
)
def test_wrong_options_of_the_middleware_are_rejected(options: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError):
        SubjectMiddleware(lambda *_: None, **options)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"estimate": 5}, cycles.InvalidRequestError),
        ({"estimate": None}, cycles.InvalidRequestError),
        ({"estimate": cycles.tokens(1), "actual": 5}, cycles.InvalidRequestError),
        ({"estimate": cycles.tokens(1), "action": "ask"}, cycles.InvalidRequestError),
        ({"estimate": cycles.tokens(1), "ttl_ms": 5}, cycles.InvalidRequestError),
        ({"estimate": cycles.tokens(1), "idempotency_header": 5}, cycles.InvalidRequestError),
        ({"estimate": cycles.tokens(1), "client": "c"}, cycles.InvalidRequestError),
        ({"estimate": cycles.tokens(1), "tll_ms": 5}, TypeError),
    ],
)
def test_wrong_options_of_the_dependency_are_rejected(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Guarded(**options)


class Quota(cycles.ReservationDeniedError):
    @property
    def quota(self) -> Any:
        return SimpleNamespace(resets_at=datetime.now(UTC) + timedelta(seconds=89.9))


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED"), 402, "BUDGET_EXCEEDED", None),
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED", retry_after_ms=1500), 402, "BUDGET_EXCEEDED", 2),
        (cycles.DebtOutstandingError("no", code="DEBT_OUTSTANDING"), 402, "DEBT_OUTSTANDING", None),
        (cycles.BudgetFrozenError("no", code="BUDGET_FROZEN"), 403, "BUDGET_FROZEN", None),
        (cycles.ReservationDeniedError("no", code="NEW_REASON"), 403, "NEW_REASON", None),
        (cycles.ReservationDeniedError("no", code="tenant:acme"), 403, "DENIED", None),
        (cycles.ToolNotAllowedError("no"), 403, "TOOL_NOT_ALLOWED", None),
        (cycles.ReservationDeniedError("no", code="ACTION_QUOTA_EXCEEDED"), 403, "ACTION_QUOTA_EXCEEDED", None),
        (Quota("no", code="ACTION_QUOTA_EXCEEDED"), 429, "ACTION_QUOTA_EXCEEDED", 90),
        (cycles.RateLimitedError("no", code="LIMIT_EXCEEDED", retry_after_ms=1), 429, "LIMIT_EXCEEDED", 1),
        (cycles.ReservationNotActiveError("no"), 409, "RESERVATION_NOT_ACTIVE", None),
        (cycles.ReservationKeyReusedError("no", code="X"), 409, "IDEMPOTENCY_MISMATCH", None),
        (cycles.TransportError("no"), 503, "UNAVAILABLE", 1),
        (cycles.ServerError("no", retry_after_ms=5000), 503, "UNAVAILABLE", 5),
        (cycles.LeaseLostError("no"), 503, "LEASE_LOST", 1),
        (cycles.UnauthorizedError("no", code="UNAUTHORIZED", request_id="r"), 500, "INTERNAL_ERROR", None),
        (cycles.InvalidRequestError("no"), 500, "INTERNAL_ERROR", None),
        (cycles.NotFoundError("no", code="NOT_FOUND"), 500, "INTERNAL_ERROR", None),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: str, retry_after: int | None) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.retry_after_s) == (status, code, retry_after)
    assert "request_id" not in problem.members


def test_close_codes_of_websockets() -> None:
    assert close_code_of(cycles.RateLimitedError("no")) == 1013
    assert close_code_of(cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED")) == 1008


async def test_statuses_can_be_changed(make: Any, guarded: Any) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(subject={"agent": "poor"}))]) -> None:
        return None

    app = make(ask, handler=ProblemDetails({"BUDGET_EXCEEDED": 418}))
    assert (await send_to(app)).status == 418
    for wrong in ({"BUDGET_EXCEEDED": 200}, {1: 402}, [402]):
        with pytest.raises(cycles.InvalidRequestError):
            ProblemDetails(wrong)  # type: ignore[arg-type]


async def test_the_lifespan_has_the_client_and_closes_it_last(server: cycles.EmbeddedServer, tmp_path: Any) -> None:
    client = server.client(tenant="acme", journal_dir=tmp_path)
    seen: list[str] = []

    @asynccontextmanager
    async def inner(app: Any) -> AsyncIterator[dict[str, int]]:
        yield {"own": 1}
        client.decide(cycles.tokens(1), action=("a", "b"))
        seen.append("inner")

    async with lifespan(client, inner)(FastAPI()) as state:
        assert state == {"cycles": client, "own": 1}
    assert seen == ["inner"]
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=("a", "b"))


async def test_the_lifespan_closes_the_client_if_inner_fails(server: cycles.EmbeddedServer, tmp_path: Any) -> None:
    client = server.client(tenant="acme", journal_dir=tmp_path)

    @asynccontextmanager
    async def inner(app: Any) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        async with lifespan(client, inner)(FastAPI()):
            pass
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=("a", "b"))


def test_without_the_library_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['fastapi'] = None; import cycles.integrations.fastapi"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'cycles-sdk[fastapi]'" in ran.stderr


def test_asgi_needs_no_framework() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = sys.modules['starlette'] = None\n"
        "from cycles.integrations.asgi import SubjectMiddleware, lifespan"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
