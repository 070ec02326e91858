"""Where the output of the fake provider ends, what of it is billed, and how its background responses change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

import cycles
from cycles.testing import FakeProvider, Received, Reply
from cycles.testing._background import BackgroundResponses
from cycles.testing._limits import billed, limit_of, limited
from cycles.testing._stand_in import FakeModels

LARGEST = 16_384


@pytest.mark.parametrize(
    ("request_body", "limit"),
    [
        ({}, LARGEST),
        ({"max_tokens": 0, "max_completion_tokens": None}, LARGEST),
        ({"max_tokens": "9"}, LARGEST),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_output_tokens": 9}, 7),
        ({"max_tokens_to_sample": 6}, 6),
        ({"max_gen_len": 5}, 5),
        ({"generationConfig": {"maxOutputTokens": 4}}, 4),
        ({"generation_config": {"max_output_tokens": 3}}, 3),
        ({"inferenceConfig": {"maxTokens": 2}, "max_tokens": 8}, 2),
        ({"inferenceConfig": 5, "generationConfig": {"maxOutputTokens": 0}}, LARGEST),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"generationConfig": {"maxOutputTokens": 4, "candidateCount": 2}}, 8),
    ],
)
def test_the_limit_is_the_lowest_of_the_request_for_each_result(request_body: Any, limit: int) -> None:
    assert limit_of("gpt-4o-mini", request_body) == limit


def test_a_response_at_its_limit_is_whole() -> None:
    reply = Reply(text="a b c", usage={"tokens_output": 3})
    assert limited(reply, "m", {"max_tokens": 3}) is reply


@pytest.mark.parametrize(
    ("options", "limit", "text", "reasoning", "usage"),
    [
        ({"text": "a b c d"}, 2, "a b", "", {"tokens_input": 2, "tokens_output": 2}),
        # The words of reasoning come first; what is left is text.
        ({"text": "a b c d", "reasoning": "r s"}, 3, "a", "r s", {"tokens_input": 2, "tokens_output": 3}),
        ({"text": "a b c d", "reasoning": "r s t"}, 2, "", "r s", {"tokens_input": 2, "tokens_output": 2}),
        ({"text": "a b c d", "usage": {}}, 2, "a b", "", {}),
        (
            {"text": "a b c d", "usage": {"tokens_output": 100, "tokens_reasoning": 60, "tokens_output_image": 5}},
            80,
            "a b",
            "",
            {"tokens_output": 80, "tokens_reasoning": 60, "tokens_output_image": 5},
        ),
        (
            {"text": "a b", "usage": {"tokens_output": 100, "tokens_reasoning": 90, "tokens_output_audio": 95}},
            80,
            "",
            "",
            {"tokens_output": 80, "tokens_reasoning": 80, "tokens_output_audio": 80},
        ),
    ],
)
def test_a_response_above_its_limit_is_truncated(
    options: Any, limit: int, text: str, reasoning: str, usage: Mapping[str, int]
) -> None:
    given = Reply(**options, tool_calls=[("look", {})] if "usage" in options else [], model="named")
    found = limited(given, "m", {"max_tokens": limit})
    assert (found.text, found.reasoning, found.usage) == (text, reasoning, usage)
    assert (found.tool_calls, found.truncated, found.model) == ((), True, "named")


@pytest.mark.parametrize(("share", "output", "image"), [(0.0, 0, 0), (0.5, 5, 2), (0.34, 4, 2), (1.0, 10, 4)])
def test_a_part_of_a_response_is_billed_with_its_whole_prompt(share: float, output: int, image: int) -> None:
    counts = {"tokens_input": 7, "tokens_output": 10, "tokens_output_image": 4, "web_searches": 2}
    made = {"tokens_input": 7, "tokens_output": output, "tokens_output_image": image, "web_searches": 2}
    assert billed(counts, share) == made
    assert counts["tokens_output"] == 10


@pytest.mark.parametrize(("status", "is_right"), [(199, False), (200, True), (599, True), (600, False), (True, False)])
def test_a_status_is_an_integer_of_http(status: int, is_right: bool) -> None:
    if is_right:
        assert Reply(status=status).status == status
    else:
        with pytest.raises(cycles.InvalidRequestError, match="status must be an integer from 200 to 599"):
            Reply(status=status)


@pytest.mark.parametrize("times", [True, 1.0, -1])
def test_times_must_be_an_integer(times: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="times must be an integer of 1 or more"):
        FakeProvider().reply(times=times)


PATH = "/v1/responses"
RUNNING = {"background": True, "model": "m"}


def _received(method: str, path: str, body: Any = None, query: str = "") -> Received:
    return Received(method, path, query, {}, body)


def _begun(kept: BackgroundResponses, **options: Any) -> Any:
    return kept.begun(_received("POST", PATH, RUNNING), "m", Reply(**options)).body


def _status(kept: BackgroundResponses, name: str, method: str = "GET", rest: str = "") -> Any:
    found = kept.reply_to(_received(method, f"{PATH}/{name}{rest}"))
    assert found is not None
    assert isinstance(found.body, Mapping)
    assert found.body["id"] == name
    return found.body["status"]


def test_a_background_response_is_in_progress_as_often_as_the_reply_says() -> None:
    kept = BackgroundResponses()
    assert [_begun(kept, polls=2)[name] for name in ("id", "status")] == ["resp_1", "queued"]
    assert [_status(kept, "resp_1") for _ in range(4)] == ["in_progress", "in_progress", "completed", "completed"]


def test_a_background_response_is_cancelled_only_before_it_is_complete() -> None:
    kept = BackgroundResponses()
    _begun(kept, polls=1)
    _begun(kept, polls=0)
    assert _status(kept, "resp_1", "POST", "/cancel") == "cancelled"
    assert [_status(kept, "resp_1") for _ in range(2)] == ["cancelled", "cancelled"]
    assert _status(kept, "resp_2", "POST", "/cancel") == "completed"


def test_a_deleted_background_response_does_not_exist() -> None:
    kept = BackgroundResponses()
    _begun(kept, extra={"metadata": {"a": "1"}})
    _begun(kept)
    deleted = kept.reply_to(_received("DELETE", f"{PATH}/resp_1"))
    assert deleted is not None
    assert deleted.body == {"id": "resp_1", "object": "response", "deleted": True}
    gone = kept.reply_to(_received("GET", f"{PATH}/resp_1"))
    assert gone is not None
    assert (gone.status, gone.error) == (404, "response resp_1 does not exist")
    assert _status(kept, "resp_2") == "completed"


def test_a_background_response_is_retrieved_with_its_extra_members() -> None:
    kept = BackgroundResponses()
    _begun(kept, text="done", extra={"service_tier": "flex"})
    found = kept.reply_to(_received("GET", f"{PATH}/resp_1"))
    assert found is not None
    assert isinstance(found.body, Mapping)
    assert (found.body["service_tier"], found.body["output"][0]["content"][0]["text"]) == ("flex", "done")


def test_a_stream_of_a_background_response_completes_it() -> None:
    kept = BackgroundResponses()
    _begun(kept, polls=3, text="one two")
    found = kept.reply_to(_received("GET", f"{PATH}/resp_1", query="stream=true&starting_after=2"))
    assert found is not None
    assert isinstance(found.body, bytes)
    assert b"response.completed" in found.body
    assert b'"resp_1"' in found.body
    assert _status(kept, "resp_1") == "completed"


@pytest.mark.parametrize(
    ("path", "body", "options"),
    [
        (PATH, {"model": "m"}, {}),
        (PATH, {"background": 1}, {}),
        (PATH, [True], {}),
        ("/v1/chat/completions", RUNNING, {}),
        (PATH, RUNNING, {"status": 400}),
        (PATH, RUNNING, {"body": {"mine": 1}}),
    ],
)
def test_other_replies_are_not_kept(path: str, body: Any, options: Any) -> None:
    kept, reply = BackgroundResponses(), Reply(**options)
    assert kept.begun(_received("POST", path, body), "m", reply) is reply
    assert _begun(kept)["id"] == "resp_1"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/", "/v1/responses/x_1", "/v1/files/resp_1"])
def test_other_requests_retrieve_no_background_response(path: str) -> None:
    assert BackgroundResponses().reply_to(_received("GET", path)) is None


def test_the_oldest_background_responses_are_deleted() -> None:
    kept = BackgroundResponses()
    for _ in range(1_002):
        _begun(kept)
    missing = [kept.reply_to(_received("GET", f"{PATH}/resp_{n}")) for n in (1, 2)]
    assert [None if each is None else each.status for each in missing] == [404, 404]
    assert [_status(kept, f"resp_{n}") for n in (3, 1_002)] == ["completed", "completed"]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


BOOK = cycles.PriceBook(
    {"m": cycles.Price("1", "10", tiers={"flex": cycles.Price("0.5", "5")}), "named": cycles.Price("2", "2")}
)
USED = {"tokens_input": 10, "tokens_output": 20}


@pytest.mark.parametrize(
    ("path", "options", "cost"),
    [
        ("/v1/chat/completions", {}, 10 * 100 + 20 * 1000),
        ("/v1/chat/completions", {"model": "named"}, 30 * 200),
        ("/v1/chat/completions", {"extra": {"service_tier": "flex"}}, 10 * 50 + 20 * 500),
        ("/v1/chat/completions", {"usage": {}}, 0),
        ("/v1/chat/completions", {"status": 429}, 0),
        ("/v1/embeddings", {}, 10 * 100),
        ("/v1/moderations", {}, 0),
    ],
)
def test_the_bill_has_the_model_and_the_tier_of_each_response(
    http: httpx.Client, path: str, options: Any, cost: int
) -> None:
    with FakeProvider() as provider:
        provider.reply(**{"usage": USED, **options}).reply(usage={"tokens_input": 1})
        for where in (path, "/v1/chat/completions"):
            http.post(provider.url + where, json={"model": "m"})
        rest = 0 if path != "/v1/moderations" else 21_000 - 100  # this request took no reply
        assert provider.bill(BOOK).amount == cost + 100 + rest


def test_requests_are_counted_by_the_end_of_their_path(http: httpx.Client) -> None:
    with FakeProvider() as provider:
        for path in ("/v1/embeddings", "/v1/chat/completions", "/v1/embeddings/x"):
            http.post(provider.url + path, content=b"{no json", headers={"content-type": "application/json"})
        assert [provider.count(), provider.count("/embeddings"), provider.count("/none")] == [3, 1, 0]
        assert [request.body for request in provider.requests] == [b"{no json"] * 3


@pytest.mark.parametrize(
    ("path", "body", "says", "written"),
    [
        ("/v1/chat/completions", {"model": "m", "max_tokens": 7}, "Done (1).", 7),
        ("/v1/chat/completions", {"model": "m"}, "Done (1).", 1_000),
        ("/v1/embeddings", {"model": "m"}, "", None),
    ],
)
def test_the_fake_models_of_the_command_line_use_up_a_budget(
    http: httpx.Client, path: str, body: Any, says: str, written: int | None
) -> None:
    with FakeModels() as provider:
        found = http.post(provider.url + path, json=body)
        assert says in found.text
        assert found.json()["usage"].get("completion_tokens") == written
        http.get(f"{provider.url}/v1/models")
        image = http.post(f"{provider.url}/v1/images/generations", json={"model": "m"}).json()
        assert image["usage"]["output_tokens"] == 2  # the words of its text
        assert "Done (3)." in http.post(f"{provider.url}/v1/chat/completions", json={}).text
        book = cycles.PriceBook({"gpt-4o": cycles.Price("1", "10")})
        last = provider.bill(book)
        assert "Done (4)." in http.post(f"{provider.url}/v1/chat/completions", json={}).text
        assert provider.bill(book) == last, "a program may send requests for days"
        assert provider.requests == []
