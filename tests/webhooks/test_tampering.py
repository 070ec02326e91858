"""A byte that is changed anywhere in a signed body is noticed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

import cycles
from tests.support.short import some

# Drawn as printable, not filtered: one of two texts has a character that is not, and Hypothesis then may find too few.
SECRETS = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1)
BODY = json.dumps(
    {
        "event_id": "evt_1",
        "event_type": "budget.exhausted",
        "category": "budget",
        "timestamp": "2026-04-01T12:00:00Z",
        "tenant_id": "acme",
        "source": "cycles-server",
        "data": {"unit": "TOKENS", "spent": 10},
    }
).encode()


@pytest.mark.parametrize("place", some(range(len(BODY))))
def test_a_changed_byte_at_any_place_fails(place: int) -> None:
    signature = cycles.sign_webhook(BODY, "s")
    for bit in range(8):
        changed = bytearray(BODY)
        changed[place] ^= 1 << bit
        with pytest.raises(cycles.WebhookSignatureError):
            cycles.WebhookReceiver("s").receive(body=bytes(changed), headers={"X-Cycles-Signature": signature})


@given(body=st.binary(max_size=200), secret=SECRETS, other=SECRETS)
def test_what_is_signed_verifies_with_its_secret_only(body: bytes, secret: str, other: str) -> None:
    signature = cycles.sign_webhook(body, secret)
    cycles.verify_webhook(body, signature, [other, secret])
    if other != secret and other.encode().rstrip(b"\0") != secret.encode().rstrip(b"\0"):
        with pytest.raises(cycles.WebhookSignatureError):
            cycles.verify_webhook(body, signature, [other])


@given(place=st.integers(0, 70), character=st.characters())
def test_a_changed_signature_fails(place: int, character: str) -> None:
    signature = cycles.sign_webhook(BODY, "s")
    changed = signature[:place] + character + signature[place + 1 :]
    if changed != signature:
        with pytest.raises(cycles.WebhookSignatureError):
            cycles.verify_webhook(BODY, changed, "s")


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_any_signed_object_is_an_event_or_a_payload_error(members: dict[str, Any]) -> None:
    body = json.dumps(members).encode()
    headers = {"X-Cycles-Signature": cycles.sign_webhook(body, "s")}
    try:
        event = cycles.WebhookReceiver("s").receive(body=body, headers=headers)
    except cycles.WebhookPayloadError:
        return
    assert event.id == members["event_id"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("event_type", "", "must be a string that is not empty, it is an empty string"),
        ("event_type", [], "it is a list"),
        ("event_type", {"a": 1}, "it is an object"),
        ("event_type", 7, "it is 7"),
        ("data", "x", "must be an object, it is 'x'"),
    ],
)
def test_an_event_with_a_wrong_member_is_rejected_with_what_it_is(name: str, value: object, shown: str) -> None:
    body = json.dumps({**json.loads(BODY), name: value}).encode()
    headers = {"X-Cycles-Signature": cycles.sign_webhook(body, "s")}
    with pytest.raises(cycles.WebhookPayloadError, match=shown):
        cycles.WebhookReceiver("s").receive(body=body, headers=headers)
