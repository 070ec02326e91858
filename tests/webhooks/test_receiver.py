"""What a receiver accepts, in which order it checks, and what it reports."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import cycles
from cycles.webhooks import DEFAULT_MAX_AGE_MS

SECRET = "whsec_current"
NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
EVENT = {
    "event_id": "evt_1",
    "event_type": "budget.exhausted",
    "category": "budget",
    "timestamp": "2026-04-01T12:00:00.123456789Z",
    "tenant_id": "acme",
    "source": "cycles-server",
}


def delivery(secret: str = SECRET, headers: dict[str, str] | None = None, **members: Any) -> dict[str, Any]:
    body = json.dumps({name: value for name, value in {**EVENT, **members}.items() if value is not ...}).encode()
    return {"body": body, "headers": {"X-Cycles-Signature": cycles.sign_webhook(body, secret), **(headers or {})}}


def test_all_members_of_an_event_are_readable() -> None:
    event = cycles.WebhookReceiver(SECRET).receive(
        **delivery(
            scope="tenant:acme",
            actor={"type": "api_key", "key_id": "k"},
            data={"unit": "TOKENS", "spent": 10, "remaining": -3, "share": 0.5, "flag": True, "none": None},
            correlation_id="c",
            request_id="r",
            trace_id="0af7651916cd43dd8448eb211c80319c",
            metadata={"note": "x"},
            surprise=[1],
        )
    )
    assert (event.id, event.type, event.category, event.tenant_id) == ("evt_1", "budget.exhausted", "budget", "acme")
    assert event.timestamp == datetime(2026, 4, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert (event.source, event.scope, event.correlation_id, event.request_id) == (
        "cycles-server",
        "tenant:acme",
        "c",
        "r",
    )
    assert event.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (event.actor, event.metadata) == ({"type": "api_key", "key_id": "k"}, {"note": "x"})
    assert event.extra == {"surprise": [1]}
    assert event.amount("spent") == cycles.tokens(10)
    assert event.amount("remaining") == cycles.SignedAmount("TOKENS", -3)
    assert [event.amount(name) for name in ("share", "flag", "none", "missing", "unit")] == [None] * 5
    assert not event.is_test


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, cycles.Amount),
        (2**63 - 1, cycles.Amount),
        (-1, cycles.SignedAmount),
        (-(2**63), cycles.SignedAmount),
        (2**63, None),
        (-(2**63) - 1, None),
    ],
)
@pytest.mark.parametrize("unit", ["TOKENS", "USD_MICROCENTS"])
def test_an_integer_of_64_bits_is_an_amount(value: int, kind: type | None, unit: str) -> None:
    event = cycles.WebhookReceiver(SECRET).receive(**delivery(data={"unit": unit, "n": value}))
    found = event.amount("n")
    assert type(found) is (kind or type(None))
    assert found == (kind and kind(unit, value))


@pytest.mark.parametrize("unit", [None, "", 5, ...])
def test_an_integer_without_a_unit_is_no_amount(unit: Any) -> None:
    data = {"n": 1} if unit is ... else {"n": 1, "unit": unit}
    assert cycles.WebhookReceiver(SECRET).receive(**delivery(data=data)).amount("n") is None


def test_members_that_are_absent_or_null_are_none_and_data_is_empty() -> None:
    event = cycles.WebhookReceiver(SECRET).receive(**delivery(data=None, scope=None))
    assert (event.data, event.scope, event.actor, event.metadata, event.trace_id) == ({}, None, None, None, None)
    assert event.amount("spent") is None


def test_a_test_delivery_says_so() -> None:
    event = cycles.WebhookReceiver(SECRET).receive(**delivery(event_type="system.webhook_test"))
    assert event.is_test


def test_an_event_cannot_be_changed_and_can_be_copied_and_stored_in_a_set() -> None:
    event = cycles.WebhookReceiver(SECRET).receive(**delivery(data={"a": 1}, actor={"type": "admin"}))
    with pytest.raises(AttributeError):
        event.id = "other"  # type: ignore[misc]
    assert copy.deepcopy(event) == event
    assert pickle.loads(pickle.dumps(event)) == event
    assert len({event, event}) == 1


@pytest.mark.parametrize("name", ["event_id", "event_type", "category", "timestamp", "tenant_id", "source"])
@pytest.mark.parametrize("value", [..., None, 5, "", ["x"]], ids=["missing", "null", "number", "empty", "list"])
def test_a_required_member_that_is_wrong_is_named(name: str, value: Any) -> None:
    with pytest.raises(cycles.WebhookPayloadError, match=f"'{name}'") as caught:
        cycles.WebhookReceiver(SECRET).receive(**delivery(**{name: value}))
    assert caught.value.status == 400


def test_an_optional_text_that_is_empty_counts_as_absent() -> None:
    names = ("scope", "correlation_id", "request_id", "trace_id")
    empty: dict[str, Any] = dict.fromkeys(names, "")
    event = cycles.WebhookReceiver(SECRET).receive(**delivery(**empty))
    assert [getattr(event, name) for name in names] == [None] * 4
    assert event.raw["scope"] == ""


@pytest.mark.parametrize(
    ("name", "value"), [("data", []), ("data", ""), ("actor", "x"), ("metadata", 1), ("scope", {}), ("trace_id", 1)]
)
def test_a_known_member_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(cycles.WebhookPayloadError, match=f"'{name}'"):
        cycles.WebhookReceiver(SECRET).receive(**delivery(**{name: value}))


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-01",
        "2026-04-01T12:00:00",
        "2026-04-01T12:00Z",
        "2026-13-01T12:00:00Z",
        "1700000000",
        "2026-W14-3T12:00:00Z",
    ],
)
def test_a_timestamp_that_is_no_instant_is_rejected(text: str) -> None:
    with pytest.raises(cycles.WebhookPayloadError, match="'timestamp'"):
        cycles.WebhookReceiver(SECRET).receive(**delivery(timestamp=text))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"5", b"{", b'{"a":NaN}', b'{"a":1,"a":1}', b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a":' * 100_000],
    ids=repr,
)
def test_a_signed_body_that_is_no_strict_json_object_is_rejected(body: bytes) -> None:
    with pytest.raises(cycles.WebhookPayloadError):
        cycles.WebhookReceiver(SECRET).receive(
            body=body, headers={"X-Cycles-Signature": cycles.sign_webhook(body, SECRET)}
        )


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "Infinity"),
        ('{"a": 1, "a": 1}', "twice"),
        ("1" * 5000, "JSON"),
        ("[" * 99_999, "deep"),
        ("-1e999", "too large"),
    ],
    ids=["NaN", "Infinity", "doubled", "digits", "deep", "overflow"],
)
def test_a_complete_event_with_a_value_that_is_not_strict_json_is_rejected(written: str, problem: str) -> None:
    body = json.dumps({**EVENT, "data": {"value": 1}}).replace('"value": 1', f'"value": {written}').encode()
    with pytest.raises(cycles.WebhookPayloadError, match=problem):
        cycles.WebhookReceiver(SECRET).receive(
            body=body, headers={"X-Cycles-Signature": cycles.sign_webhook(body, SECRET)}
        )


class Spy(cycles.SeenEvents):
    looked_up = 0

    def __contains__(self, event_id: object) -> bool:
        Spy.looked_up += 1
        return super().__contains__(event_id)


def test_each_check_comes_before_the_next() -> None:
    """A delivery with every fault fails with the first one; each fault that is repaired shows the next."""
    seen = Spy()
    receiver = cycles.WebhookReceiver(SECRET, max_age_ms=1000, max_body_bytes=400, seen=seen)

    def error(**call: Any) -> cycles.WebhookError:
        with pytest.raises(cycles.WebhookError) as caught:
            receiver.receive(now=NOW + timedelta(days=1), **call)
        return caught.value

    late = {"headers": {"X-Cycles-Event-Id": "other"}, "timestamp": None}
    assert "too large" in str(error(body=b"{" * 401, headers={}))
    assert type(error(body=b"{" * 400, headers={})) is cycles.WebhookSignatureError
    assert "not JSON" in str(error(body=b"{", headers={"X-Cycles-Signature": cycles.sign_webhook(b"{", SECRET)}))
    assert "'timestamp'" in str(error(**delivery(**late)))  # type: ignore[arg-type]
    assert "X-Cycles-Event-Id" in str(error(**delivery(headers={"X-Cycles-Event-Id": "other"})))
    assert type(error(**delivery())) is cycles.WebhookReplayError
    assert Spy.looked_up == 0
    receiver.receive(now=NOW, **delivery())
    assert Spy.looked_up == 1


def test_every_failure_of_the_signature_has_the_same_message_and_shows_no_secret() -> None:
    receiver = cycles.WebhookReceiver(["whsec_hidden", "whsec_old"])
    good = delivery("whsec_hidden")
    value = good["headers"]["X-Cycles-Signature"]
    wrong: list[Any] = [
        {},
        {"X-Cycles-Signature": ""},
        {"X-Cycles-Signature": value.upper()},
        {"X-Cycles-Signature": value[7:]},
        {"X-Cycles-Signature": value + "\n"},
        {"X-Cycles-Signature": f"{value}, {value}"},
        {"X-Cycles-Signature": None},
        {"X-Cycles-Signature": [value]},
        {"X-Cycles-Signature": "sha256=" + "é" * 64},
        {"X-Cycles-Signature": cycles.sign_webhook(good["body"], "other")},
        {"X-Cycles-Signature": value, "x-cycles-signature": value},
        [("X-Cycles-Signature", value), ("x-cycles-signature", value)],
        [(b"x-cycles-signature", value.encode()), (b"x-cycles-signature", b"sha256=" + b"0" * 64)],
    ]
    messages = set()
    for headers in wrong:
        with pytest.raises(cycles.WebhookSignatureError) as caught:
            receiver.receive(body=good["body"], headers=headers)
        messages.add(str(caught.value))
        assert caught.value.status == 401
    assert len(messages) == 1
    for text in (*messages, repr(receiver), str(receiver)):
        assert "hidden" not in text
    assert repr(receiver) == "<WebhookReceiver with 2 secrets>"


def test_signatures_are_compared_in_constant_time_with_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of the standard library is used for each secret, whether or not the first one matches."""
    compared: list[bytes] = []

    def compare(expected: bytes, given: bytes) -> bool:
        compared.append(expected)
        return expected == given

    monkeypatch.setattr("hmac.compare_digest", compare)
    body = b"{}"
    for secret in ("one", "two", "three"):
        compared.clear()
        cycles.verify_webhook(body, cycles.sign_webhook(body, secret), ["one", "two", "three"])
        assert [value.decode() for value in compared] == [
            cycles.sign_webhook(body, each) for each in ("one", "two", "three")
        ]


@pytest.mark.parametrize("secrets", [[], "", ["ok", ""], None, [b"bytes"], [5], 5, b"bytes", {"a": 1}, ["\ud800"]])
def test_a_secret_that_anyone_could_sign_with_is_a_configuration_error(secrets: Any) -> None:
    with pytest.raises(cycles.ConfigurationError, match="secrets"):
        cycles.WebhookReceiver(secrets)
    with pytest.raises(cycles.ConfigurationError, match="secrets"):
        cycles.verify_webhook(b"{}", "sha256=" + "0" * 64, secrets)


def test_a_secret_may_contain_any_character() -> None:
    secret = "one,two three;\u00e9"
    body = b"{}"
    cycles.verify_webhook(body, cycles.sign_webhook(body, secret), secret)
    for part in ("one", "two three;\u00e9"):
        with pytest.raises(cycles.WebhookSignatureError):
            cycles.verify_webhook(body, cycles.sign_webhook(body, part), secret)


def test_the_error_of_a_secret_that_cannot_be_encoded_does_not_show_it() -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.WebhookReceiver(["whsec_hidden\ud800"])
    assert caught.value.__suppress_context__  # the error before it has the secret
    assert "hidden" not in str(caught.value)


def test_headers_in_pairs_of_bytes_are_compared_too() -> None:
    good = delivery()
    signature = (b"x-cycles-signature", good["headers"]["X-Cycles-Signature"].encode())
    receiver = cycles.WebhookReceiver(SECRET)
    own = [(b"x-cycles-event-id", b"evt_1"), (b"X-Cycles-Event-Type", b"budget.exhausted")]
    assert receiver.receive(body=good["body"], headers=[signature, *own]).id == "evt_1"
    assert receiver.receive(body=good["body"], headers=dict([signature, *own])).id == "evt_1"  # type: ignore[arg-type]
    for name, _ in own:
        with pytest.raises(cycles.WebhookPayloadError):
            receiver.receive(body=good["body"], headers=[signature, (name, b"other")])


def test_wrong_arguments_are_named() -> None:
    receiver = cycles.WebhookReceiver(SECRET, max_age_ms=DEFAULT_MAX_AGE_MS)
    good = delivery()
    for call, name in (
        ({**good, "body": good["body"].decode()}, "body"),
        ({**good, "headers": None}, "headers"),
        ({**good, "headers": "X-Cycles-Signature: 1"}, "headers"),
        ({**good, "headers": [5]}, "headers"),
        ({**good, "now": datetime(2026, 4, 1)}, "now"),  # noqa: DTZ001 - that is the point
        ({**good, "now": 5}, "now"),
    ):
        with pytest.raises(cycles.InvalidRequestError, match=name):
            receiver.receive(**call)
    longest = 100 * 365 * 86_400_000
    cycles.SeenEvents(ttl_ms=longest)
    cycles.WebhookReceiver(SECRET, max_age_ms=longest, max_body_bytes=1)
    with pytest.raises(cycles.ConfigurationError, match="max_age_ms"):
        cycles.WebhookReceiver(SECRET, max_age_ms=longest + 1)
    for name in ("max_age_ms", "max_body_bytes"):
        for value in (0, -1, 1.5, True, "5", *([10**30] if name == "max_age_ms" else [])):
            wrong: dict[str, Any] = {name: value}
            with pytest.raises(cycles.ConfigurationError, match=name):
                cycles.WebhookReceiver(SECRET, **wrong)
    with pytest.raises(cycles.ConfigurationError, match="ttl_ms"):
        cycles.SeenEvents(ttl_ms=10**30)
    with pytest.raises(cycles.ConfigurationError, match="seen"):
        cycles.WebhookReceiver(SECRET, seen=5)  # type: ignore[arg-type]
    with pytest.raises(cycles.ConfigurationError):
        cycles.sign_webhook(b"{}", ["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(cycles.InvalidRequestError, match="body"):
        cycles.sign_webhook("{}", SECRET)  # type: ignore[arg-type]


def test_the_age_of_an_event_is_limited_only_if_the_receiver_says_so() -> None:
    old = delivery(timestamp="2020-01-01T00:00:00Z")
    assert cycles.WebhookReceiver(SECRET).receive(**old).timestamp.year == 2020
    clock = [NOW]
    receiver = cycles.WebhookReceiver(SECRET, max_age_ms=60_000, now=lambda: clock[0])
    event = delivery(timestamp="2026-04-01T12:00:00Z")
    for offset, accepted in ((60_000, True), (60_001, False), (-300_000, True), (-300_001, False)):
        clock[0] = NOW + timedelta(milliseconds=offset)
        if accepted:
            receiver.receive(**event)
        else:
            with pytest.raises(cycles.WebhookReplayError) as caught:
                receiver.receive(**event)
            assert caught.value.status == 400
            assert "2026-04-01T12:00:00+00:00" in str(caught.value)
    # The clocks differ by 5 minutes at most, also if an event may be much older.
    clock[0] = NOW - timedelta(milliseconds=300_001)
    for max_age_ms in (1, DEFAULT_MAX_AGE_MS, 100 * 365 * 86_400_000):
        with pytest.raises(cycles.WebhookReplayError, match="in the future"):
            cycles.WebhookReceiver(SECRET, max_age_ms=max_age_ms, now=lambda: clock[0]).receive(**event)
    # The zone of the timestamp counts.
    clock[0] = NOW
    receiver.receive(**delivery(timestamp="2026-04-01T14:00:00+02:00"))


def test_an_event_is_a_duplicate_once_it_is_done() -> None:
    seen = cycles.SeenEvents()
    receiver = cycles.WebhookReceiver(SECRET, seen=seen)
    first = receiver.receive(**delivery())
    assert not first.is_duplicate
    assert not receiver.receive(**delivery()).is_duplicate  # looking alone marks nothing
    receiver.done(first)
    assert receiver.receive(**delivery()).is_duplicate
    assert not receiver.receive(**delivery(event_id="evt_2")).is_duplicate
    cycles.WebhookReceiver(SECRET).done(first)  # without a store there is nothing to mark


def test_an_event_that_is_done_again_is_kept_from_then_on() -> None:
    clock = [NOW]
    seen = cycles.SeenEvents(ttl_ms=1000, now=lambda: clock[0])
    receiver = cycles.WebhookReceiver(SECRET, seen=seen)
    receiver.done(receiver.receive(**delivery()))
    clock[0] += timedelta(milliseconds=600)
    receiver.done(receiver.receive(**delivery()))
    clock[0] += timedelta(milliseconds=600)
    assert receiver.receive(**delivery()).is_duplicate


def test_a_store_that_counts_as_empty_is_asked_too() -> None:
    seen = cycles.SeenEvents()
    receiver = cycles.WebhookReceiver(SECRET, seen=seen)
    assert len(seen) == 0
    receiver.done(receiver.receive(**delivery()))
    assert ("evt_1" in seen, len(seen)) == (True, 1)


def test_a_set_serves_as_the_store_of_seen_events() -> None:
    seen: set[str] = set()
    receiver = cycles.WebhookReceiver(SECRET, seen=seen)
    receiver.done(receiver.receive(**delivery()))
    assert seen == {"evt_1"}
    assert receiver.receive(**delivery()).is_duplicate


def test_seen_events_end_after_their_time_and_the_oldest_is_dropped_first() -> None:
    clock = [NOW]
    seen = cycles.SeenEvents(max_entries=2, ttl_ms=1000, now=lambda: clock[0])
    seen.add("a")
    clock[0] += timedelta(milliseconds=999)
    assert "a" in seen
    clock[0] += timedelta(milliseconds=1)
    assert "a" not in seen
    seen.add("a")
    seen.add("b")
    seen.add("a")  # once more: now "b" is the oldest
    seen.add("c")
    assert ("a" in seen, "b" in seen, "c" in seen) == (True, False, True)
    assert len(seen) == 2


def test_header_objects_of_other_kinds_are_read() -> None:
    from email.message import Message

    import httpx

    good = delivery()
    value = good["headers"]["X-Cycles-Signature"]
    message = Message()
    message["x-cycles-signature"] = value
    receiver = cycles.WebhookReceiver(SECRET)
    for headers in (httpx.Headers(good["headers"]), message, iter(good["headers"].items())):
        assert receiver.receive(body=good["body"], headers=headers).id == "evt_1"
    message["X-Cycles-Signature"] = value
    for doubled in (message, httpx.Headers([("X-Cycles-Signature", value)] * 2)):
        with pytest.raises(cycles.WebhookSignatureError):
            receiver.receive(body=good["body"], headers=doubled)


@pytest.mark.parametrize("name", ["X-Cycles-Event-Id", "X-Cycles-Event-Type"])
def test_each_of_two_headers_must_fit_the_signed_body(name: str) -> None:
    good = delivery()
    pairs = list(good["headers"].items())
    receiver = cycles.WebhookReceiver(SECRET)
    event = receiver.receive(body=good["body"], headers=pairs)
    own = (name, event.id if name.endswith("Id") else event.type)
    assert receiver.receive(body=good["body"], headers=[*pairs, own, own]) == event
    for doubled in ([own, (name, "other")], [(name, "other"), own]):
        with pytest.raises(cycles.WebhookPayloadError, match=name):
            receiver.receive(body=good["body"], headers=[*pairs, *doubled])


def test_bodies_may_be_any_bytes_and_errors_can_be_pickled() -> None:
    good = delivery()
    receiver = cycles.WebhookReceiver(SECRET)
    for body in (bytearray(good["body"]), memoryview(good["body"])):
        assert receiver.receive(body=body, headers=good["headers"]).id == "evt_1"  # type: ignore[arg-type]
    with pytest.raises(cycles.WebhookSignatureError) as caught:
        receiver.receive(body=b"{}", headers=good["headers"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.status) == (cycles.WebhookSignatureError, str(caught.value), 401)
    assert isinstance(again, cycles.CyclesError)


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        cycles.WebhookReceiver(SECRET).receive(**delivery())
    assert not [record for record in caplog.records if re.match("cycles", record.name)]
