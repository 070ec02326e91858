"""What the facade does after an unknown outcome: repeat, look up, or report. See the table of `docs/admin.md`."""

from __future__ import annotations

import httpx
import pytest

import cycles

from .scripted import (
    FIVE,
    LOST,
    REFUSED,
    TENANT,
    UNAVAILABLE,
    Script,
    Step,
    budget_body,
    funding_body,
    key_body,
    ok,
    rejected,
)


def test_funding_is_repeated_with_the_same_key() -> None:
    script = Script(LOST, ok(funding_body()))
    assert script.admin.credit("tenant:acme", FIVE).new_allocated == cycles.tokens(150)
    assert script.requests[0].content == script.requests[1].content
    assert script.body()["idempotency_key"].endswith(":CREDIT:tenant:acme:TOKENS")


def test_a_tenant_is_created_again() -> None:
    script = Script(LOST, ok(TENANT))
    assert not script.admin.create_tenant("acme", "Acme").created
    assert script.calls == ["POST /v1/admin/tenants"] * 2


def test_a_new_tenant_says_that_it_was_created() -> None:
    assert Script(ok(TENANT, 201)).admin.create_tenant("acme", "Acme").created


def test_a_budget_that_was_created_is_looked_up() -> None:
    script = Script(LOST, ok(budget_body(amount=5)))
    assert script.admin.create_budget("tenant:acme", FIVE).ledger_id == "l1"
    assert script.calls == ["POST /v1/admin/budgets", "GET /v1/admin/budgets/lookup"]


@pytest.mark.parametrize(
    "found",
    [
        rejected(404, "BUDGET_NOT_FOUND"),
        ok(budget_body(amount=6)),
        ok(budget_body(amount=5, spent={"unit": "TOKENS", "amount": 1})),
    ],
    ids=["no budget", "another allocation", "something spent"],
)
def test_another_budget_does_not_count_as_created(found: httpx.Response) -> None:
    with pytest.raises(cycles.TransportError, match="no usable response"):
        Script(LOST, found).admin.create_budget("tenant:acme", FIVE)


@pytest.mark.parametrize("step", [LOST, UNAVAILABLE], ids=["lost", "503"])
def test_a_key_is_never_created_twice(step: Step) -> None:
    script = Script(step)
    with pytest.raises(cycles.AmbiguousResponseError, match=r"key 'prod' of tenant 'acme' may exist.*revoke it"):
        script.admin.create_api_key("acme", "prod")
    assert script.calls == ["POST /v1/admin/api-keys"]


def test_a_key_request_that_was_not_sent_is_a_transport_error() -> None:
    with pytest.raises(cycles.TransportError) as raised:
        Script(REFUSED).admin.create_api_key("acme", "prod")
    assert not isinstance(raised.value, cycles.AmbiguousResponseError)
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


def test_a_webhook_is_never_created_twice() -> None:
    script = Script(LOST)
    with pytest.raises(cycles.AmbiguousResponseError, match=r"subscription of 'https://a\.test' may exist"):
        script.admin.create_webhook("https://a.test", ["budget.created"])
    assert len(script.calls) == 1


@pytest.mark.parametrize(("name", "state"), [("freeze", "FROZEN"), ("unfreeze", "ACTIVE")])
def test_a_conflict_after_an_unknown_outcome_is_a_success_in_the_wanted_state(name: str, state: str) -> None:
    script = Script(LOST, rejected(409, "INVALID_REQUEST"), ok(budget_body(status=state)))
    assert getattr(script.admin, name)("tenant:acme", unit="TOKENS").status == state
    assert script.calls == [f"POST /v1/admin/budgets/{name}"] * 2 + ["GET /v1/admin/budgets/lookup"]


@pytest.mark.parametrize(("name", "state"), [("freeze", "ACTIVE"), ("freeze", "CLOSED"), ("unfreeze", "CLOSED")])
def test_a_conflict_after_an_unknown_outcome_is_an_error_in_another_state(name: str, state: str) -> None:
    script = Script(LOST, rejected(409, "INVALID_REQUEST"), ok(budget_body(status=state)))
    with pytest.raises(cycles.ProtocolError):
        getattr(script.admin, name)("tenant:acme", unit="TOKENS")


def test_a_conflict_without_an_unknown_outcome_is_an_error() -> None:
    script = Script(rejected(409, "INVALID_REQUEST"))
    with pytest.raises(cycles.ProtocolError):
        script.admin.freeze("tenant:acme", unit="TOKENS")
    assert len(script.calls) == 1


def test_a_key_that_is_revoked_after_an_unknown_outcome_is_returned() -> None:
    row = {"key_id": "key_1", "tenant_id": "acme", "status": "REVOKED"}
    script = Script(LOST, rejected(409, "KEY_REVOKED"), ok({"keys": [row], "has_more": False}))
    assert script.admin.revoke_api_key("key_1").status == "REVOKED"


def test_closing_a_tenant_is_sent_once_and_read_back() -> None:
    script = Script(UNAVAILABLE, ok(TENANT | {"status": "CLOSED"}))
    assert script.admin.close_tenant("acme", confirm="acme").status == "CLOSED"
    assert script.calls == ["PATCH /v1/admin/tenants/acme", "GET /v1/admin/tenants/acme"]


def test_a_tenant_that_is_not_closed_is_an_error() -> None:
    with pytest.raises(cycles.ServerError):
        Script(UNAVAILABLE, ok(TENANT)).admin.close_tenant("acme", confirm="acme")


def test_a_quota_counter_is_never_reset_twice() -> None:
    script = Script(LOST)
    with pytest.raises(cycles.TransportError):
        script.admin.reset_quota_counter("acme", scope="tenant:acme", window="per_day_tumbling", action_kind="a.b")
    assert len(script.calls) == 1


def test_a_write_by_operation_id_is_sent_once() -> None:
    script = Script(LOST)
    with pytest.raises(cycles.TransportError):
        script.admin.raw("revokeApiKey", key_id="key_1")
    assert len(script.calls) == 1


def test_onboarding_continues_where_it_failed() -> None:
    script = Script(
        ok(TENANT, 201),
        ok(budget_body(amount=5), 201),
        rejected(400, "INVALID_REQUEST", "Unrecognized permission"),
        ok(TENANT),
        rejected(409, "DUPLICATE_RESOURCE"),
        ok(budget_body(amount=5)),
        ok(key_body(), 201),
    )
    wanted = {"tenant:acme": FIVE}
    with pytest.raises(cycles.ProtocolError) as raised:
        script.admin.onboard("acme", "Acme", budgets=wanted, key_name="prod")
    assert raised.value.__notes__ == [
        "onboard acme: tenant acme, budget tenant:acme in TOKENS exists; call onboard again to continue"
    ]
    site = script.admin.onboard("acme", "Acme", budgets=wanted, key_name="prod")
    assert (site.tenant.created, site.budgets[0].allocated, site.key.secret) == (False, FIVE, "cyc_live_the_secret")


def test_onboarding_does_not_take_over_a_used_budget() -> None:
    used = budget_body(amount=5, spent={"unit": "TOKENS", "amount": 1})
    script = Script(ok(TENANT), rejected(409, "DUPLICATE_RESOURCE"), ok(used))
    with pytest.raises(cycles.DuplicateResourceError):
        script.admin.onboard("acme", "Acme", budgets={"tenant:acme": FIVE}, key_name="prod")


@pytest.mark.parametrize("time", ["garbage", "2026-11-25", "2026-11-25T20:23:37", "2026-13-25T20:23:37Z"])
def test_a_time_that_cannot_be_read_leaves_the_outcome_unknown(time: str) -> None:
    with pytest.raises(cycles.AmbiguousResponseError, match="created_at: must be a date and time with a zone"):
        Script(*[ok({**TENANT, "created_at": time})] * 2).admin.create_tenant("acme", "Acme")
    with pytest.raises(cycles.AmbiguousResponseError, match=r"an API key 'prod' of tenant 'acme' may exist"):
        Script(ok(key_body(expires_at=time), 201)).admin.create_api_key("acme", "prod")
    script = Script(*[ok({**funding_body(), "timestamp": time})] * 2)
    with pytest.raises(cycles.AmbiguousResponseError, match="timestamp"):
        script.admin.credit("tenant:acme", FIVE)
    assert script.requests[0].content == script.requests[1].content
