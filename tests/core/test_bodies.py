"""The bodies of a commit and of the event that replaces it."""

from __future__ import annotations

import json

import pytest

import cycles
from cycles._core.settlement.settlement import commit_body, event_body
from cycles_client import protocol

SUBJECT_AND_ACTION = {"subject": {"tenant": "acme"}, "action": {"kind": "llm.completion", "name": "small-model"}}
COMMIT = commit_body("k1", cycles.tokens(5), {"tokens_input": 3}, {"label": "x"})


def test_an_event_has_the_key_amount_metrics_and_metadata_of_the_commit() -> None:
    assert event_body(COMMIT, SUBJECT_AND_ACTION, None) == {
        "idempotency_key": "k1",
        "actual": {"unit": "TOKENS", "amount": 5},
        "metrics": {"tokens_input": 3},
        "metadata": {"label": "x"},
        "subject": {"tenant": "acme"},
        "action": {"kind": "llm.completion", "name": "small-model"},
    }


def test_an_event_after_expiry_says_so_in_its_metadata() -> None:
    assert event_body(COMMIT, SUBJECT_AND_ACTION, "r1")["metadata"] == {
        "label": "x",
        "recovered_reservation_id": "r1",
        "recovery_reason": "commit_after_reservation_expired",
    }


def test_a_member_that_a_later_commit_has_does_not_reach_the_event() -> None:
    later = {**COMMIT, "tool_receipt": "of a later version"}
    body = event_body(later, SUBJECT_AND_ACTION, "r1")
    assert "tool_receipt" not in json.dumps(body)
    assert set(body) <= set(protocol.SCHEMAS["EventCreateRequest"]["properties"])


@pytest.mark.parametrize("reservation_id", [None, "r1"])
def test_an_event_without_metrics_and_metadata_has_neither_as_null(reservation_id: str | None) -> None:
    body = event_body(commit_body("k1", cycles.tokens(5), None, None), SUBJECT_AND_ACTION, reservation_id)
    assert "metrics" not in body
    assert ("metadata" in body) == (reservation_id is not None)
