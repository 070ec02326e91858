"""Small rules of the core as tables: headers, policy keys, windows, used fractions, cursors, paces and hints."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import cycles
from cycles import _errors as errors
from cycles._core.lease import fallback
from cycles._core.messages.error_hints import HINT_OF, hint_for
from cycles._core.messages.errors import denial
from cycles._core.messages.outcome import RejectedResponse, parse_retry_after
from cycles._core.messages.paging import Cursors
from cycles._core.messages.requests import check_key
from cycles._core.messages.used_fraction import Used, levels_of, used_of
from cycles._core.results import DecisionResponse, ReservationCreateResponse
from cycles._core.subjects import Action, Subject, as_action, as_subject
from cycles._core.values.action_kinds import PolicyKeys, window_end, window_key
from cycles._core.values.counts import clip_parts
from cycles._core.values.headers import checked_headers, merged_headers
from cycles._core.values.result_base import HttpResponse, ResponseHeaders
from cycles._flows.signal import Signal

# --- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Gateway", "x_1", "a~|`^.+*&%$#!'"])
@pytest.mark.parametrize("value", ["", "plain text", "\t!~"])
def test_a_header_that_can_be_sent(name: str, value: str) -> None:
    assert checked_headers("extra_headers", {name: value}) == {name: value}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"": "v"}, "is not the name of an HTTP header"),
        ({"a b": "v"}, "is not the name"),
        ({"a:": "v"}, "is not the name"),
        ({"é": "v"}, "is not the name"),
        ({1: "v"}, "is not the name"),
        *(
            ({name: "v"}, "the client sends")
            for name in ("Host", "host", "Content-Length", "User-Agent", "traceparent")
        ),
        *(({name: "v"}, "the client sends") for name in ("Connection", "content-type", "Transfer-Encoding")),
        ({"x-cycles-api-key": "v"}, "the client sends"),
        ({"a": "b\nc"}, "must be ASCII text"),
        ({"a": "é"}, "must be ASCII text"),
        ({"a": "\x7f"}, "must be ASCII text"),
        ({"a": "\x1f"}, "must be ASCII text"),
        ({"a": 1}, "must be ASCII text"),
        ([("a", "b")], "must be a mapping of header names to values, got list"),
        ("a: b", "must be a mapping"),
    ],
)
def test_a_header_that_cannot_be_sent(given: Any, message: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=message):
        checked_headers("extra_headers", given)


def test_headers_replace_those_of_the_same_name_in_any_case() -> None:
    assert checked_headers("extra_headers", None) == {}
    assert merged_headers({"X-A": "1", "X-B": "2"}, {"x-a": "3", "X-C": "4"}) == {"X-B": "2", "x-a": "3", "X-C": "4"}


def test_headers_of_a_response() -> None:
    pairs = ((b"X-A", b"1"), (b"x-a", b"2"), (b"X-B", b"\xe9"))
    headers = ResponseHeaders(pairs)
    assert (headers["x-A"], headers["X-b"], list(headers), len(headers)) == ("1, 2", "é", ["x-a", "x-b"], 2)
    names: list[Any] = ["X-A", "x-c", 1]
    assert tuple(name in headers for name in names) == (True, False, False)
    response = HttpResponse(200, pairs, 1.5)
    assert (response.status, dict(response.headers), response.elapsed) == (200, dict(headers), timedelta(seconds=1.5))


# --- policy keys and windows ----------------------------------------------------------------------------------------

LONGEST = {"host": 253, "recipient_domain": 253, "resource_type": 128, "path_prefix": 512}


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_policy_key(name: str) -> None:
    longest: Any = {name: "/".ljust(LONGEST[name], "x") if name == "path_prefix" else "x" * LONGEST[name]}
    assert PolicyKeys(**longest).to_dict() == longest
    values: list[Any] = ["", longest[name] + "x", 1]
    for value in values:
        wrong: Any = {name: value}
        with pytest.raises(cycles.InvalidRequestError, match=f"policy_keys.{name} must be a string of 1 to"):
            PolicyKeys(**wrong)
        assert PolicyKeys.read(wrong) is None
    assert PolicyKeys.read({**longest, "newer": 1}) == PolicyKeys(**longest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "a/b"}, {"host": "a:1"}, {"recipient_domain": "http://a"}, {"path_prefix": "a/b"}, {"custom": ["a"]},
        {"custom": {str(n): "x" for n in range(9)}}, {"custom": {"a": "x" * 257}}, {"custom": {"a": 1}},
        {"custom": {1: "a"}},
    ],
)  # fmt: skip
def test_a_wrong_policy_key(wrong: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=f"policy_keys.{next(iter(wrong))}"):
        PolicyKeys(**wrong)


def test_custom_policy_keys() -> None:
    custom = {str(n): "x" * 256 for n in range(8)}
    assert PolicyKeys(custom=custom).to_dict() == {"custom": custom}
    assert PolicyKeys(host="h", resource_type="a/b:c").to_dict() == {"host": "h", "resource_type": "a/b:c"}
    assert PolicyKeys().to_dict() == {}


NOW = datetime(2026, 3, 1, 23, 59, 58, tzinfo=timezone(timedelta(hours=-5)))  # the next day in UTC


@pytest.mark.parametrize(
    ("window", "key", "ends"),
    [
        ("per_minute_tumbling", "2026-03-02T04:59", datetime(2026, 3, 2, 5, 0, tzinfo=UTC)),
        ("per_hour_tumbling", "2026-03-02T04", datetime(2026, 3, 2, 5, 0, tzinfo=UTC)),
        ("per_day_tumbling", "2026-03-02", datetime(2026, 3, 3, tzinfo=UTC)),
        ("per_tenant_per_day", "2026-03-02", datetime(2026, 3, 3, tzinfo=UTC)),
    ],
)
def test_calendar_windows(window: str, key: str, ends: datetime) -> None:
    assert (window_key(window, NOW), window_end(window, key)) == (key, ends)
    for wrong in ("2026-03", "", "x", None):
        assert window_end(window, wrong) is None


def test_windows_without_an_end() -> None:
    assert window_end("per_run", "2026-03-02") is window_end(None, "2026-03-02") is None
    assert window_end("per_day_tumbling", "9999-12-31") is None  # later than any date


def test_an_empty_level_of_a_subject_is_that_of_its_base() -> None:
    base = cycles.Subject(tenant="acme", agent="a", dimensions={"k": "1", "l": "1"})
    over = cycles.Subject(agent="", app="b", dimensions={"k": "2"}).over(base)
    assert over == cycles.Subject(tenant="acme", agent="a", app="b", dimensions={"k": "2", "l": "1"})


def test_the_body_of_an_action_does_not_share_its_tags() -> None:
    action = cycles.Action("k", "n", tags=["a"])
    action.to_dict()["tags"].append("b")
    assert action.to_dict()["tags"] == ["a"]


# --- soft limits ----------------------------------------------------------------------------------------------------


def test_the_budgets_of_a_response_that_have_a_fraction() -> None:
    def balance(allocated: Any) -> dict[str, Any]:
        return {"scope_path": "tenant:a", "allocated": allocated, "remaining": {"unit": "TOKENS", "amount": 4}}

    rows = [balance(each) for each in (None, {"amount": 10}, {"amount": 0}, {}, 5, {"amount": 1})]
    assert list(used_of(rows)) == [Used("tenant:a", "TOKENS", 10, 4), Used("tenant:a", "TOKENS", 1, 4)]
    assert list(used_of(None)) == list(used_of({"a": 1})) == []
    assert [each.fraction for each in (Used("s", "u", 10, 4), Used("s", "u", 10, 10), Used("s", "u", 4, -2))] == [
        0.6, 0.0, 1.5,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "pays"),
    [("tenant:a", True), ("tenant:a/agent:b", True), ("tenant:A/agent:B", True), ("tenant:a/agent:c", False),
     ("tenant:a/app:x", False), ("tenant:x/agent:b", False)],
)  # fmt: skip
def test_which_budgets_pay_for_a_subject(scope: str, pays: bool) -> None:
    levels = levels_of(cycles.Subject(tenant="A", agent="b", dimensions={"k": "v"}))
    assert levels == {"tenant": "a", "agent": "b"}
    assert Used(scope, "TOKENS", 1, 1).pays_for(levels) is pays


# --- lists ----------------------------------------------------------------------------------------------------------


def test_the_cursors_of_a_list() -> None:
    cursors = Cursors()
    assert (cursors.current, cursors.ended) == (None, False)
    for name in ("a", "b"):
        cursors.advance(name, request_id=None, trace_id=None, http=None)
        assert (cursors.current, cursors.ended) == (name, False)
    http = HttpResponse(200, (), 0.0)
    with pytest.raises(cycles.AmbiguousResponseError, match="the list does not end") as caught:
        cursors.advance("a", request_id="r", trace_id="t", http=http)
    assert (caught.value.request_id, caught.value.trace_id, caught.value.http) == ("r", "t", http)
    cursors.advance(None, request_id=None, trace_id=None, http=None)
    assert (cursors.current, cursors.ended) == ("b", True)


# --- the heartbeat without remaining_ttl_ms -------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl_ms", "hold_ms"), [(2_000, 1_000), (60_000, 30_000), (59_998, 29_999), (600_000, 30_000)])
def test_the_delay_without_a_measured_grant(ttl_ms: int, hold_ms: float) -> None:
    assert fallback.hold_ms(ttl_ms) == hold_ms
    assert fallback.pace(None, 5.0, ttl_ms) == (hold_ms, False)


@pytest.mark.parametrize(
    ("grant_ms", "elapsed_ms", "delay_ms", "clamped"),
    [
        (54_000, 54_000, 27_000, False),  # nine tenths of the ttl
        (53_999, 53_999, 30_000, True),
        (0, 10_000, 30_000, True),
        (-5, 10_000, 30_000, True),
        (1, 10_000, 1_000, False),
        (7_500, 10_000, 30_000, True),  # three quarters of the time to five quarters
        (7_499, 10_000, 3_749.5, False),
        (12_500, 10_000, 30_000, True),
        (12_501, 10_000, 6_250.5, False),
        (20, 40, 30_000, True),  # or 20 ms more or less
        (19, 40, 1_000, False),
        (60, 40, 30_000, True),
        (61, 40, 1_000, False),
        (2_000, 50_000, 1_000, False),
        (2_002, 50_000, 1_001, False),
    ],
)
def test_the_pace_after_a_grant(grant_ms: float, elapsed_ms: float, delay_ms: float, clamped: bool) -> None:
    found = fallback.pace(grant_ms, elapsed_ms, 60_000)
    assert found.clamped is clamped
    assert found.delay_ms == pytest.approx(delay_ms, abs=1)


@pytest.mark.parametrize(
    ("delay_ms", "grant_ms", "lead_ms", "wait_ms"),
    [
        (10.0, None, 1_000.0, 10.0),
        (math.inf, 20.0, 1_000.0, math.inf),
        (10.0, 20.0, math.inf, 10.0),
        (10.0, 20.0, 39.0, 10.0),
        (10.0, 20.0, 40.0, 20.0),  # 1.5 grants are left after the skipped one
        (10.0, 20.0, 49.0, 20.0),
        (10.0, 20.0, 50.0, 30.0),
        (40.0, 20.0, 80.0, 80.0),  # one delay is left
        (40.0, 20.0, 79.0, 40.0),
    ],
)
def test_attempts_that_are_skipped(delay_ms: float, grant_ms: float | None, lead_ms: float, wait_ms: float) -> None:
    assert fallback.wait_ms(delay_ms, grant_ms, lead_ms) == wait_ms


# --- hints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "response", "spending", "hint"),
    [
        (errors.UnauthorizedError, RejectedResponse(401, "UNAUTHORIZED", "m"), True, "does not accept this key"),
        (errors.UnauthorizedError, RejectedResponse(401, "UNAUTHORIZED", "KEY_REVOKED"), True, "was revoked"),
        (errors.UnauthorizedError, RejectedResponse(401, "UNAUTHORIZED", "KEY_EXPIRED"), True, "has expired"),
        (errors.UnauthorizedError, RejectedResponse(401, "TENANT_CLOSED", "m"), True, "closed permanently"),
        (errors.UnauthorizedError, RejectedResponse(401, None, "INTERNAL_ERROR"), True, "cannot check keys"),
        (errors.UnauthorizedError, RejectedResponse(401, None, "m"), True, "does not accept this key"),
        (errors.ProtocolError, RejectedResponse(409, "TENANT_SUSPENDED", "m"), True, "is suspended"),
        (errors.ProtocolError, RejectedResponse(409, "TENANT_CLOSED", "m"), True, None),
        (errors.ForbiddenError, RejectedResponse(403, None, "m"), True, "is no error of the protocol"),
        (errors.ForbiddenError, RejectedResponse(403, "FORBIDDEN", "m"), True, "valid for one tenant only"),
        (errors.NotFoundError, RejectedResponse(404, "NOT_FOUND", "m"), True, "create a budget"),
        (errors.NotFoundError, RejectedResponse(404, "NOT_FOUND", "m"), False, None),
        (errors.BudgetExceededError, RejectedResponse(409, "BUDGET_EXCEEDED", "m"), True, "is smaller than that"),
        (errors.UnitMismatchError, RejectedResponse(400, "UNIT_MISMATCH", "m"), True, None),
    ],
)
def test_what_a_caller_can_do(
    kind: type[errors.ProtocolError], response: RejectedResponse, spending: bool, hint: str | None
) -> None:
    found = hint_for(kind, response, spending=spending)
    assert (found is None) == (hint is None)
    if hint is not None:
        assert hint in str(found)
    assert set(HINT_OF) == {errors.UnauthorizedError, errors.ForbiddenError, errors.BudgetExceededError}


@pytest.mark.parametrize(
    ("units", "hint"),
    [(["TOKENS"], "pass an amount in TOKENS"), (["A", "B"], "pass an amount in A or B"), ([], None), ("A", None)],
)
def test_the_units_that_a_budget_has(units: Any, hint: str | None) -> None:
    response = RejectedResponse(400, "UNIT_MISMATCH", "m", details={"expected_units": units})
    assert hint_for(errors.UnitMismatchError, response, spending=True) == hint


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        (" 3 ", 3_000),
        ("9" * 12, 999_999_999_999_000),
        ("9" * 13, None),
        ("-3", None),
        ("3.5", None),
        ("\u0663", None),  # a digit of another script
        ("Tue, 01 Dec 2026 00:00:00 GMT", None),
    ],
)
def test_a_pause_of_a_response(text: str | None, milliseconds: int | None) -> None:
    assert parse_retry_after(text) == milliseconds


def test_what_is_sent_can_be_changed_without_changing_the_subject_or_the_action() -> None:
    subject = Subject(tenant="acme", dimensions={"team": "a"})
    action = Action("kind", "name", ["a"], PolicyKeys(custom={"table": "a"}))
    subject.to_dict()["dimensions"]["team"] = "b"
    action.to_dict()["tags"].append("b")
    action.to_dict()["policy_keys"]["custom"]["table"] = "b"
    assert subject.to_dict() == {"tenant": "acme", "dimensions": {"team": "a"}}
    assert (action.to_dict()["tags"], action.to_dict()["policy_keys"]) == (["a"], {"custom": {"table": "a"}})


@pytest.mark.parametrize("number", [0, 9, 10, 31, 127])
def test_a_key_has_no_control_characters(number: int) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="must not contain control characters"):
        check_key(f"job{chr(number)}7")
    assert check_key("job 7~\x80") == "job 7~\x80"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({}, None),
        ({"reason_code": "A"}, "A"),
        ({"deny_detail": {"reason_code": "B"}}, "B"),
        ({"reason_code": "A", "deny_detail": {"reason_code": "B"}}, "A"),
        ({"reason_code": "A", "deny_detail": {"suggested_fix": "wait"}}, "A"),
        ({"deny_detail": {"suggested_fix": "wait"}}, None),
    ],
)
def test_the_reason_of_a_denial(members: dict[str, Any], code: str | None) -> None:
    assert DecisionResponse.read({"decision": "DENY", **members}).denial_code == code


@pytest.mark.parametrize(
    ("reported", "clipped"),
    [
        ({"tokens_input": 0, "tokens_cached_input": 5}, (0, 0)),
        ({"tokens_input": 4, "tokens_cached_input": 5}, (4, 4)),
        ({"tokens_input": 5, "tokens_cached_input": 5}, (5, 5)),
    ],
)
def test_a_part_is_never_larger_than_its_whole(reported: dict[str, int], clipped: tuple[int, int]) -> None:
    counts = {**reported, "tokens_cached_input_audio": 9}
    clip_parts(counts)
    assert (counts["tokens_input"], counts["tokens_cached_input"]) == clipped
    assert counts["tokens_cached_input_audio"] == clipped[1]


@pytest.mark.parametrize("action", ["ab", ["a"], ("a",), ("a", "b", "c"), None])
def test_what_is_no_pair_is_no_action(action: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"action must be a cycles\.Action or a \(kind, name\) pair"):
        as_action(action)
    assert as_action(("a", "b")) == Action("a", "b")


@pytest.mark.parametrize("level", ["Tenant", "AGENT", "team", "Dimensions"])
def test_levels_of_a_subject_are_written_as_the_protocol_has_them(level: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=rf"subject\.{level} is not a level of a subject"):
        as_subject({"tenant": "acme", level: "a"})


def test_policy_keys_of_a_newer_server_are_read_without_the_new_ones() -> None:
    assert PolicyKeys.read({"host": "a.example", "newer": 1}) == PolicyKeys(host="a.example")
    assert PolicyKeys.read({"host": "https://a.example"}) is None


@pytest.mark.parametrize(
    ("amount", "text"), [(-2, "-2 tokens"), (-1, "-1 token"), (0, "0 tokens"), (1, "1 token"), (2, "2 tokens")]
)
def test_one_below_zero_is_written_as_one(amount: int, text: str) -> None:
    assert str(cycles.SignedAmount("TOKENS", amount)) == text


@pytest.mark.parametrize("is_known", [True, False])
def test_a_decision_to_deny_says_what_the_server_suggests(is_known: bool) -> None:
    detail = {"reason_code": "BUDGET_EXCEEDED" if is_known else "BRAND_NEW", "suggested_fix": "ask the owner"}
    error = denial(ReservationCreateResponse.read({"decision": "DENY", "deny_detail": detail}), context="requested 1")
    assert error.hint is not None
    assert error.hint.startswith("requested 1")
    assert error.hint.endswith("; the server suggests: ask the owner")


def test_who_no_longer_waits_for_a_signal_takes_no_other_with_it() -> None:
    called: list[int] = []
    signal = Signal()
    first, second = (lambda: called.append(1)), (lambda: called.append(2))
    signal.on_set(first)
    signal.on_set(second)
    signal.drop(first)
    signal.drop(first)
    signal.set()
    assert called == [2]
