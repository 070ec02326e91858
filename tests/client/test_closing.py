"""What a closed client does."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from functools import partial

import pytest

import cycles
from tests.http.conftest import ACTION, ANSWERS, CREATED
from tests.performance.conftest import answer
from tests.support.points import run_at
from tests.support.stub import Stub, ok


def make() -> cycles.Cycles:
    return cycles.Cycles(base_url="http://localhost", api_key="k", tenant="acme", journal=False)


def assert_closed(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.CyclesError, match=r"^this client is closed: make a new one with cycles.Cycles\(...\)$"):
        client.reserve(cycles.usd(1), action=("tool.call", "search"))
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.pending()


def test_closing_a_client_before_its_first_request_closes_it() -> None:
    client = make()
    client.close()
    assert_closed(client)
    client.close()


@pytest.mark.parametrize("of_operations", [False, True])
def test_closing_an_async_client_before_its_first_request_closes_it(of_operations: bool) -> None:
    client = make()
    closes = client.aio if of_operations else client
    asyncio.run(closes.aclose())
    assert_closed(client)
    asyncio.run(closes.aclose())


@pytest.mark.parametrize("is_async", [False, True])
def test_closing_the_view_of_a_view_closes_the_client(is_async: bool) -> None:
    client = make()
    view = client.with_options(timeout=1.0).with_options(max_retries=2)
    asyncio.run(view.aclose()) if is_async else view.close()
    assert_closed(view)
    assert_closed(client)


@pytest.mark.parametrize("fails", [False, True])
def test_a_guard_that_ends_after_aclose_leaves_no_connection_open(fails: bool) -> None:
    async def main(stub: Stub) -> str:
        client = cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False, max_retries=0)
        guard = await client.reserve(cycles.tokens(100), action=ACTION)
        await client.aclose()
        settlement = await guard.commit(cycles.tokens(7))
        await asyncio.to_thread(stub.wait_for, lambda stub: stub.open == 0)  # although the loop still runs
        return settlement.status

    committed = ok(b"", 503) if fails else ok(ANSWERS["commit"])
    with Stub(ok(CREATED), committed) as stub:
        assert asyncio.run(main(stub)) == ("pending" if fails else "committed")
        assert stub.connections == 2


def test_an_open_client_keeps_no_event_loop_that_is_closed() -> None:
    async def use(client: cycles.Cycles) -> None:
        guard = await client.reserve(cycles.tokens(100), action=ACTION)
        await guard.commit(cycles.tokens(7))
        loops.append(weakref.ref(asyncio.get_running_loop()))

    loops = list[weakref.ref[asyncio.AbstractEventLoop]]()
    with (
        Stub(ok(CREATED), ok(ANSWERS["commit"]), ok(CREATED), ok(ANSWERS["commit"])) as stub,
        cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False) as client,
    ):
        asyncio.run(use(client))
        asyncio.run(use(client))
        gc.collect()
        assert [loop() is None for loop in loops] == [True, False]


@pytest.mark.parametrize("part", ["/cycles/_drivers/channel", "/cycles/_http/"])
def test_a_commit_is_sent_wherever_a_signal_handler_closes_the_client(part: str) -> None:
    def respond(sock: socket.socket, ended: threading.Event) -> bool:
        return ok(answer(stub.requests[-1].target))(sock, ended)

    number, more = 0, True
    with Stub(respond) as stub:
        while more:
            client = cycles.Cycles(base_url=stub.url, api_key="k", tenant="acme", journal=False, flush_timeout=0.0)
            guard = client.reserve(cycles.usd(1), action=ACTION).acquire()
            found: list[cycles.Settlement] = []
            commit = partial(_commit, guard, found)
            more = run_at(part, number, client.close, commit)
            assert [each.status for each in found] == ["committed"], number
            client.close()
            number += more
    assert number > 10


def _commit(guard: cycles.Guard, found: list[cycles.Settlement]) -> None:
    found.append(guard.commit(cycles.usd("0.5")))
