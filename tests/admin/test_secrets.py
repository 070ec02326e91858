"""The admin key and the secrets of new keys and webhooks are in no repr, pickle, log record or exception."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback

import pytest

import cycles

from .scripted import FIVE, KEY, LOST, TENANT, Script, key_body, ok, rejected

SECRET = "cyc_live_the_secret"


def test_the_secret_of_a_new_key_is_hidden_everywhere_else() -> None:
    key = Script(ok(key_body(), 201)).admin.create_api_key("acme", "prod")
    assert key.secret == SECRET
    for shown in (repr(key), str(key), repr(key.raw), repr(key.to_dict()), repr(key.extra), repr(pickle.dumps(key))):
        assert SECRET not in shown


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda key: pickle.loads(pickle.dumps(key))])
def test_a_copy_of_a_new_key_has_no_secret(duplicate: object) -> None:
    assert callable(duplicate)
    key = Script(ok(key_body(), 201)).admin.create_api_key("acme", "prod")
    twin = duplicate(key)
    assert (twin.key_id, twin.permissions) == (key.key_id, key.permissions)
    with pytest.raises(cycles.CyclesError, match="NewApiKey has no secret"):
        _ = twin.secret


def test_the_secret_and_the_headers_of_a_new_webhook_are_hidden() -> None:
    row = {"subscription_id": "w1", "url": "https://a.test", "event_types": ["budget.created"], "status": "ACTIVE"}
    response = ok({"subscription": row | {"headers": {"X-A": "header-secret"}}, "signing_secret": "whsec_1"}, 201)
    webhook = Script(response).admin.create_webhook("https://a.test", ["budget.created"])
    assert webhook.secret == "whsec_1"
    for shown in (repr(webhook), repr(webhook.raw), repr(pickle.dumps(webhook))):
        assert "whsec_1" not in shown
        assert "header-secret" not in shown


def test_the_admin_key_is_in_no_repr_log_or_exception(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = rejected(403, "FORBIDDEN", f"the key {KEY} is wrong", key=KEY)
    script = Script(LOST, LOST, echo, ok(TENANT))
    errors: list[cycles.CyclesError] = []
    for _ in range(2):
        with pytest.raises(cycles.CyclesError) as raised:
            script.admin.credit("tenant:acme", FIVE)
        errors.append(raised.value)
    script.admin.tenant("acme")
    shown = [repr(script.admin), repr(script.admin.aio), repr(vars(script.admin)), caplog.text]
    for error in errors:
        shown += [str(error), repr(vars(error)), repr(pickle.dumps(error))]
    assert [text for text in shown if KEY in text] == []
    assert isinstance(errors[1], cycles.ForbiddenError)
    assert "[api key]" in str(errors[1])


def test_the_admin_key_is_in_no_frame_of_an_exception() -> None:
    """Error trackers record the locals of frames, with their repr."""
    script = Script(LOST, LOST)
    with pytest.raises(cycles.TransportError) as raised:
        script.admin.credit("tenant:acme", FIVE)
    inside = [frame for frame, _ in traceback.walk_tb(raised.tb) if "/cycles/" in frame.f_code.co_filename]
    assert inside
    for frame in inside:
        assert KEY not in repr({name: value for name, value in frame.f_locals.items() if name != "self"})
