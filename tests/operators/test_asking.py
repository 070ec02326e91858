"""`--ask-at`: what is asked can be granted, a yes lets the call run, and a no releases what it held."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import cycles
from cycles.proxy._asking import Asking, Question
from cycles.proxy._denials import Payer
from cycles.proxy._prompts import _text_of
from tests.operators.proxying import CHAT_PATH, EXACT, KEY, USED, proxied
from tests.support.waiting import until

CALL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500}
BOUND = 600_000
"""More than what that call reserves, in microcents."""


class User:
    """Replies to questions."""

    def __init__(self, *replies: bool | cycles.Amount) -> None:
        self.replies = list(replies)
        self.questions: list[Question] = []
        self.may_reply = threading.Event()
        self.may_reply.set()

    def __call__(self, question: Question) -> bool | cycles.Amount:
        self.questions.append(question)
        assert self.may_reply.wait(60)
        return self.replies.pop(0)


def test_what_the_budget_does_not_allow_is_denied_without_a_question() -> None:
    user = User()
    with proxied(cycles.usd_microcents(1000), asking=Asking(0.01, user), wait=0) as place:
        denied = place.post(json=CALL)
        assert (denied.status_code, denied.headers["x-cycles-reason"]) == (402, "budget_exceeded")
        assert user.questions == []


def test_after_a_yes_the_call_runs_although_others_want_the_same_budget() -> None:
    user = User(True)
    user.may_reply.clear()
    with proxied(cycles.usd_microcents(2 * BOUND), asking=Asking(0.1, user), wait=0) as place:
        place.provider.reply(usage=USED, times=3)
        assert place.post(json=CALL).status_code == 200
        assert user.questions == []  # nothing was used before
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(place.post, json=CALL)
            until(lambda: bool(user.questions))
            beside = pool.submit(place.post, json={**CALL, "max_tokens": 700})
            assert beside.result().status_code == 402
            user.may_reply.set()
            assert asked.result().status_code == 200
        assert (place.spent, place.held) == (2 * EXACT, 0)
        assert user.questions[0].used.startswith("17% of tenant:run is used, $0.01 is left")


def test_after_a_no_the_budget_is_released_and_nothing_is_sent() -> None:
    with proxied(cycles.usd_microcents(10 * BOUND), asking=Asking(0.01, User(False))) as place:
        place.provider.reply(usage=USED)
        assert place.post(json=CALL).status_code == 200
        denied = place.post(json=CALL)
        assert (denied.status_code, denied.headers["x-cycles-reason"]) == (402, "approval_denied")
        assert "it was not approved: 3% of tenant:run is used" in denied.json()["error"]["message"]
        assert (len(place.provider.requests), place.spent, place.held) == (1, EXACT, 0)
        assert place.proxy.app.totals.document(1.0, 0)["denied_by"] == {"approval_denied": 1}
        assert place.proxy.app.totals.calls == 1


def test_a_program_that_leaves_before_the_reply_holds_nothing() -> None:
    user = User(True)
    user.may_reply.clear()
    with proxied(cycles.usd_microcents(10 * BOUND), asking=Asking(0.01, user)) as place:
        place.provider.reply(usage=USED)
        assert place.post(json=CALL).status_code == 200
        program = http.client.HTTPConnection(place.url.removeprefix("http://"))
        program.request("POST", f"/{KEY}{CHAT_PATH}", json.dumps(CALL), {"content-type": "application/json"})
        until(lambda: bool(user.questions))
        assert place.held > 0
        program.close()
        until(lambda: not place.held)
        user.may_reply.set()
    assert len(place.provider.requests) == 1


def test_calls_that_wait_for_a_question_share_a_no_and_each_get_a_yes() -> None:
    for reply, sent in ((False, 1), (True, 4)):
        user = User(*[reply] * 3)
        user.may_reply.clear()
        asking = Asking(0.01, user)
        with proxied(cycles.usd_microcents(20 * BOUND), asking=asking) as place:
            place.provider.reply(usage=USED, times=4)
            place.post(json=CALL)
            with ThreadPoolExecutor(3) as pool:
                calls = [pool.submit(place.post, json=CALL) for _ in range(3)]
                until(lambda asking=asking: asking.waiting == 2)  # type: ignore[misc]
                user.may_reply.set()
                assert {call.result().status_code for call in calls} == {200 if reply else 402}
            assert (len(place.provider.requests), place.held) == (sent, 0)
            assert len(user.questions) == (3 if reply else 1)


def test_a_call_that_leaves_is_not_shown_as_one_that_waits() -> None:
    async def main() -> None:
        user = User(True, True)
        user.may_reply.clear()
        asking = Asking(0.1, user)
        payer = Payer("this run", "tenant:run", 0, 0, 1_000, is_scope=False)
        calls = [asyncio.create_task(asking.denial("m", cycles.usd_microcents(5), [payer])) for _ in range(3)]
        while asking.waiting < 2:
            await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.wait(calls[1:2])
        assert asking.waiting == 1
        user.may_reply.set()
        assert [await call for call in (calls[0], calls[2])] == [None, None]
        assert [(question.waiting, question.total.amount) for question in user.questions] == [(0, 0), (0, 0)]

    asyncio.run(main())


def test_an_amount_grants_that_much_without_another_question() -> None:
    user = User(cycles.usd_microcents(BOUND), False)
    with proxied(cycles.usd_microcents(20 * BOUND), asking=Asking(0.001, user)) as place:
        place.provider.reply(usage=USED, times=4)
        statuses = [place.post(json={**CALL, "max_tokens": 200}).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 402]  # the amount pays for two calls
        assert len(user.questions) == 2


def test_a_second_amount_is_added_to_what_is_left_of_the_first() -> None:
    user = User(cycles.tokens(10), cycles.tokens(10))
    asking, payers = Asking(0.5, user), [Payer("this run", "tenant:run", 1, 0, 100)]

    async def main() -> list[str | None]:
        return [await asking.denial("m", cycles.tokens(amount), payers) for amount in (4, 8, 8)]

    assert asyncio.run(main()) == [None, None, None]
    assert [question.estimate for question in user.questions] == [cycles.tokens(4), cycles.tokens(8)]


@pytest.mark.parametrize("amount", [cycles.usd_microcents(1), cycles.tokens(10**9)], ids=["too low", "other unit"])
def test_an_amount_that_does_not_pay_for_the_call_is_a_no(amount: cycles.Amount) -> None:
    with proxied(cycles.usd_microcents(20 * BOUND), asking=Asking(0.001, User(amount))) as place:
        place.provider.reply(usage=USED)
        place.post(json=CALL)
        assert place.post(json=CALL).status_code == 402
        assert place.held == 0


def test_the_limit_of_the_run_counts_too() -> None:
    user = User(False)
    with proxied(limit=cycles.usd_microcents(2 * BOUND), asking=Asking(0.1, user)) as place:
        place.provider.reply(usage=USED)
        assert [place.post(json=CALL).status_code for _ in range(2)] == [200, 402]
        assert user.questions[0].used.startswith("17% of this run is used")


def test_a_terminal_that_is_gone_is_a_no() -> None:
    def gone(question: Question) -> bool:
        raise OSError("no terminal")

    async def ask() -> str | None:
        asking = Asking(0.5, gone)
        return await asking.denial("m", cycles.usd(1), [Payer("this run", "tenant:run", 0, 0, 200_000_000)])

    assert asyncio.run(ask()) == "it was not approved: 50% of this run is used, $1.00 is left"


@pytest.mark.parametrize(("estimate", "example"), [(cycles.usd(1), "like 2USD"), (cycles.tokens(5), "like 500 tokens")])
def test_the_question_shows_model_cost_and_who_waits(estimate: cycles.Amount, example: str) -> None:
    text = _text_of(Question("gpt\x1b[2J", estimate, "90% of this run is used, $1.00 is left", 2, cycles.usd(3)))
    assert text.startswith("cycles: 90% of this run is used, $1.00 is left. gpt?[2J may cost ")
    assert "; 2 more wait, $3.00. Spend it? " in text
    assert example in text
