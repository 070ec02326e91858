"""Whole answers of the embedded server about budgets, funding and bulk actions, and their entries in the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

import cycles
from cycles.embedded import ManualClock, admin_bulk
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.ledger import Ledger
from cycles.embedded.tables import Tables
from tests.admin.site import ACME, BOT, DAY_MS, FUND, PLACE, SECOND, START, START_MS, Site, error, tokens


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.close()


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_is_made_changed_frozen_and_thawed(site: Site) -> None:
    form = {
        "tenant_id": "acme",
        "scope": "tenant:ACME/agent:Bot",
        "unit": "TOKENS",
        "allocated": tokens(10),
        "overdraft_limit": tokens(3),
        "commit_overage_policy": "REJECT",
        "rollover_policy": "NONE",
        "period_start": START,
        "period_end": SECOND,
    }
    assert site.budget["overdraft_limit"] == tokens(0)
    status, made = site.send("POST", "budgets", form)
    shown = {
        "ledger_id": made["ledger_id"],
        "tenant_id": "acme",
        "scope": BOT,
        "unit": "TOKENS",
        "allocated": tokens(10),
        "remaining": tokens(10),
        **{name: tokens(0) for name in ("reserved", "spent", "debt")},
        "overdraft_limit": tokens(3),
        "is_over_limit": False,
        "status": "ACTIVE",
        "created_at": START,
        **{name: form[name] for name in ("commit_overage_policy", "rollover_policy", "period_start", "period_end")},
    }
    assert (status, made) == (201, shown)
    audited = {
        "timestamp": START,
        "tenant_id": "acme",
        "operation": "createBudget",
        "status": 201,
        "source_ip": "192.0.2.7",
        "resource_type": "budget",
        "resource_id": f"{BOT}:TOKENS",
    }
    assert site.audited() == audited
    site.clock.advance(1_000)
    place = "scope=TENANT:acme/agent:BOT&unit=TOKENS"
    changed = site.send("PATCH", f"budgets?{place}", {"overdraft_limit": tokens(4)})
    shown |= {"overdraft_limit": tokens(4), "updated_at": SECOND}
    assert changed == (200, shown)
    changed = site.send("PATCH", f"budgets?{place}", {"commit_overage_policy": "ALLOW_WITH_OVERDRAFT"})
    shown["commit_overage_policy"] = "ALLOW_WITH_OVERDRAFT"
    assert changed == (200, shown)
    assert site.audited() == {**audited, "timestamp": SECOND, "operation": "updateBudget", "status": 200}
    mismatch = (400, error("UNIT_MISMATCH", "the budget is in TOKENS, got an amount in CREDITS"))
    assert site.send("PATCH", f"budgets?{place}", {"overdraft_limit": {"unit": "CREDITS", "amount": 1}}) == mismatch
    assert site.send("GET", f"budgets/lookup?{place}") == (200, shown)
    assert site.send("POST", f"budgets/freeze?{place}", {"reason": "why"}) == (200, {**shown, "status": "FROZEN"})
    audited |= {"timestamp": SECOND, "status": 200}
    assert site.audited() == {**audited, "operation": "freezeBudget", "metadata": {"reason": "why"}}
    message = "the budget is FROZEN, but it must be ACTIVE"
    assert site.send("POST", f"budgets/freeze?{place}") == (409, error("INVALID_REQUEST", message))
    assert site.send("POST", f"budgets/unfreeze?{place}") == (200, shown)
    assert site.audited() == {**audited, "operation": "unfreezeBudget"}
    message = "the budget is ACTIVE, but it must be FROZEN"
    assert site.send("POST", f"budgets/unfreeze?{place}") == (409, error("INVALID_REQUEST", message))
    assert site.send("GET", f"budgets/lookup?{place}") == (200, shown)


@pytest.mark.parametrize("was_over", [True, False])
@pytest.mark.parametrize(("limit", "is_over"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_budget_is_over_its_limit_while_it_owes_more(site: Site, limit: int, is_over: bool, was_over: bool) -> None:
    site.server.ledger.set_budget(ACME, cycles.tokens(10), debt=2, overdraft_limit=2, is_over_limit=was_over)
    changed = site.send("PATCH", f"budgets?{PLACE}", {"overdraft_limit": tokens(limit)})[1]
    assert (changed["is_over_limit"], changed["debt"], changed["remaining"]) == (is_over, tokens(2), tokens(8))
    assert site.send("GET", f"budgets/lookup?{PLACE}") == (200, changed)


NEW: Final = {"scope": BOT, "unit": "TOKENS", "allocated": tokens(5)}


@pytest.mark.parametrize(
    ("form", "by_tenant", "status", "code", "message"),
    [
        ({}, False, 400, "INVALID_REQUEST", "tenant_id: is required with the admin key"),
        (
            {"tenant_id": "acme"},
            True,
            400,
            "INVALID_REQUEST",
            "tenant_id: is not allowed with a tenant's key, which decides the tenant",
        ),
        ({}, True, 201, None, None),
        (
            {"tenant_id": "nobody", "scope": ACME},
            False,
            400,
            "INVALID_REQUEST",
            "scope: 'tenant:acme' does not begin with tenant:nobody",
        ),
        ({"tenant_id": "nobody", "scope": "tenant:nobody"}, False, 404, "TENANT_NOT_FOUND", "tenant not found: nobody"),
        (
            {"tenant_id": "acme", "scope": ACME},
            False,
            409,
            "DUPLICATE_RESOURCE",
            f"{ACME} has a budget in TOKENS already; update that one",
        ),
        (
            {"tenant_id": "acme", "allocated": {"unit": "CREDITS", "amount": 1}},
            False,
            400,
            "UNIT_MISMATCH",
            "the budget is in TOKENS, got an amount in CREDITS",
        ),
        (
            {"tenant_id": "acme", "overdraft_limit": {"unit": "CREDITS", "amount": 1}},
            False,
            400,
            "UNIT_MISMATCH",
            "the budget is in TOKENS, got an amount in CREDITS",
        ),
        (
            {"tenant_id": "acme", "scope": "tenant:acme/agent:*"},
            False,
            400,
            "INVALID_REQUEST",
            "scope: 'agent:*' is not level:id without wildcards",
        ),
        (
            {"tenant_id": "acme", "scope": "tenant:other"},
            False,
            400,
            "INVALID_REQUEST",
            "scope: 'tenant:other' does not begin with tenant:acme",
        ),
    ],
)
def test_a_wrong_budget_is_not_made(
    site: Site, form: dict[str, Any], by_tenant: bool, status: int, code: str | None, message: str | None
) -> None:
    key = site.made("api-keys", tenant_id="acme", name="x", permissions=["budgets:write"])["key_secret"]
    found = site.send("POST", "budgets", {**NEW, **form}, key if by_tenant else None)
    assert found[0] == status
    assert {name: found[1].get(name) for name in ("error", "message")} == {"error": code, "message": message}
    assert len(site.server.ledger.scopes()) == 1 + (status == 201)


@pytest.mark.parametrize(
    ("tenant_status", "of_key", "of_freeze"),
    [
        ("SUSPENDED", (400, "INVALID_REQUEST", "tenant acme is SUSPENDED; reactivate it first"), None),
        (
            "CLOSED",
            (409, "TENANT_CLOSED", "tenant acme is closed; what it owns cannot be changed"),
            (409, "TENANT_CLOSED", "tenant acme is closed; what it owns cannot be changed"),
        ),
    ],
)
def test_a_tenant_that_is_not_active_gets_nothing_new(
    site: Site, tenant_status: str, of_key: tuple[int, str, str], of_freeze: tuple[int, str, str] | None
) -> None:
    policy = site.made("policies", tenant_id="acme", name="p", scope_pattern=ACME)["policy_id"]
    site.send("PATCH", "tenants/acme", {"status": tenant_status})
    for path, form in (
        ("api-keys", {"tenant_id": "acme", "name": "x"}),
        ("budgets", {"tenant_id": "acme", **NEW}),
        ("policies", {"tenant_id": "acme", "name": "p", "scope_pattern": ACME}),
    ):
        assert site.send("POST", path, form) == (of_key[0], error(*of_key[1:]))
    changes: list[tuple[str, str, Any]] = [
        ("POST", f"budgets/freeze?{PLACE}", None),
        ("PATCH", f"budgets?{PLACE}", {"overdraft_limit": tokens(1)}),
        ("POST", FUND, {"operation": "CREDIT", "amount": tokens(1)}),
        ("PATCH", f"api-keys/{site.key['key_id']}", {"name": "y"}),
        ("DELETE", f"api-keys/{site.key['key_id']}", None),
    ]
    if of_freeze is None:
        changes.insert(1, ("POST", f"budgets/unfreeze?{PLACE}", None))
    for change in changes:
        status, found = site.send(*change)
        assert (status, found if status >= 400 else None) == (
            (200, None) if of_freeze is None else (of_freeze[0], error(*of_freeze[1:]))
        ), change
    assert site.send("PATCH", f"policies/{policy}", {"priority": 1})[0] == 200


# --- funding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "amount", "more", "after"),
    [  # after: allocated, remaining, debt, spent; before: 20, 13, 3, 4
        ("CREDIT", 5, {}, (25, 18, 3, 4)),
        ("DEBIT", 13, {}, (7, 0, 3, 4)),
        ("DEBIT", 0, {}, (20, 13, 3, 4)),
        ("RESET", 9, {}, (9, 2, 3, 4)),
        ("RESET_SPENT", 9, {}, (9, 6, 3, 0)),
        ("RESET_SPENT", 9, {"spent": tokens(2)}, (9, 4, 3, 2)),
        ("REPAY_DEBT", 2, {}, (20, 15, 1, 4)),
        ("REPAY_DEBT", 3, {}, (20, 16, 0, 4)),
        ("REPAY_DEBT", 5, {}, (22, 18, 0, 4)),
    ],
)
def test_funding_shows_the_amounts_before_and_after(
    site: Site, operation: str, amount: int, more: dict[str, Any], after: tuple[int, int, int, int]
) -> None:
    site.server.ledger.set_budget(ACME, cycles.tokens(20), spent=4, debt=3, overdraft_limit=5)
    site.clock.advance(1_000)
    names, before = ("allocated", "remaining", "debt", "spent"), (20, 13, 3, 4)
    shown = {
        "operation": operation,
        **{f"previous_{name}": tokens(number) for name, number in zip(names, before, strict=True)},
        **{f"new_{name}": tokens(number) for name, number in zip(names, after, strict=True)},
        "timestamp": SECOND,
    }
    form = {"operation": operation, "amount": tokens(amount), "reason": "why", **more}
    assert site.send("POST", FUND, form) == (200, shown)
    balance = site.server.ledger.balance(ACME)
    assert (balance.allocated, balance.remaining) == (cycles.tokens(after[0]), cycles.tokens(after[1]))
    moved = {name: value["amount"] for name, value in shown.items() if isinstance(value, dict)}
    if operation == "RESET_SPENT":
        moved["spent_override_provided"] = bool(more)
    assert site.audited() == {
        "timestamp": SECOND,
        "tenant_id": "acme",
        "operation": "fundBudget",
        "status": 200,
        "source_ip": "192.0.2.7",
        "resource_type": "budget",
        "resource_id": f"{ACME}:TOKENS",
        "metadata": {
            "scope": ACME,
            "unit": "TOKENS",
            "funding_operation": operation,
            "reason": "why",
            "amount": amount,
            **moved,
        },
    }


@pytest.mark.parametrize(
    ("path", "form", "status", "code", "message"),
    [
        (
            f"budgets/fund?{PLACE}",
            {},
            400,
            "INVALID_REQUEST",
            "the query parameter tenant_id is missing; send it with the admin key",
        ),
        (
            f"budgets/fund?tenant_id=other&{PLACE}",
            {},
            403,
            "FORBIDDEN",
            "the budget belongs to another tenant; use a key of that tenant",
        ),
        (
            f"budgets/fund?tenant_id=acme&scope={BOT}&unit=TOKENS",
            {},
            404,
            "BUDGET_NOT_FOUND",
            f"{BOT} has no budget in TOKENS; create one first",
        ),
        (
            "budgets/fund?tenant_id=acme&unit=TOKENS",
            {},
            400,
            "INVALID_REQUEST",
            "the query parameter scope is missing; send it",
        ),
        (
            f"budgets/fund?tenant_id=acme&scope={ACME}",
            {},
            400,
            "INVALID_REQUEST",
            "the query parameter unit is missing; send it",
        ),
        (
            FUND,
            {"spent": tokens(1)},
            400,
            "INVALID_REQUEST",
            "spent: belongs to RESET_SPENT only; omit it",
        ),
        (
            FUND,
            {"operation": "RESET_SPENT", "spent": {"unit": "CREDITS", "amount": 1}},
            400,
            "UNIT_MISMATCH",
            "the budget is in TOKENS, got an amount in CREDITS",
        ),
        (
            FUND,
            {"operation": "DEBIT", "amount": tokens(11)},
            409,
            "BUDGET_EXCEEDED",
            f"the amount is too large; {ACME} has 10 TOKENS left",
        ),
        (
            FUND,
            {"amount": tokens(2**63 - 1)},
            500,
            "INTERNAL_ERROR",
            f"a number of {ACME} would no longer fit into 64 bits; nothing was changed",
        ),
    ],
)
def test_wrong_funding_changes_nothing(
    site: Site, path: str, form: dict[str, Any], status: int, code: str, message: str
) -> None:
    found = site.send("POST", path, {"operation": "CREDIT", "amount": tokens(1), **form})
    assert found == (status, error(code, message))
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(10)
    assert site.audited() == {
        "timestamp": START,
        "tenant_id": "__admin__",
        "operation": "POST:/v1/admin/budgets/fund",
        "status": status,
        "source_ip": "192.0.2.7",
        "error_code": code,
        "metadata": {"error_message": message},
    }


@pytest.mark.parametrize("status", ["FROZEN", "CLOSED"])
def test_only_an_active_budget_can_be_funded(site: Site, status: str) -> None:
    site.server.ledger.set_status(ACME, status)
    message = f"the budget of {ACME} is {status}; only an ACTIVE one can be funded"
    found = site.send("POST", FUND, {"operation": "CREDIT", "amount": tokens(1)})
    assert found == (409, error(f"BUDGET_{status}", message))


def test_funding_with_a_known_key_changes_nothing_for_a_day(site: Site) -> None:
    form = {"operation": "CREDIT", "amount": tokens(1), "idempotency_key": "k-1"}
    first = site.send("POST", FUND, form)[1]
    site.clock.advance(DAY_MS)
    assert site.send("POST", FUND, form) == (200, {**first, "timestamp": "2026-01-02T00:00:00.000Z"})
    audited = site.audited()["metadata"]
    assert audited == {"scope": ACME, "unit": "TOKENS", "funding_operation": "CREDIT", "idempotency_key": "k-1"}
    message = "the idempotency key was used with another body; send a new key"
    other = {**form, "amount": tokens(2)}
    assert site.send("POST", FUND, other) == (409, error("IDEMPOTENCY_MISMATCH", message))
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(11)
    site.clock.advance(1)
    assert site.send("POST", FUND, form)[1]["new_allocated"] == tokens(12)


def test_a_tenants_key_funds_and_reads_its_own_budgets_only(site: Site) -> None:
    site.made("tenants", tenant_id="beta", name="Beta")
    own, other = (
        site.made("api-keys", tenant_id=tenant, name="x", permissions=["budgets:write", "budgets:read"])["key_secret"]
        for tenant in ("acme", "beta")
    )
    form = {"operation": "CREDIT", "amount": tokens(1)}
    forbidden = (403, error("FORBIDDEN", "the budget belongs to another tenant; use a key of that tenant"))
    assert site.send("POST", FUND, form, other) == forbidden
    assert site.send("GET", f"budgets/lookup?{PLACE}", key=other) == forbidden
    assert site.send("POST", FUND, form, own)[1]["new_allocated"] == tokens(11)
    assert site.send("POST", f"budgets/fund?tenant_id=beta&{PLACE}", form, own)[1]["new_allocated"] == tokens(12)
    assert site.send("GET", f"budgets/lookup?{PLACE}", key=own)[1]["allocated"] == tokens(12)
    assert [row["scope"] for row in site.send("GET", "budgets?tenant_id=beta", key=own)[1]["ledgers"]] == [ACME]
    assert site.send("GET", "budgets", key=other)[1]["ledgers"] == []


def test_a_tenant_in_capitals_reaches_its_budgets_whose_scopes_have_none(site: Site) -> None:
    key = site.server.api_key_for("Beta")
    form = {"scope": "tenant:Beta/agent:Bot", "unit": "TOKENS", "allocated": tokens(5)}
    status, made = site.send("POST", "budgets", form, key)
    assert (status, made["scope"]) == (201, "tenant:beta/agent:bot")
    place = "scope=tenant:BETA/agent:bot&unit=TOKENS"
    assert site.send("GET", f"budgets/lookup?{place}", key=key) == (200, made)
    funded = {"operation": "CREDIT", "amount": tokens(1)}
    assert site.send("POST", f"budgets/fund?{place}", funded, key)[1]["new_allocated"] == tokens(6)
    assert [row["scope"] for row in site.send("GET", "budgets", key=key)[1]["ledgers"]] == ["tenant:beta/agent:bot"]
    listed = site.send("GET", "budgets?tenant_id=BETA")[1]["ledgers"]
    assert [row["allocated"] for row in listed] == [tokens(6)]
    site.send("PATCH", "tenants/Beta", {"status": "CLOSED"})
    assert site.send("GET", f"budgets/lookup?{place}")[1]["status"] == "CLOSED"


# --- bulk actions -----------------------------------------------------------------------------------------------------


def bulk(**form: Any) -> dict[str, Any]:
    given = {"filter": {"tenant_id": "acme"}, "action": "DEBIT", "idempotency_key": "k-1", "amount": tokens(4)}
    return {**given, **form}


def test_rows_of_a_bulk_action_end_one_by_one_and_are_kept_for_15_minutes(site: Site) -> None:
    for name, left in (("a", 3), ("b", 4), ("c", 9)):
        site.server.ledger.set_budget(f"{ACME}/agent:{name}", cycles.tokens(left))
    site.server.ledger.set_status(f"{ACME}/agent:c", "FROZEN")
    ids = {row["scope"]: row["ledger_id"] for row in site.send("GET", "budgets")[1]["ledgers"]}
    status, found = site.send("POST", "budgets/bulk-action", bulk(expected_count=4))
    assert status == 200
    failed = [
        {
            "id": ids[f"{ACME}/agent:a"],
            "error_code": "BUDGET_EXCEEDED",
            "message": f"the amount is too large; {ACME}/agent:a has 3 TOKENS left",
        },
        {
            "id": ids[f"{ACME}/agent:c"],
            "error_code": "INVALID_TRANSITION",
            "message": f"the budget of {ACME}/agent:c is FROZEN; only an ACTIVE one can be funded",
        },
    ]
    assert found == {
        "action": "DEBIT",
        "total_matched": 4,
        "succeeded": [{"id": ids[ACME]}, {"id": ids[f"{ACME}/agent:b"]}],
        "failed": failed,
        "skipped": [],
        "idempotency_key": "k-1",
    }
    assert site.audited() == {
        "timestamp": START,
        "tenant_id": "acme",
        "operation": "bulkActionBudgets",
        "status": 200,
        "source_ip": "192.0.2.7",
        "resource_type": "budget",
        "resource_id": "bulk-action",
        "metadata": {
            "action": "DEBIT",
            "filter": {"tenant_id": "acme"},
            "idempotency_key": "k-1",
            "total_matched": 4,
            "succeeded": 2,
            "failed": 2,
            "skipped": 0,
            "succeeded_ids": [ids[ACME], ids[f"{ACME}/agent:b"]],
            "failed_rows": failed,
            "skipped_rows": [],
        },
    }
    site.clock.advance(15 * 60_000)
    assert site.send("POST", "budgets/bulk-action", bulk(expected_count=4)) == (200, found)
    assert site.send("POST", "budgets/bulk-action", bulk())[1]["error"] == "IDEMPOTENCY_MISMATCH"
    site.clock.advance(1)
    again = site.send("POST", "budgets/bulk-action", bulk(expected_count=4))[1]
    assert again["succeeded"] == [{"id": ids[ACME]}]


@pytest.mark.parametrize(
    ("form", "status", "code", "message"),
    [
        ({"expected_count": 2}, 409, "COUNT_MISMATCH", "expected_count is 2, but 1 match; nothing was changed"),
        ({"expected_count": 0}, 409, "COUNT_MISMATCH", "expected_count is 0, but 1 match; nothing was changed"),
        ({"amount": None}, 400, "INVALID_REQUEST", "amount: is required for DEBIT"),
    ],
)
def test_a_wrong_bulk_action_changes_nothing(
    site: Site, form: dict[str, Any], status: int, code: str, message: str
) -> None:
    found = site.send("POST", "budgets/bulk-action", bulk(**form))
    details = {"details": {"total_matched": 1}} if code == "COUNT_MISMATCH" else {}
    assert found == (status, {**error(code, message), **details})
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(10)
    assert site.send("POST", "budgets/bulk-action", bulk(expected_count=1))[0] == 200


def test_a_bulk_action_is_for_at_most_500_rows() -> None:
    state = AdminState(Ledger(Tables(), ManualClock(START_MS)))

    def run(rows: int) -> Result:
        form = {"filter": {"tenant_id": "acme"}, "action": "x", "idempotency_key": f"k-{rows}"}
        return admin_bulk.run(
            state, AdminCall(None, "", {}, form, START_MS), "budget", lambda _: range(rows), str, lambda _: True
        )

    found = run(500)
    assert (found.status, found.body is not None and found.body["total_matched"]) == (200, 500)
    with pytest.raises(ApiError) as caught:
        run(501)
    assert (caught.value.code, caught.value.status) == ("LIMIT_EXCEEDED", 400)
    assert caught.value.message == "501 rows of budget match, but at most 500 may; narrow the filter"


def test_the_key_of_a_bulk_action_is_one_of_its_operation(site: Site) -> None:
    assert len(site.send("POST", "budgets/bulk-action", bulk(action="CREDIT"))[1]["succeeded"]) == 1
    for form in (bulk(action="DEBIT"), bulk(action="CREDIT", amount=tokens(5)), bulk(action="RESET")):
        assert site.send("POST", "budgets/bulk-action", form)[1]["error"] == "IDEMPOTENCY_MISMATCH"
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(14)
    others = (
        ("tenants", "SUSPEND", "acme"),
        ("webhooks", "PAUSE", site.server.webhooks.subscribe("https://h.test", ["custom.x"]).url),
    )
    for path, action, search in others:
        form = {"filter": {"search": search}, "action": action, "idempotency_key": "k-1"}
        status, found = site.send("POST", f"{path}/bulk-action", form)
        assert (status, len(found["succeeded"])) == (200, 1)
    assert site.send("POST", "budgets/bulk-action", bulk(action="CREDIT"))[1]["action"] == "CREDIT"


def test_a_row_of_a_bulk_action_that_does_not_fit_into_64_bits_fails_alone(site: Site) -> None:
    site.server.ledger.set_budget(f"{ACME}/agent:a", cycles.tokens(2**63 - 4))
    site.server.ledger.set_budget(f"{ACME}/agent:b", cycles.tokens(1))
    found = site.send("POST", "budgets/bulk-action", bulk(action="CREDIT"))[1]
    assert [len(found[name]) for name in ("succeeded", "failed", "skipped")] == [2, 1, 0]
    message = f"a number of {ACME}/agent:a would no longer fit into 64 bits; nothing was changed"
    assert [(row["error_code"], row["message"]) for row in found["failed"]] == [("INVALID_TRANSITION", message)]
    left = [site.server.ledger.balance(f"{ACME}{name}").allocated for name in ("", "/agent:a", "/agent:b")]
    assert left == [cycles.tokens(14), cycles.tokens(2**63 - 4), cycles.tokens(5)]


def test_a_bulk_action_fails_for_budgets_of_a_closed_tenant(site: Site) -> None:
    site.send("PATCH", "tenants/acme", {"status": "CLOSED"})
    found = site.send("POST", "budgets/bulk-action", bulk())[1]
    message = "tenant acme is closed; what it owns cannot be changed"
    failed = {"id": site.budget["ledger_id"], "error_code": "INVALID_TRANSITION", "message": message}
    assert (found["failed"], found["succeeded"]) == ([failed], [])


@pytest.mark.parametrize(
    ("action", "before", "ended", "after"),
    [
        ("SUSPEND", "ACTIVE", "succeeded", "SUSPENDED"),
        ("SUSPEND", "SUSPENDED", "skipped", "SUSPENDED"),
        ("REACTIVATE", "SUSPENDED", "succeeded", "ACTIVE"),
        ("REACTIVATE", "ACTIVE", "skipped", "ACTIVE"),
        ("CLOSE", "SUSPENDED", "succeeded", "CLOSED"),
        ("CLOSE", "CLOSED", "skipped", "CLOSED"),
        ("SUSPEND", "CLOSED", "failed", "CLOSED"),
    ],
)
def test_a_bulk_action_on_tenants(site: Site, action: str, before: str, ended: str, after: str) -> None:
    site.made("tenants", tenant_id="beta", name="Beta", parent_tenant_id="acme")
    site.send("PATCH", "tenants/beta", {"status": before})
    form = {"filter": {"parent_tenant_id": "acme"}, "action": action, "idempotency_key": "k-1"}
    status, found = site.send("POST", "tenants/bulk-action", form)
    rows: dict[str, Any] = {
        "succeeded": {"id": "beta"},
        "skipped": {"id": "beta", "reason": "ALREADY_IN_TARGET_STATE"},
        "failed": {
            "id": "beta",
            "error_code": "INVALID_TRANSITION",
            "message": "tenant beta is closed; no other status can follow",
        },
    }
    assert (status, found["total_matched"]) == (200, 1)
    assert {name: found[name] for name in rows} == {name: [rows[name]] if name == ended else [] for name in rows}
    assert [site.send("GET", f"tenants/{name}")[1]["status"] for name in ("beta", "acme")] == [after, "ACTIVE"]
