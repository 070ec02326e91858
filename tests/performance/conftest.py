"""A server that says yes, over a socket and in memory, and ways to count what a call does."""

from __future__ import annotations

import gc
import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import cycles
from tests.support.stub import Stub, ok

ACTION = ("llm.completion", "gpt-4o")
ESTIMATE, ACTUAL = cycles.usd("0.05"), cycles.usd("0.032")


def _amount(amount: int) -> dict[str, object]:
    return {"unit": "USD_MICROCENTS", "amount": amount}


_SCOPES = ["tenant:acme", "tenant:acme/agent:bot"]
_BALANCES = [
    {"scope": scope, "scope_path": scope, "remaining": _amount(9), "reserved": _amount(1), "allocated": _amount(10)}
    for scope in _SCOPES
]
_number = iter(range(1, 10**9))


def answer(target: str) -> dict[str, Any]:
    """What a server with budget left says."""
    if target.endswith("/commit"):
        return {"status": "COMMITTED", "charged": _amount(3_200_000), "balances": _BALANCES}
    if target.endswith("/extend"):
        return {"status": "ACTIVE", "expires_at_ms": 1_700_000_120_000, "remaining_ttl_ms": 120_000}
    if target.endswith("/decide"):
        return {"decision": "ALLOW"}
    if target.endswith("/release"):
        return {"status": "RELEASED", "released": _amount(5_000_000)}
    return {
        "decision": "ALLOW",
        "reservation_id": f"rsv-{next(_number)}",
        "affected_scopes": _SCOPES,
        "scope_path": _SCOPES[-1],
        "reserved": _amount(5_000_000),
        "expires_at_ms": 1_700_000_060_000,
        "remaining_ttl_ms": 60_000,
        "balances": _BALANCES,
    }


@pytest.fixture
def server() -> Iterator[Stub]:
    """Over a real socket."""

    def say_yes(sock: socket.socket, ended: threading.Event) -> bool:
        return ok(answer(stub.requests[-1].target))(sock, ended)

    with Stub(say_yes) as stub:
        yield stub


@pytest.fixture
def in_memory() -> Iterator[cycles.Cycles]:
    """A client without sockets, journal or threads: what is left is its own work."""

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(answer(request.url.path)))

    with (
        httpx.Client(transport=httpx.MockTransport(handle)) as transport,
        cycles.Cycles(
            base_url="http://in.memory", api_key="cyc_live_x", tenant="acme", journal=False, http_client=transport
        ) as client,
    ):
        yield client


def steps(work: Callable[[], object]) -> int:
    """Function calls made by `work` in this thread, of Python and C functions alike."""
    count = 0

    def see(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def calls_of(work: Callable[[], object], modules: tuple[str, ...]) -> dict[str, int]:
    """Calls made by `work` in this thread to C functions and C methods of modules, by name, but for `getpid`."""
    counts: dict[str, int] = {}

    def see(frame: object, event: str, argument: Any) -> None:
        if event != "c_call" or argument.__name__ in ("getpid", "fileno"):
            return
        module = getattr(argument, "__module__", None) or type(argument.__self__).__module__
        if module in modules:
            counts[argument.__name__] = counts.get(argument.__name__, 0) + 1

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counts


GARBAGE_RUNS = 3


def garbage(work: Callable[[], object]) -> list[str]:
    """Types of this package of which each of three runs of `work` leaves an object in a reference cycle.

    Only the collector frees such objects. A client of an earlier test may end in its thread while `work` runs: frozen
    objects are not looked at, and what that thread leaves once is not counted. They stay frozen, because collections of
    later tests would look at every module.
    """
    flags = gc.get_debug()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(GARBAGE_RUNS):
            work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(type(each) for each in gc.garbage if type(each).__module__.partition(".")[0] == "cycles")
        return sorted(kind.__qualname__ for kind, count in kinds.items() if count >= GARBAGE_RUNS)
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.enable()
