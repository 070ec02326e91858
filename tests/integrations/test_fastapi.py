"""FastAPI: guarded endpoints and websockets."""

# No postponed annotations: FastAPI resolves those of endpoints in the module, and these are local.

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from typing import Annotated, Any

import pytest

import cycles
from tests.integrations.conftest import Ledger

pytest.importorskip("fastapi")

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

from cycles.integrations.fastapi import Guarded, ProblemDetails
from tests.integrations.asgi_client import connect, make_app, send_to

pytestmark = pytest.mark.anyio

Guard = cycles.AsyncGuard


@pytest.fixture
def guarded(client: cycles.Cycles) -> Callable[..., Guarded]:
    def guarded(estimate: Any = None, **options: Any) -> Guarded:
        return Guarded(estimate or cycles.tokens(100), client=client, **options)

    return guarded


async def test_an_endpoint_is_guarded_until_its_response_has_ended(guarded: Any, ledger: Ledger) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7)))]) -> bool:
        return cycles.current_guard() is guard

    assert (await send_to(make_app(ask))).json is True
    assert ledger.spent() == 7
    assert (ledger.rows()[0].action.kind, ledger.rows()[0].action.name) == ("http.request", "POST /")


async def test_callables_get_the_connection_and_may_be_coroutines(guarded: Any, ledger: Ledger) -> None:
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

    await send_to(make_app(ask), headers={"X-Name": "ask"})
    [row] = ledger.rows()
    assert (row.action.name, row.subject.agent, row.reserved) == ("ask", "bot", cycles.tokens(1))
    assert ledger.spent() == 3


@pytest.mark.parametrize("option", ["estimate", "action", "subject"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_each_callable_may_be_a_coroutine_function(
    guarded: Any, ledger: Ledger, option: str, is_async: bool
) -> None:
    values = {"estimate": cycles.tokens(9), "action": ("a", "b"), "subject": {"agent": "bot"}}

    def value(connection: Any) -> Any:
        return values[option]

    async def later(connection: Any) -> Any:
        return values[option]

    dependency = guarded(**{**values, option: later if is_async else value}, actual=cycles.tokens(3))

    async def ask(guard: Annotated[Guard, Depends(dependency)]) -> None:
        return None

    assert (await send_to(make_app(ask))).status == 200
    [row] = ledger.rows()
    assert (row.action.kind, row.action.name, row.subject.agent, row.reserved) == ("a", "b", "bot", cycles.tokens(9))


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_the_action_is_the_route_and_not_the_address(guarded: Any, ledger: Ledger, method: str) -> None:
    """An address has the ids of customers, and each is another name."""

    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7)))]) -> None:
        return None

    app = make_app(ask)
    app.api_route("/chats/{chat}", methods=[method])(ask)
    assert (await send_to(app, "/chats/5", method=method)).status == 200
    assert [row.action.name for row in ledger.rows()] == [f"{method} /chats/{{chat}}"]


async def test_an_estimate_of_none_guards_nothing(guarded: Any, ledger: Ledger) -> None:
    async def ask(guard: Annotated[Guard | None, Depends(guarded(lambda connection: None))]) -> bool:
        return guard is None

    assert (await send_to(make_app(ask))).json is True
    assert ledger.rows() == []


async def test_a_denied_request_does_not_run_and_its_problem_leaks_nothing(guarded: Any, ledger: Ledger) -> None:
    ran: list[int] = []

    async def ask(guard: Annotated[Guard, Depends(guarded(subject={"agent": "poor"}))]) -> None:
        ran.append(1)

    response = await send_to(make_app(ask))
    assert not ran
    assert response.status == 402
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert "retry-after" not in response.headers
    assert set(response.json) == {"type", "title", "status", "code", "request_id", "trace_id"}
    assert response.json["type"] == "urn:cycles:problem:budget-exceeded"
    assert not any(secret in response.body.decode() for secret in ("acme", "poor", "tokens"))


@pytest.mark.parametrize("error", [ZeroDivisionError(), HTTPException(404)])
async def test_an_endpoint_that_raises_releases(guarded: Any, ledger: Ledger, error: Exception) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7)))]) -> None:
        raise error

    if isinstance(error, HTTPException):
        assert (await send_to(make_app(ask))).status == 404
    else:
        with pytest.raises(ZeroDivisionError):
            await send_to(make_app(ask))
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


async def test_a_streamed_body_is_guarded_to_its_end(guarded: Any, ledger: Ledger) -> None:
    seen: list[str] = []
    assert (await send_to(make_app(streaming(guarded(), seen=seen)))).body == b"012"
    assert seen == ["active"] * 3
    assert ledger.spent() == 3
    assert ledger.metadata() == [{}]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@pytest.mark.parametrize(("spends", "committed"), [(True, 2), (False, 0)])
async def test_a_caller_who_leaves_in_the_middle_of_a_body_pays_known_spend_only(
    guarded: Any, ledger: Ledger, spec: str, spends: bool, committed: int, is_async: bool
) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(50)))]) -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            for n in range(50):
                if spends and n < 2:
                    guard.spend(cycles.tokens(1))
                yield b"x"

        async def body() -> AsyncIterator[bytes]:
            for part in parts():
                yield part
                await asyncio.sleep(0)

        return StreamingResponse(body() if is_async else parts())

    app = make_app(ask, middleware=[{}])
    try:
        await send_to(app, leave_after=4, spec=spec)
    except Exception as error:  # newer servers raise in `send`
        assert spec == "2.4", error  # noqa: PT017
    assert ledger.spent() == committed
    if spends:
        assert ledger.metadata() == [{"outcome": "error"}]


async def test_a_blocking_endpoint_may_spend(guarded: Any, ledger: Ledger) -> None:
    def ask(guard: Annotated[Guard, Depends(guarded())]) -> bool:
        guard.spend(cycles.tokens(5))
        return cycles.current_guard() is guard

    assert (await send_to(make_app(ask))).json is True
    assert ledger.spent() == 5


async def test_the_idempotency_header_makes_the_key(guarded: Any, ledger: Ledger) -> None:
    ran: list[int] = []

    async def ask(
        guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7), idempotency_header="Idempotency-Key"))],
    ) -> None:
        ran.append(1)

    app = make_app(ask, middleware=[{"headers": {"X-Agent": "agent"}}])
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-Agent": "a"})).status == 200
    replay = await send_to(app, headers={"Idempotency-Key": "k", "X-Agent": "a"})
    assert (replay.status, replay.json["code"]) == (409, "RESERVATION_NOT_ACTIVE")
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-Agent": "b"})).status == 200
    assert len(ran) == 2
    assert ledger.spent() == 14


@pytest.mark.parametrize(
    ("other", "is_replay"),
    [
        ({}, True),
        ({"method": "PUT"}, False),
        ({"path": "/other"}, False),
        ({"headers": {"Idempotency-Key": "k2"}}, False),
        ({"headers": {"X-Agent": "b"}}, False),
        ({"headers": {"X-Flow": "b"}}, False),
        ({"headers": {"X-Other": "b"}}, True),
    ],
)
@pytest.mark.parametrize("form", [dict, lambda own: cycles.Subject(**own)])
async def test_requests_that_differ_have_keys_that_differ(
    guarded: Any, ledger: Ledger, other: dict[str, Any], is_replay: bool, form: Any
) -> None:
    """The agent of the dependency overrides that of the middleware; the workflow is that of the middleware."""
    dependency = guarded(
        actual=cycles.tokens(7),
        idempotency_header="Idempotency-Key",
        subject=lambda connection: form({"agent": connection.headers["x-agent"]}),
    )

    async def ask(guard: Annotated[Guard, Depends(dependency)]) -> None:
        return None

    app = make_app(ask, middleware=[{"headers": {"X-Flow": "workflow"}, "subject": lambda scope: {"agent": "all"}}])
    app.put("/")(ask)
    app.post("/other")(ask)
    headers = {"Idempotency-Key": "k", "X-Agent": "a", "X-Flow": "a"}
    assert (await send_to(app, headers=headers)).status == 200
    second = {**other, "headers": {**headers, **other.get("headers", {})}}
    assert (await send_to(app, **second)).status == (409 if is_replay else 200)
    assert ledger.spent() == (7 if is_replay else 14)


async def test_a_request_without_the_idempotency_header_has_a_fresh_key(guarded: Any, ledger: Ledger) -> None:
    async def ask(
        guard: Annotated[Guard, Depends(guarded(actual=cycles.tokens(7), idempotency_header="Idempotency-Key"))],
    ) -> None:
        return None

    app = make_app(ask)
    given: list[Any] = [{}, {}, {"Idempotency-Key": ""}, {"Idempotency-Key": ""}]
    assert [(await send_to(app, headers=headers)).status for headers in given] == [200] * 4
    assert ledger.spent() == 28


async def test_a_replay_with_another_estimate_is_a_conflict(guarded: Any) -> None:
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

    app = make_app(ask)
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-N": "10"})).status == 200
    assert (await send_to(app, headers={"Idempotency-Key": "k", "X-N": "11"})).status == 409


async def test_thirty_concurrent_requests_have_a_guard_each(guarded: Any, ledger: Ledger) -> None:
    async def ask(request: Request, guard: Annotated[Guard, Depends(guarded())]) -> bool:
        await asyncio.sleep(0)
        guard.spend(cycles.tokens(int(request.headers["x-n"])))
        return cycles.current_guard() is guard

    app = make_app(ask)
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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (cycles.BudgetExceededError("no", code="BUDGET_EXCEEDED"), 1008),
        (cycles.TransportError("no"), 1013),
        (cycles.InvalidRequestError("no"), 1011),
    ],
)
async def test_an_error_in_a_websocket_closes_it_with_the_code_of_its_kind(
    error: cycles.CyclesError, code: int
) -> None:
    app = FastAPI()
    app.add_exception_handler(cycles.CyclesError, ProblemDetails({"UNAVAILABLE": 400}))

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    sent = await connect(app, "/ws")
    assert [(message["type"], message.get("code")) for message in sent] == [
        ("websocket.accept", None),
        ("websocket.close", code),
    ]


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


async def test_statuses_can_be_changed(guarded: Any) -> None:
    async def ask(guard: Annotated[Guard, Depends(guarded(subject={"agent": "poor"}))]) -> None:
        return None

    app = make_app(ask, handler=ProblemDetails({"BUDGET_EXCEEDED": 418}))
    assert (await send_to(app)).status == 418


@pytest.mark.parametrize(
    ("statuses", "is_right"),
    [
        ({"BUDGET_EXCEEDED": 200}, False),
        ({"BUDGET_EXCEEDED": 402, "RUN_LIMIT": 200}, False),
        ({"RUN_LIMIT": 399}, False),
        ({"RUN_LIMIT": 400}, True),
        ({"RUN_LIMIT": 599}, True),
        ({"RUN_LIMIT": 600}, False),
        ({"RUN_LIMIT": True}, False),
        ({"RUN_LIMIT": "402"}, False),
        ({"BUDGET_EXCEEDED": 402, 1: 402}, False),
        ([402], False),
        ([], False),
        ({}, True),
        (None, True),
    ],
)
def test_each_status_is_an_error_of_http(statuses: Any, is_right: bool) -> None:
    with nullcontext() if is_right else pytest.raises(cycles.InvalidRequestError, match="statuses must"):
        ProblemDetails(statuses)


def test_without_the_library_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['fastapi'] = None; import cycles.integrations.fastapi"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'cycles-sdk[fastapi]'" in ran.stderr
