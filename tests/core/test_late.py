"""What is left of a chunk that two clients of a fleet settle: no amount is charged twice, and none is lost."""

from __future__ import annotations

from typing import Any

import pytest

from cycles._core.settlement.late import guards_of, late, late_key, late_record, sum_of, unsaved
from cycles._core.settlement.record import Record


def chunk(amount: int, key: str = "k", **members: Any) -> Record:
    """Return the record of a chunk whose guards have spent an amount."""
    body = {
        "idempotency_key": key,
        "actual": {"unit": "TOKENS", "amount": amount},
        "metrics": {"tokens_input": 9},
        "metadata": {"pool_chunk": "r", "pool_calls": 4},
    }
    event = {**body, "subject": {"tenant": "acme"}}
    fields: dict[str, Any] = {"commit_body": {**body, "note": 1}, "event_fallback_body": event}
    return Record(**{"reservation_id": "r", "base_url": "http://x", **fields, **members})


@pytest.mark.parametrize(
    ("key", "mode", "total"),
    [
        ("k", "commit", 5),
        ("7", "commit", 5),  # digits, and no mark
        ("k:late:7", "event", 12),
        ("k:late:0", "event", 5),
        ("k:late:3:late:7", "event", 12),
        ("k:late:", "event", 5),  # a key of the user's
        ("k:late:x", "event", 5),
    ],
)
def test_the_sum_up_to_which_a_record_settles_its_chunk(key: str, mode: str, total: int) -> None:
    assert sum_of(chunk(5, key, mode=mode)) == total
    assert sum_of(chunk(5, key, mode=mode, settled=3)) == 3


@pytest.mark.parametrize(
    ("key", "later"),
    [("k", "k:late:9"), ("k:late:3", "k:late:9"), ("k:late:x", "k:late:x:late:9"), ("7", "7:late:9")],
)
def test_the_key_of_the_rest_names_the_sum_from_which_it_counts(key: str, later: str) -> None:
    assert late_key(key, 9) == later


@pytest.mark.parametrize(("committed", "rest"), [(0, 5), (3, 2), (4, 1), (5, None), (6, None)])
def test_only_what_is_left_is_charged(committed: int, rest: int | None) -> None:
    event = late(chunk(5), committed, 1_000)
    if rest is None:
        assert event is None
        assert late_record(chunk(5), committed, 1_000) is None
        return
    assert event is not None
    assert (event.mode, event.event_since_ms, event.actual.amount) == ("event", 1_000, rest)
    assert event.body["idempotency_key"] == f"k:late:{committed}"
    separate = late_record(chunk(5), committed, 1_000)
    assert separate is not None
    assert (separate.reservation_id, separate.commit_body) == (f"event:k:late:{committed}", None)
    assert (separate.body, guards_of(separate)) == (event.body, 4)


def test_the_counts_of_a_chunk_are_sent_once() -> None:
    event = late(chunk(5), 3, 1_000)
    assert event is not None
    assert event.event_fallback_body == {
        "idempotency_key": "k:late:3",
        "actual": {"unit": "TOKENS", "amount": 2},
        "metadata": {"pool_chunk": "r", "pool_calls": 4},
        "subject": {"tenant": "acme"},
    }
    assert event.commit_body is not None
    assert event.commit_body == {**event.commit_body, "note": 1, "metrics": {"tokens_input": 9}}
    assert event.commit_body["actual"] == {"unit": "TOKENS", "amount": 2}


@pytest.mark.parametrize("part", ["commit_body", "event_fallback_body"])
def test_a_record_with_one_body_is_that_of_a_chunk_too(part: str) -> None:
    without: dict[str, Any] = {part: None}
    assert guards_of(chunk(5, **without)) == 4
    event = late(chunk(5, mode="event", commit_body=None), 3, 1_000)
    assert event is not None
    assert event.commit_body == {"idempotency_key": "k:late:3", "actual": {"unit": "TOKENS", "amount": 2}}


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"pool_calls": 4}, {"pool_chunk": "r"}, {"pool_chunk": "r", "pool_calls": True}, ["pool_chunk"]],
)
def test_other_records_have_no_guards(metadata: Any) -> None:
    body = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 5}, "metadata": metadata}
    assert guards_of(chunk(5, commit_body=body, event_fallback_body=dict(body))) is None


@pytest.mark.parametrize("is_unknown", [True, False])
def test_a_commit_with_a_later_sum_may_have_arrived_if_that_of_its_file_may(is_unknown: bool) -> None:
    more = {"metadata": {"pool_chunk": "r", "pool_calls": 5}}
    later = chunk(7, commit_body={"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 7}, **more})
    rest = unsaved(later, chunk(5, attempt_unknown=is_unknown))
    assert rest is not None
    assert (rest.mode, rest.actual.amount, rest.attempt_unknown) == ("commit", 7, is_unknown)
    assert unsaved(later, later) is None
