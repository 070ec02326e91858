"""Responses that are made in the background: held until they are retrieved, and charged exactly once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from cycles.providers import guard
from tests.providers.conftest import EXACT, USED, AsyncOpenAI, Desk, OpenAI
from tests.support.inside import runtime_of
from tests.support.still_time import StillTime
from tests.support.waiting import until

ESTIMATED = {"actual_source": "estimate"}


class Background(OpenAI):
    """A guarded client whose responses are made in the background."""

    def begin(self, **more: Any) -> Any:
        """Let a response be made in the background."""
        given = {"model": "m", "input": "hi", "max_output_tokens": 500, "background": True}
        return self.llm.responses.create(**{**given, **more})


@pytest.fixture
def llm(desk: Desk) -> Background:
    return Background(desk)


def bound(desk: Desk) -> int:
    return desk.reserved[0]


def test_the_bound_is_held_until_the_response_is_retrieved(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED, polls=2)
    begun = llm.begin()
    assert begun.status == "queued"
    for _ in range(2):
        assert llm.llm.responses.retrieve(begun.id).status == "in_progress"
    assert (desk.commits, desk.held) == ([], bound(desk))
    assert bound(desk) > EXACT
    assert llm.llm.responses.retrieve(begun.id).status == "completed"
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)


def test_later_retrievals_charge_nothing(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    for _ in range(3):
        llm.llm.responses.retrieve(begun.id)
    llm.llm.responses.delete(begun.id)
    assert desk.commits == [(EXACT, {})]


def test_the_sum_of_the_page(desk: Desk) -> None:
    llm = Background(desk, prices=cycles.PriceBook({"gpt-5": cycles.Price("1.25", "10")}))
    desk.provider.reply(usage={"tokens_input": 1_000, "tokens_output": 300})
    begun = llm.begin(model="gpt-5")
    llm.llm.responses.retrieve(begun.id)
    assert desk.commits == [(425_000, {})]


@pytest.mark.parametrize("status", ["failed", "incomplete", "cancelled", "expired"])
def test_a_response_that_ends_in_another_way_is_charged_by_its_usage(llm: Background, desk: Desk, status: str) -> None:
    desk.provider.reply(usage=USED, extra={"status": status})
    llm.llm.responses.retrieve(llm.begin().id)
    assert desk.commits == [(EXACT, {})]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_response_without_usage_is_charged_its_estimate(llm: Background, desk: Desk, status: str) -> None:
    desk.provider.reply(usage={}, extra={"status": status})
    llm.llm.responses.retrieve(llm.begin().id)
    assert desk.commits == [(bound(desk), ESTIMATED)]


def test_a_cancelled_response_is_charged_its_estimate(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED, polls=5)
    begun = llm.begin()
    assert llm.llm.responses.cancel(begun.id).status == "cancelled"
    assert (desk.commits, desk.held) == ([(bound(desk), ESTIMATED)], 0)
    llm.llm.responses.retrieve(begun.id)
    assert len(desk.commits) == 1


def test_a_response_that_is_cancelled_too_late_is_complete(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    assert llm.llm.responses.cancel(begun.id).status == "completed"
    assert llm.llm.responses.retrieve(begun.id).status == "completed"
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)


def test_a_deleted_response_is_charged_its_estimate(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED, polls=5)
    begun = llm.begin()
    llm.llm.responses.delete(begun.id)
    assert (desk.commits, desk.held) == ([(bound(desk), ESTIMATED)], 0)


def test_a_response_that_is_not_found_stays_open(llm: Background, desk: Desk) -> None:
    openai: Any = pytest.importorskip("openai")
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    with pytest.raises(openai.NotFoundError):
        llm.llm.responses.retrieve("resp_9")
    with pytest.raises(openai.NotFoundError):
        llm.llm.responses.delete("resp_9")
    assert (desk.commits, desk.held) == ([], bound(desk))
    llm.llm.responses.retrieve(begun.id)
    assert desk.commits == [(EXACT, {})]


def test_the_response_of_a_second_attempt_is_held_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = Background(desk)
    monkeypatch.setattr(type(llm.llm), "_calculate_retry_timeout", lambda *args, **kwargs: 0)
    llm.llm = llm.llm.with_options(max_retries=1)
    desk.provider.reply(drop_after=0).reply(usage=USED)
    begun = llm.begin()
    lost = (bound(desk), {"actual_source": "estimate", "outcome": "error", "attempts": 1})
    assert (desk.commits, desk.held) == ([lost], bound(desk))
    llm.llm.responses.retrieve(begun.id)
    assert (desk.commits, desk.held) == ([lost, (EXACT, {})], 0)


def retrieve_copy(llm: Any, response_id: str) -> None:
    llm.with_options(timeout=20).responses.retrieve(response_id)


def retrieve_raw(llm: Any, response_id: str) -> None:
    assert llm.responses.with_raw_response.retrieve(response_id).parse().status == "completed"


def retrieve_streamed_body(llm: Any, response_id: str) -> None:
    with llm.responses.with_streaming_response.retrieve(response_id) as response:
        response.read()


def resume(llm: Any, response_id: str) -> None:
    events = list(llm.responses.retrieve(response_id, stream=True))
    assert events[-1].type == "response.completed"


def resume_and_leave(llm: Any, response_id: str) -> None:
    with llm.responses.retrieve(response_id, stream=True) as stream:
        for event in stream:
            if event.type == "response.completed":
                break


WAYS = (retrieve_copy, retrieve_raw, retrieve_streamed_body, resume, resume_and_leave)


@pytest.mark.parametrize("retrieve", WAYS, ids=lambda way: way.__name__)
def test_each_way_to_retrieve_it_charges_it_once(
    llm: Background, desk: Desk, retrieve: Callable[[Any, str], None]
) -> None:
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    retrieve(llm.llm, begun.id)
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)
    retrieve(llm.llm, begun.id)
    assert len(desk.commits) == 1


def test_an_async_client_holds_and_charges_it_too(desk: Desk) -> None:
    llm = AsyncOpenAI(desk).llm
    desk.provider.reply(usage=USED, polls=1)

    async def begin() -> str:
        begun = await llm.responses.create(model="m", input="hi", max_output_tokens=500, background=True)
        await llm.responses.retrieve(begun.id)
        return str(begun.id)

    async def resume() -> None:
        async for _ in await llm.responses.retrieve(response_id, stream=True):
            pass

    response_id = desk.runner.run(begin())
    assert (desk.commits, desk.held) == ([], bound(desk))
    desk.runner.run(resume())
    desk.runner.run(resume())
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)


def test_a_background_stream_that_is_read_to_its_end_is_exact(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    assert list(llm.begin(stream=True))[-1].type == "response.completed"
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)


@pytest.mark.parametrize("leave", ["closed", "dropped", "broken"])
def test_a_background_stream_that_is_left_stays_open(llm: Background, desk: Desk, leave: str) -> None:
    desk.provider.reply(text="one two three four", usage=USED, drop_after=5 if leave == "broken" else None)
    stream = llm.begin(stream=True)
    if leave == "broken":
        with pytest.raises(Exception, match=r"."):
            list(stream)
    else:
        next(iter(stream))
    if leave == "closed":
        stream.close()
    del stream
    desk.settle_dropped()
    assert (desk.commits, desk.held) == ([], bound(desk))
    llm.llm.responses.retrieve("resp_1")
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)


def test_threads_that_poll_at_the_same_time_charge_it_once(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    begun, start = llm.begin(), threading.Barrier(8)

    def poll() -> None:
        start.wait(60)
        llm.llm.responses.retrieve(begun.id)

    threads = [threading.Thread(target=poll) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (desk.commits, desk.held) == ([(EXACT, {})], 0)


def test_another_guarded_client_does_not_end_it(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    Background(desk).llm.responses.retrieve(begun.id)
    assert (desk.commits, desk.held) == ([], bound(desk))


def test_after_background_wait_the_estimate_is_charged(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    time = StillTime(monkeypatch)
    time.drives(runtime_of(desk.client).scheduler)
    llm = Background(desk, background_wait=90, ttl_ms=86_400_000)
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    time.move(89)
    assert (desk.commits, desk.held) == ([], bound(desk))
    time.move(2)
    until(lambda: desk.commits)
    assert desk.commits == [(bound(desk), ESTIMATED)]
    llm.llm.responses.retrieve(begun.id)
    assert len(desk.commits) == 1


def test_a_retrieval_ends_the_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(desk.client)
    after, waits = runtime.after, list[Any]()

    def noted(seconds: float, job: Callable[[], object]) -> Any:
        waits.append(after(seconds, job))
        return waits[-1]

    monkeypatch.setattr(runtime, "after", noted)
    llm = Background(desk)
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    assert [wait.cancelled for wait in waits] == [False]
    llm.llm.responses.retrieve(begun.id)
    assert [wait.cancelled for wait in waits] == [True]


def test_without_background_wait_the_estimate_is_charged_immediately(desk: Desk) -> None:
    llm = Background(desk, background_wait=0)
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    assert (desk.commits, desk.held) == ([(bound(desk), ESTIMATED)], 0)
    llm.llm.responses.retrieve(begun.id)
    assert len(desk.commits) == 1


def test_a_dropped_client_is_charged_its_estimate(desk: Desk) -> None:
    llm: Any = Background(desk)
    desk.provider.reply(usage=USED)
    llm.begin()
    copy = llm.llm.with_options(timeout=20)
    del llm
    gc.collect()
    assert (desk.commits, desk.held) == ([], bound(desk))
    del copy
    gc.collect()
    until(lambda: desk.commits)
    assert desk.commits == [(bound(desk), ESTIMATED)]


def test_a_client_that_is_dropped_with_its_stream_is_charged_once(desk: Desk) -> None:
    llm: Any = Background(desk)
    desk.provider.reply(text="one two three", usage=USED)
    stream = llm.begin(stream=True)
    next(iter(stream))
    del llm, stream
    desk.settle_dropped()
    until(lambda: desk.commits)
    assert [amount for amount, _ in desk.commits] == [bound(desk)]


def test_a_closed_cycles_client_charges_the_estimate(desk: Desk) -> None:
    client = desk.server.client(tenant="acme", journal=False)
    llm = Background(desk, client=client)
    desk.provider.reply(usage=USED)
    begun = llm.begin()
    client.close()
    assert (desk.commits, desk.held) == ([(bound(desk), ESTIMATED)], 0)
    llm.llm.responses.retrieve(begun.id)
    assert len(desk.commits) == 1


def test_a_response_that_begins_while_the_client_closes_is_charged(desk: Desk) -> None:
    client, gate = desk.server.client(tenant="acme", journal=False), threading.Event()
    llm = Background(desk, client=client)
    desk.provider.reply(usage=USED, gate=gate)
    worker = threading.Thread(target=llm.begin)
    worker.start()
    until(lambda: desk.provider.requests)
    client.close()
    gate.set()
    worker.join(60)
    assert [amount for amount, _ in desk.commits] == [bound(desk)]


def test_the_guard_around_a_request_does_not_pay_for_its_background(desk: Desk) -> None:
    llm = Background(desk, within="enclosing")
    desk.provider.reply(usage=USED)
    with desk.client.reserve(cycles.usd(1), action=("test", "work")) as around:
        begun = llm.begin()
        assert around.spent is None
        around.commit(cycles.usd(0))
    llm.llm.responses.retrieve(begun.id)
    assert [amount for amount, _ in desk.commits] == [0, EXACT]


def test_a_response_that_cannot_be_parsed_is_not_held(llm: Background, desk: Desk) -> None:
    desk.provider.reply(body=b'{"id": 7, "status": "queued"}')
    llm.begin()
    assert desk.commits == [(bound(desk), ESTIMATED)]


def test_a_request_that_ends_at_its_first_response_is_exact(llm: Background, desk: Desk) -> None:
    desk.provider.reply(usage=USED)
    done = llm.llm.responses.create(model="m", input="hi", max_output_tokens=500, background=False)
    assert (done.status, desk.commits) == ("completed", [(EXACT, {})])


@pytest.mark.parametrize("wrong", [-1, "60", True, None, float("nan"), 10**9])
def test_a_wrong_background_wait_is_an_error(desk: Desk, wrong: Any) -> None:
    openai: Any = pytest.importorskip("openai")
    with pytest.raises(cycles.InvalidRequestError, match="background_wait must be seconds, 0 to 86400"):
        guard(openai.OpenAI(api_key="k"), client=desk.client, background_wait=wrong)
    assert desk.provider.requests == []
