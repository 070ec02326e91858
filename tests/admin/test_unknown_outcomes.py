"""What the facade does after an unknown outcome: repeat, look up, or report. See the table of `docs/admin.md`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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

ONE = {"unit": "TOKENS", "amount": 1}


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
        ok(budget_body(amount=5, spent=ONE)),
        ok(budget_body(amount=5, reserved=ONE)),
        ok(budget_body(amount=5, debt=ONE)),
    ],
    ids=["no budget", "another allocation", "something spent", "something reserved", "debt"],
)
def test_another_budget_does_not_count_as_created(found: httpx.Response) -> None:
    script = Script(LOST, found)
    with pytest.raises(cycles.TransportError, match="no usable response"):
        script.admin.create_budget("tenant:acme", FIVE)
    assert len(script.calls) == 2
    with pytest.raises(cycles.DuplicateResourceError):
        onboarded(Script(ok(TENANT), rejected(409, "DUPLICATE_RESOURCE"), found))


def onboarded(script: Script, **options: Any) -> Any:
    return script.admin.onboard("acme", "Acme", budgets={"tenant:acme": FIVE}, key_name="prod", **options)


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


@pytest.mark.parametrize("name", ["freeze", "unfreeze"])
@pytest.mark.parametrize("second", [rejected(404, "NOT_FOUND"), rejected(403, "FORBIDDEN"), rejected(400, "INVALID")])
def test_another_rejection_after_an_unknown_outcome_is_an_error(name: str, second: httpx.Response) -> None:
    script = Script(LOST, second)
    with pytest.raises(cycles.ProtocolError) as raised:
        getattr(script.admin, name)("tenant:acme", unit="TOKENS")
    assert (raised.value.status, len(script.calls)) == (second.status_code, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda admin: admin.close_tenant("acme", confirm="acme"),
        lambda admin: admin.revoke_api_key("key_1"),
        lambda admin: admin.create_budget("tenant:acme", FIVE),
        lambda admin: admin.create_api_key("acme", "prod"),
        lambda admin: admin.create_webhook("https://a.test", ["budget.funded"]),
        lambda admin: admin.create_policy("acme", "p", "tenant:acme"),
        lambda admin: admin.unfreeze("tenant:acme", unit="TOKENS"),
        lambda admin: admin.credit("tenant:acme", FIVE),
        lambda admin: admin.update_tenant("acme", name="A"),
    ],
    ids=["close", "revoke", "budget", "key", "webhook", "policy", "unfreeze", "credit", "update"],
)
@pytest.mark.parametrize(
    ("status", "code"), [(409, "KEY_REVOKED"), (409, "TENANT_CLOSED"), (404, "NOT_FOUND"), (403, "FORBIDDEN")]
)
def test_a_rejected_change_is_neither_repeated_nor_read_back(call: Any, status: int, code: str) -> None:
    script = Script(rejected(status, code))
    with pytest.raises(cycles.ProtocolError) as raised:
        call(script.admin)
    assert not isinstance(raised.value, cycles.AmbiguousResponseError)
    assert (raised.value.status, raised.value.code, len(script.calls)) == (status, code, 1)


def test_a_key_that_may_exist_has_the_status_and_the_ids_of_the_response() -> None:
    response = httpx.Response(503, json={"error": "INTERNAL_ERROR", "message": "no", "request_id": "r7"})
    creates: list[Callable[[cycles.Admin], object]] = [
        lambda admin: admin.create_api_key("acme", "prod"),
        lambda admin: admin.create_webhook("https://a.test", ["budget.funded"]),
        lambda admin: admin.create_policy("acme", "p", "tenant:acme"),
    ]
    for create in creates:
        with pytest.raises(cycles.AmbiguousResponseError) as raised:
            create(Script(response).admin)
        assert (raised.value.status, raised.value.request_id) == (503, "r7")


def test_a_conflict_without_an_unknown_outcome_is_an_error() -> None:
    script = Script(rejected(409, "INVALID_REQUEST"))
    with pytest.raises(cycles.ProtocolError):
        script.admin.freeze("tenant:acme", unit="TOKENS")
    assert len(script.calls) == 1


def test_a_key_that_is_revoked_after_an_unknown_outcome_is_returned() -> None:
    row = {"key_id": "key_1", "tenant_id": "acme", "status": "REVOKED"}
    script = Script(LOST, rejected(409, "KEY_REVOKED"), ok({"keys": [row], "has_more": False}))
    assert script.admin.revoke_api_key("key_1").status == "REVOKED"


def rows_of_keys(*ids: str, cursor: str | None = None) -> httpx.Response:
    keys = [{"key_id": key, "tenant_id": "acme", "status": "REVOKED", "name": key} for key in ids]
    return ok({"keys": keys, "has_more": cursor is not None, "next_cursor": cursor})


def test_the_key_that_was_revoked_is_found_by_its_whole_id_on_each_page() -> None:
    """A search finds parts of ids too."""
    pages = rows_of_keys("key_10", "my_key_1", cursor="c"), rows_of_keys("key_11", "key_1", "key_12")
    script = Script(LOST, rejected(409, "KEY_REVOKED"), *pages)
    assert script.admin.revoke_api_key("key_1").key_id == "key_1"
    assert [request.url.params.get("search") for request in script.requests[2:]] == ["key_1", "key_1"]
    script = Script(rows_of_keys("key_10", cursor="c"), rows_of_keys("key_11"))
    with pytest.raises(cycles.NotFoundError, match="no API key has the id 'key_1'"):
        script.admin.rotate_api_key("key_1")
    assert script.calls == ["GET /v1/admin/api-keys"] * 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"name": "key_1", "permissions": list(cycles.RUNTIME_PERMISSIONS)}),
        ({"name": "", "permissions": []}, {"name": "key_1", "permissions": list(cycles.RUNTIME_PERMISSIONS)}),
        (
            {"name": "prod", "permissions": ["balances:read"], "scope_filter": ["agent:a"], "description": "d"},
            {"name": "prod", "permissions": ["balances:read"], "scope_filter": ["agent:a"], "description": "d"},
        ),
    ],
)
def test_what_a_rotated_key_has_of_the_old_one(old: dict[str, Any], new: dict[str, Any]) -> None:
    row = {"key_id": "key_1", "tenant_id": "acme", "status": "ACTIVE", **old}
    script = Script(ok({"keys": [row]}), ok(key_body(), 201))
    script.admin.rotate_api_key("key_1")
    assert script.body() == {"tenant_id": "acme", **new}


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


@pytest.mark.parametrize(
    ("steps", "exists"),
    [
        ([rejected(403, "FORBIDDEN")], "nothing exists"),
        ([ok(TENANT, 201), rejected(403, "FORBIDDEN")], "tenant acme exists"),
        (
            [ok(TENANT, 201), ok(budget_body(amount=5), 201), rejected(403, "FORBIDDEN")],
            "tenant acme, budget tenant:acme in TOKENS exists",
        ),
    ],
)
def test_onboarding_that_fails_says_what_exists(steps: list[Step], exists: str) -> None:
    script = Script(*steps)
    with pytest.raises(cycles.ForbiddenError) as raised:
        onboarded(script)
    assert raised.value.__notes__ == [f"onboard acme: {exists}; call onboard again to continue"]
    assert len(script.calls) == len(steps)


def test_onboarding_limits_the_debt_of_the_budgets_in_its_unit() -> None:
    budgets: dict[str, Any] = {"tenant:acme": [FIVE, cycles.credits(7)], "tenant:acme/agent:a": cycles.credits(1)}
    made = [ok(budget_body(), 201)] * 3
    script = Script(ok(TENANT, 201), *made, ok(key_body(), 201))
    script.admin.onboard("acme", "Acme", budgets=budgets, key_name="prod", overdraft_limit=cycles.credits(0))
    limits = [script.body(number).get("overdraft_limit") for number in (1, 2, 3)]
    assert limits == [None, *[{"unit": "CREDITS", "amount": 0}] * 2]


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({"tenant:acme-corp": FIVE}, "not a scope of tenant 'acme'"),
        ({"tenant:acm": FIVE}, "not a scope of tenant 'acme'"),
        ({"tenant:acme/agent:a": FIVE, "tenant:acme/agent:A": FIVE}, "has two amounts in TOKENS"),
        ({"tenant:acme": [FIVE, FIVE]}, "has two amounts in TOKENS"),
        ({"tenant:acme/agent:a/agent:b": FIVE}, "levels repeat"),
        ({"tenant:acme/tenant:acme": FIVE}, "levels repeat"),
        ([("tenant:acme", FIVE)], "must be a mapping"),
    ],
)
def test_wrong_budgets_of_a_new_tenant_send_nothing(budgets: Any, message: str) -> None:
    script = Script()
    with pytest.raises(cycles.InvalidRequestError, match=message):
        script.admin.onboard("acme", "Acme", budgets=budgets, key_name="prod")
    assert script.calls == []


@pytest.mark.parametrize("name", [None, "New"])
def test_an_update_never_closes_a_tenant(name: str | None) -> None:
    script = Script()
    with pytest.raises(cycles.InvalidRequestError, match="use close_tenant"):
        script.admin.update_tenant("acme", status="CLOSED", name=name)
    assert script.calls == []


@pytest.mark.parametrize(
    "call",
    [
        lambda admin: admin.tenant("acme", timeout=0.01),
        lambda admin: list(admin.budgets(timeout=0.01)),
        lambda admin: admin.unfreeze("tenant:acme", unit="TOKENS"),
        lambda admin: admin.credit("tenant:acme", FIVE),
        lambda admin: admin.raw("revokeApiKey", key_id="key_1"),
    ],
    ids=["read", "list", "unfreeze", "change", "raw"],
)
def test_a_server_that_is_not_reached_is_the_cause(call: Any) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise REFUSED

    script = Script(*[refuse] * 50)
    with pytest.raises(cycles.TransportError) as raised:
        call(script.admin)
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


def test_a_rejection_has_its_details_its_ids_and_its_response() -> None:
    response = rejected(400, "BUDGET_EXCEEDED", "less remains", remaining=3)
    response.headers["retry-after"] = "7"
    with pytest.raises(cycles.BudgetExceededError, match="less remains") as raised:
        Script(response).admin.debit("tenant:acme", FIVE)
    error = raised.value
    assert (error.status, error.code, error.request_id) == (400, "BUDGET_EXCEEDED", "r1")
    assert (error.details, error.retry_after_ms, error.retryable) == ({"remaining": 3}, 7000, False)
    assert error.http is not None
    assert error.http.status == 400


def test_a_read_of_a_task_waits_without_blocking_its_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append("task")

    monkeypatch.setattr("cycles.admin._channel.time", SimpleNamespace(sleep=lambda seconds: slept.append("thread")))
    monkeypatch.setattr("cycles.admin._channel.asyncio", SimpleNamespace(sleep=sleep))
    assert asyncio.run(Script(UNAVAILABLE, ok(TENANT)).admin.aio.tenant("acme")).name == "Acme"
    assert Script(UNAVAILABLE, ok(TENANT)).admin.tenant("acme").name == "Acme"
    assert slept == ["task", "thread"]


@pytest.mark.parametrize("amount", [0, 1, -1])
def test_the_amounts_of_a_budget_are_signed_only_below_zero(amount: int) -> None:
    body = budget_body(remaining={"unit": "TOKENS", "amount": amount})
    found = Script(ok(body)).admin.budget("tenant:acme", unit="TOKENS")
    assert (found.remaining.amount, type(found.remaining)) == (
        amount,
        cycles.SignedAmount if amount < 0 else cycles.Amount,
    )


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
