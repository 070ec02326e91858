"""What the summary of a run says about calls that were denied or failed: counts by reason."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

import cycles
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from cycles.proxy._totals import MOST_DETAILS, Totals
from cycles.testing import FakeProvider
from tests.operators.kit import environment, run_process
from tests.operators.proxying import BOOK, KEY, Place, proxied, upstreams
from tests.operators.running import summary

AGENT = ("--", sys.executable, "examples/agent.py")


def document(place: Place) -> dict[str, Any]:
    return place.proxy.app.totals.document(1.0, 0)


def line(place: Place) -> str:
    return place.proxy.app.totals.line(0.2, cycles.usd(1))


@pytest.fixture
def closed_port() -> int:
    """A port on which no server listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_denials_are_counted_by_reason_and_unmetered_ones_name_their_path() -> None:
    with proxied(cycles.usd_microcents(5000)) as place:
        for _ in range(2):
            assert place.post("/openai/v1/audio/x").status_code == 402
        assert line(place) == "0 calls, $0.00 of $1.00 spent, 2 denied (unmetered: POST /v1/audio/x), 0.2 s"
        assert place.post().status_code == 402
        assert place.post(json={"model": "no-such-model", "messages": []}).status_code == 402
        found = document(place)
        assert found["denied_by"] == {"unmetered": 2, "budget_exceeded": 1, "unknown_model": 1}
        assert (found["denied"], found["failed"], found["failed_by"]) == (4, 0, {})
        reasons = "2 unmetered: POST /v1/audio/x; 1 budget_exceeded; 1 unknown_model: no-such-model"
        assert f"4 denied ({reasons}), 0.2 s" in line(place)


def test_the_query_of_a_denied_path_is_not_named() -> None:
    with proxied() as place:
        assert place.post("/gemini/v1beta/batches?key=secret").status_code == 402
        assert "secret" not in line(place)
        assert "POST /v1beta/batches" in line(place)


def test_the_limit_of_the_run_is_a_reason() -> None:
    with proxied(limit=cycles.usd_microcents(10)) as place:
        assert place.post().status_code == 402
        assert document(place)["denied_by"] == {"run_limit": 1}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_without_a_connection_has_failed_and_is_no_call(closed_port: int, stream: bool) -> None:
    with proxied(upstreams=upstreams(f"http://user:secret@127.0.0.1:{closed_port}")) as place:
        body = {"model": "m", "messages": [], "stream": stream}
        assert [place.post(json=body).status_code for _ in range(3)] == [502] * 3
        found = document(place)
        reason = f"no connection to 127.0.0.1:{closed_port}"
        assert (found["calls"], found["models"], found["failed"]) == (0, {}, 3)
        assert found["failed_by"] == {reason: 3}
        assert line(place) == f"0 calls, $0.00 of $1.00 spent, 0 denied, 3 failed ({reason}), 0.2 s"
        assert (place.spent, place.held, found["pending"]) == (0, 0, 0)


def test_a_call_whose_connection_broke_later_is_a_call() -> None:
    with proxied() as place:
        place.provider.reply(drop_after=0)
        assert place.post().status_code == 502
        place.provider.reply(status=500)
        assert place.post().status_code == 500
        found = document(place)
        assert (found["calls"], found["failed"], found["estimated"]) == (2, 0, 1)


def test_requests_that_no_provider_would_accept_have_failed() -> None:
    with proxied() as place:
        bodies: tuple[Any, ...] = ([], {"messages": []}, {"model": "m", "messages": [], "max_tokens": -1})
        for body in bodies:
            assert place.post(json=body).status_code == 400
        assert document(place)["failed_by"] == {"invalid request": 3}
        assert document(place)["calls"] == 0


def test_requests_that_are_no_calls_do_not_count(closed_port: int) -> None:
    with proxied(upstreams=upstreams(f"http://127.0.0.1:{closed_port}")) as place:
        assert httpx.get(f"{place.openai_url}/models", timeout=60).status_code == 502
        assert place.post(key="wrong").status_code == 401
        assert (document(place)["failed"], document(place)["calls"], document(place)["passed"]) == (0, 0, 1)


def test_a_call_that_the_ledger_did_not_decide_has_failed() -> None:
    with proxied() as place:
        body = {"error": "UNAUTHORIZED", "message": "KEY_NOT_FOUND", "request_id": "r1"}
        place.server.faults.status("reserve", 401, body=body, times=1)
        place.server.faults.refuse("reserve", times=2)
        assert [place.post().status_code for _ in range(2)] == [503, 503]
        found = document(place)
        assert (found["calls"], found["denied"], found["failed"]) == (0, 0, 2)
        reason = "no decision of the budget server: "
        assert found["failed_by"] == {f"{reason}UNAUTHORIZED": 1, f"{reason}no response": 1}


@pytest.mark.parametrize(
    ("error", "is_final", "word"),
    [
        (cycles.ProtocolError("no", status=403, code="FORBIDDEN"), True, "FORBIDDEN"),
        (cycles.ProtocolError("no", status=503, code="INTERNAL_ERROR", retryable=True), False, "INTERNAL_ERROR"),
        (cycles.ProtocolError("no", status=418), True, "status 418"),
        (cycles.TransportError("no"), False, "no response"),
    ],
    ids=["wrong key", "overloaded", "no code", "no response"],
)
def test_only_an_error_that_stays_is_not_to_be_sent_again(
    error: cycles.CyclesError, is_final: bool, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(_: object) -> None:
        raise error

    monkeypatch.setattr("cycles.proxy._app.TASK", SimpleNamespace(open=opened))
    with proxied() as place:
        response = place.post()
        found = response.status_code, response.headers.get("x-cycles-reason"), response.headers.get("x-should-retry")
        assert found == ((503, "no_decision", "false") if is_final else (503, None, None))
        assert document(place)["failed_by"] == {f"no decision of the budget server: {word}": 1}


def test_only_a_denial_is_reported_as_one() -> None:
    """`--on-denied stop` ends the command for it."""
    denied: list[str] = []
    with FakeProvider() as provider, cycles.EmbeddedServer({"tenant:run": cycles.usd_microcents(10)}) as server:
        settings = ProxySettings(upstreams=upstreams(provider.url), prices=BOOK, key=KEY)
        proxy = ProxyServer(settings, server.client(tenant="run"), on_denied=denied.append)
        place = Place(provider, server, proxy, proxy.start("127.0.0.1", 0))
        body = {"error": "UNAUTHORIZED", "message": "KEY_NOT_FOUND", "request_id": "r1"}
        server.faults.status("reserve", 401, body=body, times=1)
        try:
            responses = [
                place.post(),
                place.post(content=b"{"),
                place.post("/none/x"),
                place.post(key="wrong"),
                place.post("/openai/v1/unknown"),
                place.post(),
                place.post(json={"model": "unknown", "messages": []}),
            ]
        finally:
            proxy.stop(5)
    assert [response.status_code for response in responses] == [503, 400, 404, 401, 402, 402, 402]
    messages = [response.json()["error"]["message"] for response in responses[-3:]]
    assert denied == [message.partition(" (insufficient credits")[0] for message in messages]


def test_a_program_chooses_no_unbounded_summary() -> None:
    totals = Totals()
    for number in range(MOST_DETAILS * 2):
        totals.count_denied(None, "unmetered", f"POST /v1/{number}")
    assert totals.denied == MOST_DETAILS * 2
    assert len(totals.details["unmetered"]) == MOST_DETAILS + 1
    assert "POST /v1/0, POST /v1/1" in totals.line(1, None)
    assert f"and {MOST_DETAILS - 2} more" in totals.line(1, None)
    totals.count_denied(None, "unmetered", "POST /v1/3")  # that has a name already
    assert totals.details["unmetered"]["POST /v1/3"] == 2


@pytest.mark.parametrize("state", ["active", "pending"])
def test_a_settlement_that_is_queued_when_its_call_ends_may_be_pending_later(state: str) -> None:
    totals, call = Totals(), SimpleNamespace(guard=SimpleNamespace(reservation_id="r-1", state=state))
    totals.released(cast(Any, call))
    call.guard.state = "pending"
    assert totals.document(1.0, 0)["pending"] == 1
    call.guard.state = "committed"
    assert totals.document(1.0, 0)["pending"] == 0


def test_the_program_of_a_run_that_reaches_no_provider(provider: FakeProvider, closed_port: int) -> None:
    address = f"http://127.0.0.1:{closed_port}/v1"
    ran = run_process("run", "--budget", "1USD", "--json", *AGENT, env=environment(OPENAI_BASE_URL=address))
    found = summary(ran)
    assert (found["calls"], found["failed_by"]) == (0, {f"no connection to 127.0.0.1:{closed_port}": 1})
    ran = run_process("run", "--budget", "0.001USD", "--upstream", f"openai={provider.openai_url}", *AGENT)
    assert "0 calls, $0.00 of $0.001 spent, 1 denied (budget_exceeded), " in ran.err


def test_the_key_of_the_proxy_is_in_no_reason() -> None:
    with proxied() as place:
        assert place.post("/openai/v1/batches").status_code == 402
        assert KEY not in line(place)
