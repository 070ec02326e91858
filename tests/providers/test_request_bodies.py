"""What is read from the body of a request and from the error of an attempt, case by case."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx
import pytest

import cycles
from cycles.providers import _bodies
from cycles.providers._bodies import (
    check_limits,
    limit_of,
    may_be_billed,
    model_of,
    number_at,
    parsed_json,
    thinking_budget,
    tier_of,
    was_sent,
    with_limits,
    with_other_limits,
)
from cycles.providers._endpoints import find
from cycles.providers._provider import Endpoint


def endpoint(name: str, path: str) -> Endpoint:
    found = find(name, "POST", path)
    assert isinstance(found, Endpoint)
    return found


CONVERSE = endpoint("bedrock", "/model/m/converse")
CHAT = endpoint("openai", "/chat/completions")


# --- errors of attempts


class StatusError(Exception):
    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)


def of_aiohttp(name: str) -> Exception:
    made: Exception = type(name, (Exception,), {"__module__": "aiohttp.client_exceptions"})("x")
    return made


def raised_from(*errors: BaseException) -> BaseException:
    """Return the first of these errors, each raised from the next one."""
    for outer, cause in pairwise(errors):
        outer.__cause__ = cause
    return errors[0]


def behind(depth: int, error: Exception) -> BaseException:
    return raised_from(*(Exception(str(number)) for number in range(depth)), error)


def while_handling(error: Exception) -> BaseException:
    outer = Exception("the SDK's own")
    outer.__context__ = error
    return outer


CLOSED = "Cannot send a request, as the client has been closed."


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (StatusError(status_code=None), True),
        (StatusError(response=None, code=None), True),
        (StatusError(status_code=0), False),
        (while_handling(httpx.ConnectError("x")), False),
        (while_handling(httpx.ReadError("x")), True),
        (type("Refused", (httpx.ConnectError,), {})("x"), False),
        (behind(7, httpx.ConnectError("x")), False),
        (behind(8, httpx.ConnectError("x")), True),
        (ValueError(CLOSED), True),
        (type("ClosedError", (RuntimeError,), {})(CLOSED), True),
        (raised_from(of_aiohttp("ServerDisconnectedError"), httpx.ConnectError("x")), True),
        (raised_from(httpx.ConnectTimeout("x"), of_aiohttp("ServerDisconnectedError")), True),
        (raised_from(httpx.ReadTimeout("x"), of_aiohttp("ClientConnectorError")), False),
        (raised_from(of_aiohttp("ServerTimeoutError"), of_aiohttp("ClientConnectorError")), True),
    ],
)
def test_whether_an_attempt_may_have_reached_the_provider(error: BaseException, sent: bool) -> None:
    assert was_sent(error) is sent


@pytest.mark.parametrize(
    ("raised", "billed"),
    [
        (KeyboardInterrupt(), True),
        (ValueError("no tool of this name"), False),
        (raised_from(ValueError("x"), httpx.ReadTimeout("x")), True),
        (raised_from(ValueError("x"), httpx.ConnectError("x")), False),
        (raised_from(ValueError("x"), of_aiohttp("ClientConnectionError")), True),
        (raised_from(StatusError(status_code=500), httpx.ReadTimeout("x")), True),
    ],
)
def test_whether_a_frameworks_call_may_be_billed(raised: BaseException, billed: bool) -> None:
    assert may_be_billed(raised) is billed


# --- bodies


def test_the_largest_body_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bodies, "_LARGEST_BODY", 3)
    assert (parsed_json(b"123"), parsed_json(b"1234")) == (123, None)


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("models/g-2:streamGenerateContent", {}, "g-2"),
        ("models/a:b:generateContent", {}, "a:b"),
        ("models/g:generateContent", {"model": 5}, "g"),
        ("/x", {"model": ["a"]}, None),
        ("/x", {"model": None}, None),
    ],
)
def test_the_model_is_that_of_the_body_or_of_the_path(path: str, body: dict[str, Any], model: str | None) -> None:
    assert model_of(path, body) == model


@pytest.mark.parametrize(
    ("body", "number"),
    [
        ({"a": {"b": 5}}, 5),
        ({"a": {"b": 0}}, 0),
        ({"a": {"b": True}}, None),
        ({"a": {"b": "5"}}, None),
        ({"a": {"b": 5.0}}, None),
        ({"a": {}}, None),
        ({"a": 5}, None),
        ({"a": None}, None),
        ({}, None),
    ],
)
def test_a_number_at_a_path(body: dict[str, Any], number: int | None) -> None:
    assert number_at(body, "a.b") == number


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, 0),
        ({"thinking": {"budget_tokens": 0}}, 0),
        ({"thinking": {"budget_tokens": -5}}, 0),
        ({"thinking": {"budget_tokens": 7}}, 7),
        ({"reasoning_config": {"budget_tokens": 9}}, 9),
        ({"thinking": {"budget_tokens": 7}, "reasoning_config": {"budget_tokens": 9}}, 9),
    ],
)
def test_the_thinking_budget_of_a_request(fields: dict[str, Any], budget: int) -> None:
    assert thinking_budget(CONVERSE, {"additionalModelRequestFields": fields}) == budget
    assert thinking_budget(CHAT, {"thinking": {"budget_tokens": 7}}) == 0


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, None),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 4}, 4),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5),
    ],
)
def test_the_output_limit_of_a_request_is_its_lowest(body: dict[str, Any], limit: int | None) -> None:
    assert limit_of(CHAT, body) == limit


@pytest.mark.parametrize(
    ("value", "least", "says"),
    [
        (0, 0, None),
        (1, 1, None),
        (None, 1, None),
        (-1, 0, "max_tokens must be a non-negative integer, got -1"),
        (0, 1, "max_tokens must be a positive integer, got 0"),
        (True, 1, "max_tokens must be a positive integer, got True"),
        (5.0, 0, "max_tokens must be a non-negative integer, got 5.0"),
    ],
)
def test_an_output_limit_is_an_integer_or_absent(value: Any, least: Any, says: str | None) -> None:
    if says is None:
        check_limits(CHAT, {"max_tokens": value}, least=least)
        return
    with pytest.raises(cycles.InvalidRequestError) as raised:
        check_limits(CHAT, {"max_tokens": value}, least=least)
    assert str(raised.value) == says


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ({"serviceTier": {"type": "auto"}}, {"service_tier": "priority"}),
        ({"serviceTier": {"type": "Flex"}}, {"service_tier": "flex"}),
        ({"serviceTier": "priority"}, {"service_tier": "priority"}),
        ({"serviceTier": {}}, {}),
        ({"service_tier": "flex"}, {}),
        ({"speed": 5, "inference_geo": 5}, {}),
        ({"speed": "fast", "inference_geo": "us"}, {"speed": "fast", "inference_geo": "us"}),
    ],
)
def test_what_of_a_request_to_bedrock_selects_its_price(body: dict[str, Any], context: dict[str, str]) -> None:
    assert tier_of(CONVERSE, body) == context


def test_limits_are_set_in_a_copy_of_the_body() -> None:
    body = {"a": {"limit": 9, "top": 1}, "b": None, "c": 5}
    changed = with_limits(body, {"a.limit": 3, "b.limit": 4, "d.limit": 6, "c": 2})
    assert changed == {"a": {"limit": 3, "top": 1}, "b": {"limit": 4}, "d": {"limit": 6}, "c": 2}
    assert body == {"a": {"limit": 9, "top": 1}, "b": None, "c": 5}


@pytest.mark.parametrize(
    ("sent", "limits", "original", "next_one"),
    [
        ({"a": {"limit": 3}}, {"a.limit": 2}, {}, {"a": {"limit": 2}}),
        ({"a": None}, {"a.limit": 2}, {}, {"a": {"limit": 2}}),
        ({}, {"a.limit": 2, "b": 1}, {}, {"a": {"limit": 2}, "b": 1}),
        ({"a": {"limit": 3, "top": 1}, "b": 7}, {}, {}, {"a": {"top": 1}}),
        ({"a": {"limit": 3}, "b": 7}, {"b": 5}, {"a": {"limit": 9}, "b": 9}, {"a": {"limit": 9}, "b": 5}),
        ({"a": {"limit": 3}}, {}, {}, {"a": {}}),
        ({"x": 1}, {}, {}, {"x": 1}),
    ],
)
def test_the_next_attempt_has_its_own_limits(
    sent: dict[str, Any], limits: dict[str, int], original: dict[str, Any], next_one: dict[str, Any]
) -> None:
    before = {name: dict(value) if isinstance(value, dict) else value for name, value in sent.items()}
    assert with_other_limits(sent, ("a.limit", "b"), limits, original) == next_one
    assert sent == before
