"""Fifty threads, over HTTP and in one process, on one small budget: no amount is spent twice or beyond it."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from attrs import define, field

import cycles
from cycles.embedded import EmbeddedServer
from tests.support.short import fewer

THREADS = 50
TURNS = fewer(6)
ALLOCATED = fewer(4_000)
HEAD = {"subject": {"tenant": "acme", "agent": "bot"}, "action": {"kind": "k", "name": "n"}}


@define
class Tally:
    """The responses that one thread got."""

    spent: int = 0
    denied: int = 0
    strange: list[str] = field(factory=list)


def amount(value: int) -> dict[str, object]:
    return {"unit": "TOKENS", "amount": value}


def work(number: int, http: httpx.Client, start: threading.Barrier, tally: Tally) -> None:
    choose = random.Random(number)
    start.wait(60)
    for turn in range(TURNS):
        key = {"idempotency_key": f"{number}-{turn}"}
        held = choose.randint(1, 100)
        made = http.post("/v1/reservations", json=HEAD | key | {"estimate": amount(held), "overage_policy": "REJECT"})
        if made.status_code == 409:
            tally.denied += 1
            continue
        if any(item["remaining"]["amount"] < 0 for item in made.json()["balances"]):
            tally.strange.append(made.text)
        settle = f"/v1/reservations/{made.json()['reservation_id']}"
        if choose.random() < 0.3:
            ended = http.post(f"{settle}/release", json=key)
        else:
            actual = choose.randint(0, held)
            # the second commit with the same key is a replay
            ended, again = (http.post(f"{settle}/commit", json=key | {"actual": amount(actual)}) for _ in range(2))
            tally.spent += actual
            if again.json() != ended.json():
                tally.strange.append(again.text)
        if ended.status_code != 200 or made.status_code != 200:
            tally.strange.append(ended.text)


@contextmanager
def hasty_threads() -> Iterator[None]:
    """Switch threads at nearly every step, so that a missing lock shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextmanager
def reached(server: EmbeddedServer, place: str) -> Iterator[httpx.Client]:
    """A client of the server, over a socket or in this process."""
    headers, limits = {"X-Cycles-API-Key": server.api_key}, httpx.Limits(max_connections=THREADS)
    if place == "in process":
        transport = server.transport()
        with hasty_threads(), httpx.Client(base_url="http://x", headers=headers, transport=transport) as http:
            yield http
    else:
        with server.listen() as url, httpx.Client(base_url=url, headers=headers, limits=limits, timeout=120) as http:
            yield http


@pytest.mark.parametrize("place", ["over HTTP", "in process"])
def test_fifty_threads_never_spend_more_than_the_budget(place: str) -> None:
    budgets = {"tenant:acme": cycles.tokens(ALLOCATED), "tenant:acme/agent:bot": cycles.tokens(ALLOCATED - 500)}
    server, tallies = EmbeddedServer(budgets), [Tally() for _ in range(THREADS)]
    with reached(server, place) as http:
        start = threading.Barrier(THREADS)
        threads = [threading.Thread(target=work, args=(n, http, start, tallies[n])) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [strange for tally in tallies for strange in tally.strange] == []
    assert sum(tally.denied for tally in tallies) > 0  # the budget was too small for all
    spent = sum(tally.spent for tally in tallies)
    for scope, allocated in (("tenant:acme", ALLOCATED), ("tenant:acme/agent:bot", ALLOCATED - 500)):
        balance = server.ledger.balance(scope)
        assert balance.spent == cycles.tokens(spent)
        assert balance.reserved == cycles.tokens(0)
        assert balance.remaining.amount == allocated - spent >= 0
