"""A signal handler raises while the cost of a response is computed: the exact cost is charged, the budget is free."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from tests.providers.conftest import ALL, EXACT, USED, Desk, OpenAI, Sdk
from tests.support.inside import runtime_of
from tests.support.waiting import until


class Interrupting:
    """Prices a response; the first time, a signal handler raises."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, usage: Any) -> cycles.Amount:
        self.calls += 1
        if self.calls == 1:
            raise KeyboardInterrupt
        return cycles.Amount("USD_MICROCENTS", usage.tokens_input * 100 + usage.tokens_output * 1_000)


@pytest.mark.parametrize("kind", ALL, ids=lambda cls: cls.__name__)
def test_the_exact_cost_is_charged(kind: Any, desk: Desk) -> None:
    sdk: Sdk = kind(desk, actual=Interrupting())
    desk.provider.reply(usage=USED)
    with pytest.raises(KeyboardInterrupt):
        sdk.complete()
    until(lambda: desk.commits)
    assert desk.client.flush(60).pending == 0
    assert desk.commits == [(EXACT, {})]
    assert desk.held == 0
    guards = runtime_of(desk.client).guards
    assert not guards.in_use


def test_a_guard_around_the_request_pays_for_it_once(desk: Desk) -> None:
    sdk = OpenAI(desk, actual=Interrupting())
    desk.provider.reply(usage=USED)
    with pytest.raises(KeyboardInterrupt), desk.client.reserve(cycles.usd(1), action=("test", "work")):
        sdk.complete()
    desk.client.flush(60)
    until(lambda: desk.server.requests.of("event") or desk.commits)
    charged = [request.json["actual"]["amount"] for request in desk.server.requests.of("event")]
    assert [*charged, *(amount for amount, _ in desk.commits)] == [EXACT]
