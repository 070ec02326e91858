"""Every signed body of `vectors.json` and every real delivery of `captures.json` has its expected result."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import cycles

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "vectors.json").read_text("utf-8"))["vectors"]
CAPTURES = json.loads((HERE / "captures.json").read_text("utf-8"))["vectors"]
ERRORS: dict[str, type[cycles.WebhookError]] = {
    "signature": cycles.WebhookSignatureError,
    "payload": cycles.WebhookPayloadError,
    "replay": cycles.WebhookReplayError,
}


def test_no_vector_was_lost() -> None:
    assert (len(VECTORS), len(CAPTURES)) == (21, 21)
    expected = {vector["expect"] for vector in VECTORS + CAPTURES}
    assert expected == {"ok", *ERRORS}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    check(vector, vector["headers"])
    check(vector, list(vector["headers"].items()))


@pytest.mark.parametrize("vector", CAPTURES, ids=lambda vector: vector["name"])
def test_capture(vector: dict[str, Any]) -> None:
    check(vector, [tuple(pair) for pair in vector["headers"]])
    check(vector, [(name.lower().encode(), value.encode()) for name, value in vector["headers"]])


def check(vector: dict[str, Any], headers: Any) -> None:
    receiver = cycles.WebhookReceiver(vector["secrets"], max_age_ms=vector.get("max_age_ms"))
    now = datetime.fromisoformat(vector["now"]) if "now" in vector else None
    body = vector["body"].encode()
    if vector["expect"] != "ok":
        with pytest.raises(cycles.WebhookError) as caught:
            receiver.receive(body=body, headers=headers, now=now)
        assert type(caught.value) is ERRORS[vector["expect"]]
        return
    event = receiver.receive(body=body, headers=headers, now=now)
    raw = json.loads(body)
    assert (event.id, event.type, event.category) == (raw["event_id"], raw["event_type"], raw["category"])
    assert event.raw == raw
    assert event.data == (raw.get("data") or {})
    assert event.timestamp.tzinfo is not None
    assert not event.is_duplicate
