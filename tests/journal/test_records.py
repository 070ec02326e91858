"""The journal's record: its bytes, what is rejected, and how files and directories are named."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from attrs import evolve, fields_dict
from hypothesis import HealthCheck, example, given, settings, strategies as st

import cycles
from cycles._core.settlement.record import (
    MAX_DEFERRED_MS,
    Made,
    Record,
    RecordError,
    decode,
    encode,
    event_record_id,
    file_name,
    partition,
)
from tests.support.short import fewer

KNOWN = {
    "version": 1,
    "reservation_id": "rsv_1",
    "base_url": "http://localhost",
    "mode": "commit",
    "commit_body": {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 5}},
    "event_fallback_body": {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 5}},
    "recorded_at_ms": 1_700_000_000_000,
    "not_before_ms": None,
}

MEMBERS = {*KNOWN, *fields_dict(Record)}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OWED = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 5}}
bodies = st.dictionaries(st.text(), json_values, max_size=4).map(lambda more: {**more, **OWED})
times = st.integers(min_value=0, max_value=2**63 - 1)
ids = st.text(min_size=1).filter(lambda text: text not in (".", ".."))
records = st.builds(
    Record,
    reservation_id=ids,
    base_url=st.text(),
    mode=st.sampled_from(["commit", "event"]),
    commit_body=bodies,
    event_fallback_body=bodies,
    recorded_at_ms=times,
    not_before_ms=st.none() | times,
    attempt_unknown=st.booleans(),
    event_since_ms=st.none() | times,
    estimate=st.none() | times,
    excess=st.sampled_from([None, {}, {"amount": 0, "code": None}]),
    previous_body=st.sampled_from([None, {}, OWED]),
    rejected=st.sampled_from([None, "BUDGET_EXCEEDED"]),
    sent=st.booleans(),
    settled=st.none() | times,
    extra=st.dictionaries(st.text().filter(lambda name: name not in MEMBERS), json_values, max_size=2),
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # machines of CI may be busy
@given(records)
@example(Record(reservation_id="r", base_url="", commit_body=OWED, event_since_ms=0, estimate=0, settled=0))
def test_every_record_is_read_back_unchanged(record: Record) -> None:
    assert decode(encode(record)) == record


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_record_raise_a_record_error(raw: bytes) -> None:
    with pytest.raises(RecordError):
        decode(raw)


@given(
    st.sampled_from(sorted(KNOWN)),
    json_values.filter(lambda value: not isinstance(value, dict | str | int | None)),
)
def test_a_member_of_the_wrong_type_is_rejected(member: str, value: Any) -> None:
    with pytest.raises(RecordError):
        decode(json.dumps({**KNOWN, member: value}).encode())


@pytest.mark.parametrize("actual", [5, {"unit": "TOKENS"}, {"unit": 1, "amount": 5}])
def test_an_amount_that_cannot_be_read_is_shown_as_zero(actual: Any) -> None:
    body = {"idempotency_key": "k", "actual": actual}
    record = decode(json.dumps({**KNOWN, "mode": "event", "commit_body": body}).encode())
    assert record.actual == cycles.tokens(0)


def test_the_members_have_the_names_of_the_sibling_sdks() -> None:
    record = decode(json.dumps(KNOWN).encode())
    written = json.loads(encode(record))
    assert list(written) == ["check", *KNOWN]
    assert {name: value for name, value in written.items() if name != "check"} == KNOWN


def test_the_check_is_a_digest_that_any_language_can_calculate() -> None:
    """Compact JSON of the other members in UTF-8, sorted keys, not ASCII only."""
    raw = encode(
        Record(reservation_id="r\u00e9", base_url="", commit_body=OWED | {"metadata": {"b": 1.5, "a": "\u20ac"}})
    )
    members = json.loads(raw)
    check = members.pop("check")
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert check == hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    assert b"\\u20ac" in raw  # the file itself is ASCII
    assert decode(json.dumps(json.loads(raw), indent=2, ensure_ascii=False).encode()) == decode(raw)


@settings(max_examples=fewer(300))
@given(st.data())
def test_a_record_with_a_flipped_bit_is_rejected_or_unchanged(data: st.DataObject) -> None:
    raw = encode(decode(json.dumps(KNOWN).encode()))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        found = decode(bytes(flipped))
    except RecordError:
        return
    # The name of the check itself is hit: then the record is one without a check.
    assert (found.commit_body, found.event_fallback_body) == (KNOWN["commit_body"], KNOWN["event_fallback_body"])
    assert b'"check":' not in flipped


@pytest.mark.parametrize("check", ["0" * 16, "", None, 5, {}])
def test_a_wrong_check_is_rejected(check: object) -> None:
    with pytest.raises(RecordError, match="bytes were changed"):
        decode(json.dumps({"check": check, **KNOWN}).encode())


def test_a_check_that_an_older_version_has_moved_is_dropped() -> None:
    """It keeps members that it does not know, writes them last, and does not calculate the check again."""
    record = decode(json.dumps({**KNOWN, "check": "0" * 16}).encode())
    assert record.extra == {}
    assert next(iter(json.loads(encode(record)))) == "check"
    assert decode(encode(record)) == record


def test_a_record_of_a_sibling_sdk_is_read() -> None:
    # The shape that runcycles 0.5.3 leaves behind: spaces after separators, its own order, floats in metadata.
    raw = json.dumps({**KNOWN, "mode": "event", "commit_body": None, "not_before_ms": 1_700_000_060_000})
    record = decode(raw.encode())
    assert (record.mode, record.not_before_ms) == ("event", 1_700_000_060_000)


def test_the_least_a_writer_may_leave() -> None:
    record = decode(json.dumps({"version": 1, "reservation_id": "r", "commit_body": OWED}).encode())
    assert record == Record(reservation_id="r", base_url="", commit_body=OWED)


def test_what_a_record_keeps_when_its_attempt_was_interrupted_or_it_becomes_an_event() -> None:
    made = Record(reservation_id="r", base_url="", commit_body=OWED, not_before_ms=5, made=Made(7.0))
    assert made.interrupted().made == Made(7.0, is_interrupted=True)
    assert made.interrupted().age_ms(0, 10.0) == 3.0
    event = made.interrupted().to_event_mode(1_000, 9.0)
    assert (event.not_before_ms, event.event_since_ms, event.made) == (None, 1_000, Made(9.0))


def test_members_of_a_newer_writer_are_kept() -> None:
    record = decode(json.dumps({**KNOWN, "trace": {"id": 7}}).encode())
    assert json.loads(encode(record.to_event_mode()))["trace"] == {"id": 7}
    later = evolve(record, extra={"trace": {"id": 8}})
    assert later.with_extra_of(evolve(record, extra={"trace": {"id": 7}, "more": 1})).extra == {
        "trace": {"id": 8},
        "more": 1,
    }


@pytest.mark.parametrize("version", [None, 0, 2, True, 1.0, "1"])
def test_an_unknown_version_is_rejected_and_named(version: object) -> None:
    with pytest.raises(RecordError, match="version"):
        decode(json.dumps({**KNOWN, "version": version}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"reservation_id": ""},
        {"reservation_id": None},
        {"reservation_id": ".."},
        {"reservation_id": "\ud800"},
        {"mode": "release"},
        {"commit_body": None},
        {"commit_body": {"actual": OWED["actual"]}},
        {"commit_body": {**OWED, "idempotency_key": ""}},
        {"commit_body": {"idempotency_key": "k"}},
        {"commit_body": {**OWED, "actual": 5}},
        {"commit_body": {**OWED, "actual": {"unit": "TOKENS", "amount": -5}}},
        {"commit_body": {**OWED, "actual": {"unit": "TOKENS", "amount": True}}},
        {"mode": "event", "event_fallback_body": None},
        {"recorded_at_ms": -1},
        {"not_before_ms": True},
        {"base_url": None},
    ],
)
def test_a_record_that_could_not_be_settled_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        decode(json.dumps({**KNOWN, **change}).encode())


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_rejected(number: str) -> None:
    with pytest.raises(RecordError, match=number):
        decode(json.dumps({**KNOWN, "extra": "?"}).replace('"?"', number).encode())


def test_nesting_beyond_the_interpreters_depth_is_rejected() -> None:
    with pytest.raises(RecordError):
        decode(b'{"a":' + b"[" * 200_000)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"raw", object()])
def test_a_record_that_json_cannot_express_is_rejected_on_writing(value: object) -> None:
    with pytest.raises(RecordError, match="rsv_1"):
        encode(Record(reservation_id="rsv_1", base_url="", commit_body={"metadata": value}))


def test_event_mode_sends_the_event_next() -> None:
    record = decode(json.dumps({**KNOWN, "not_before_ms": 5}).encode()).to_event_mode()
    assert (record.mode, record.not_before_ms, record.commit_body) == ("event", None, KNOWN["commit_body"])


def test_a_throttled_record_waits_for_the_retry_after_up_to_a_limit() -> None:
    record = decode(json.dumps(KNOWN).encode())
    assert record.wait_ms(now_ms=0) == 0
    serialized = record.deferred_until(5_000, now_ms=2_000)
    assert (serialized.wait_ms(now_ms=2_000), serialized.wait_ms(now_ms=9_000)) == (3_000, 0)
    assert record.deferred_until(10**15, now_ms=2_000).not_before_ms == 2_000 + MAX_DEFERRED_MS
    # A floor that a broken clock wrote does not defer spend for days either.
    assert decode(json.dumps({**KNOWN, "not_before_ms": 10**15}).encode()).wait_ms(now_ms=0) == MAX_DEFERRED_MS


@given(ids)
def test_the_name_is_the_hash_of_the_exact_id(reservation_id: str) -> None:
    assert file_name(reservation_id) == f"v2-{hashlib.sha256(reservation_id.encode()).hexdigest()}.json"


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/b", "a_b"), ("A", "a"), ("é", "e\u0301"), ("x" * 300, "x" * 301), ("event:k", "event_k"), ("a", "a ")],
)
def test_ids_that_a_naive_name_would_confuse_have_distinct_names(one: str, other: str) -> None:
    assert file_name(one) != file_name(other)


def test_an_id_without_a_utf8_form_still_has_a_name() -> None:
    assert file_name("\ud800") != file_name("\ud801")


def test_an_event_without_a_reservation_is_named_by_its_key() -> None:
    assert event_record_id("k1") == "event:k1"


def test_the_partition_has_the_published_values() -> None:
    assert partition("http://localhost", "acme", "test-key") == "8baba538fb970da4"
    assert partition("http://localhost", None, "test-key") == "68c905017df7dbfc"
    assert partition("http://localhost", " ", "test-key") == "68c905017df7dbfc"


def test_the_partition_survives_a_new_key_of_the_same_tenant_only() -> None:
    assert partition("http://localhost", "acme", "old") == partition("http://localhost", "acme", "new")
    assert partition("http://localhost", None, "old") != partition("http://localhost", None, "new")
    assert partition("http://localhost", "acme", "k") != partition("http://localhost/", "acme", "k")
