"""The rules of the ledger, without HTTP: which request changes what, in which order, and up to which moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles.embedded.errors import ApiError
from cycles.embedded.ledger import Ledger
from cycles.embedded.operator import Operator
from cycles.embedded.records import Budget, BudgetWindow, Reservation
from cycles.embedded.tables import Tables

A, B = "tenant:acme", "tenant:acme/agent:b"
NOW, HOUR, DAY = 1_700_000_000_000, 3_600_000, 86_400_000
SUBJECT = {"tenant": "Acme", "agent": "b"}


def tokens(amount: int) -> dict[str, Any]:
    return {"unit": "TOKENS", "amount": amount}


class Place:
    """A ledger with a budget of 100 tokens at each of two scopes."""

    def __init__(self, *, is_next: bool = False, **members: Any) -> None:
        self.clock = cycles.ManualClock(NOW)
        self.tables = Tables()
        self.ledger = Ledger(self.tables, self.clock, has_policies=is_next)
        self.operator = Operator(self.ledger)
        self.keys = 0
        for scope in (A, B):
            self.operator.set_budget(scope, cycles.tokens(100), **(members if scope == A else {}))

    def key(self) -> str:
        self.keys += 1
        return f"k{self.keys}"

    def reserve(self, amount: int = 10, **members: Any) -> dict[str, Any]:
        fixed: dict[str, Any] = {
            "idempotency_key": self.key(), "subject": SUBJECT, "action": {"kind": "a", "name": "b"},
            "estimate": tokens(amount), "grace_period_ms": 5_000, "dry_run": False,
        }  # fmt: skip
        return self.ledger.reserve("acme", {**fixed, **members})

    def decide(self, amount: int = 10, **members: Any) -> dict[str, Any]:
        fixed = {"idempotency_key": self.key(), "subject": SUBJECT, "action": {"kind": "a", "name": "b"}}
        return self.ledger.decide("acme", {**fixed, "estimate": tokens(amount), **members})

    def event(self, amount: int = 10, **members: Any) -> dict[str, Any]:
        fixed = {"idempotency_key": self.key(), "subject": SUBJECT, "action": {"kind": "a", "name": "b"}}
        return self.ledger.event("acme", {**fixed, "actual": tokens(amount), **members})

    def commit(self, rid: str, amount: int, **members: Any) -> dict[str, Any]:
        return self.ledger.commit("acme", rid, {"idempotency_key": self.key(), "actual": tokens(amount), **members})

    def release(self, rid: str) -> dict[str, Any]:
        return self.ledger.release("acme", rid, {"idempotency_key": self.key()})

    def extend(self, rid: str, by_ms: int = 1_000) -> dict[str, Any]:
        return self.ledger.extend("acme", rid, {"idempotency_key": self.key(), "extend_by_ms": by_ms})

    def row(self, rid: str) -> Reservation:
        with self.ledger.locked():
            return self.tables.reservations[(rid,)]

    def numbers(self, scope: str = B) -> tuple[int, int, int, bool]:
        """Return what is reserved, spent and owed, and whether the budget is over its limit."""
        with self.ledger.locked():
            budget = self.tables.budgets[(scope, "TOKENS")]
        return budget.reserved, budget.spent, budget.debt, budget.is_over_limit

    def balances(self) -> list[dict[str, Any]]:
        return [self.tables.budgets[(scope, "TOKENS")].balance() for scope in (A, B)]


def code_of(call: Callable[..., Any], *args: Any, **members: Any) -> tuple[str, str]:
    """Return code and message of an error response."""
    with pytest.raises(ApiError) as caught:
        call(*args, **members)
    return caught.value.code, caught.value.message


# --- reserve --------------------------------------------------------------------------------------------------------


def test_the_response_and_the_record_of_a_reservation() -> None:
    place = Place()
    made = place.reserve(10, ttl_ms=20_000, metadata={"m": 1})
    row = place.row(made["reservation_id"])
    assert made == {
        "decision": "ALLOW", "reservation_id": row.reservation_id, "affected_scopes": [A, B],
        "expires_at_ms": NOW + 20_000, "remaining_ttl_ms": 20_000, "scope_path": B, "reserved": tokens(10),
        "balances": place.balances(),
    }  # fmt: skip
    assert row.to_json() == {
        "reservation_id": made["reservation_id"], "number": 1, "tenant": "acme", "idempotency_key": "k1",
        "subject": SUBJECT, "action": {"kind": "a", "name": "b"}, "unit": "TOKENS", "reserved": 10,
        "overage_policy": "ALLOW_IF_AVAILABLE", "scopes": (A, B), "budgeted": (A, B), "created_at_ms": NOW,
        "expires_at_ms": NOW + 20_000, "grace_period_ms": 5_000, "max_extensions": 10, "metadata": {"m": 1},
        "status": "ACTIVE", "extensions": 0, "charged": None, "finalized_at_ms": None, "committed_metadata": None,
        "counted": (),
    }  # fmt: skip
    assert (place.numbers(A), place.numbers()) == ((10, 0, 0, False), (10, 0, 0, False))
    again = place.reserve(grace_period_ms=None)
    assert place.row(again["reservation_id"]).grace_period_ms == 5_000
    assert place.row(again["reservation_id"]).number == 2
    assert Ledger(place.tables, place.clock).reserve("acme", _form(place)) | {"reservation_id": ""}
    assert max(row.number for row in place.tables.reservations.values()) == 3  # the numbers of a file continue


def test_the_numbers_of_a_file_continue_also_if_its_first_reservations_were_deleted() -> None:
    place = Place()
    first, *_ = (place.reserve(1)["reservation_id"] for _ in range(3))
    place.commit(first, 1)
    place.clock.advance(30 * DAY + 1)
    assert len(place.operator.reservations()) == 2
    again = Ledger(place.tables, place.clock)
    again.reserve("acme", _form(place))
    assert [row.number for row in place.tables.reservations.values()] == [2, 3, 4]


def _form(place: Place) -> dict[str, Any]:
    return {
        "idempotency_key": place.key(), "subject": SUBJECT, "action": {"kind": "a", "name": "b"},
        "estimate": tokens(1), "grace_period_ms": 0, "dry_run": False,
    }  # fmt: skip


FUND_IT = f"{A} is over its limit; fund it or repay its debt"
WRONG: dict[str, tuple[dict[str, Any], int, str, str]] = {  # members of the outer budget, an amount, code, message
    "frozen": ({"status": "FROZEN"}, 1, "BUDGET_FROZEN", f"the budget of {A} is frozen; unfreeze it to spend from it"),
    "closed": ({"status": "CLOSED"}, 1, "BUDGET_CLOSED", f"the budget of {A} is closed; a closed budget stays closed"),
    "over": ({"is_over_limit": True}, 1, "OVERDRAFT_LIMIT_EXCEEDED", FUND_IT),
    "debt": ({"debt": 1}, 1, "DEBT_OUTSTANDING", f"{A} has debt and no overdraft limit; repay the debt"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_why_a_budget_denies(name: str) -> None:
    members, amount, code, message = WRONG[name]
    place = Place(**members)
    assert code_of(place.reserve, amount) == (code, message)
    scopes: dict[str, Any] = {"affected_scopes": [A, B]}
    assert place.decide(amount) == {"decision": "DENY", "reason_code": code, **scopes}
    dry = place.reserve(amount, dry_run=True)
    assert dry == {"decision": "DENY", "reason_code": code, **scopes, "scope_path": B}
    assert place.tables.reservations == {}
    is_charged = name in ("over", "debt")  # an event is an amount that was spent
    if is_charged:
        assert place.event(1)["status"] == "APPLIED"
    else:
        assert code_of(place.event, 1)[0] == code


def test_a_budget_with_debt_below_its_limit_and_the_last_amount() -> None:
    place = Place(debt=1, overdraft_limit=1)
    assert place.reserve(99)["decision"] == "ALLOW"
    code, _ = code_of(place.reserve, 1)
    assert (code, place.numbers(), place.numbers(A)) == ("BUDGET_EXCEEDED", (99, 0, 0, False), (99, 0, 1, False))
    assert place.decide(1)["reason_code"] == "BUDGET_EXCEEDED"
    assert place.decide(0)["decision"] == "ALLOW"


def test_a_dry_run_and_caps() -> None:
    place = Place()
    dry = place.reserve(10, dry_run=True)
    assert dry == {
        "decision": "ALLOW", "affected_scopes": [A, B], "scope_path": B, "reserved": tokens(10),
        "balances": place.balances(),
    }  # fmt: skip
    place.operator.set_budget(A, cycles.tokens(100), caps={"max_tokens": 1})
    assert place.decide()["decision"] == "ALLOW"  # only the deepest scope has caps
    place.operator.set_budget(B, cycles.tokens(100), caps={"max_tokens": 5})
    capped = {"decision": "ALLOW_WITH_CAPS", "caps": {"max_tokens": 5}}
    assert place.decide() == {**capped, "affected_scopes": [A, B]}
    for made in (place.reserve(), place.reserve(dry_run=True)):
        assert {name: made[name] for name in capped} == capped
    assert list(place.decide()) == ["decision", "caps", "affected_scopes"]


def test_a_repeated_request_gets_the_stored_response() -> None:
    place = Place()
    key: dict[str, Any] = {"idempotency_key": "same"}
    calls: list[Callable[[], Any]] = [
        lambda: place.decide(**key),
        lambda: place.reserve(dry_run=True, **key),
        lambda: place.event(**key),
    ]
    first = [call() for call in calls]
    place.operator.set_budget(A, cycles.tokens(1), status="FROZEN")
    assert [call() for call in calls] == first
    assert place.numbers(B) == (0, 10, 0, False)
    assert code_of(place.decide, 11, **key)[0] == "IDEMPOTENCY_MISMATCH"


def test_scopes_without_a_budget_in_the_unit() -> None:
    place = Place()
    place.operator.set_budget(B, cycles.usd(1))
    for call in (place.reserve, place.decide):
        other: dict[str, Any] = {"estimate": {"unit": "CREDITS", "amount": 1}}
        with pytest.raises(ApiError, match=f"{A} has no budget in CREDITS; send one of TOKENS") as caught:
            call(**other)
        details = {"scope": A, "requested_unit": "CREDITS", "expected_units": ["TOKENS"]}
        assert (caught.value.code, caught.value.details) == ("UNIT_MISMATCH", details)
    unknown: dict[str, Any] = {"subject": {"tenant": "other"}}
    assert code_of(place.reserve, **unknown) == ("NOT_FOUND", "no budget for tenant:other")
    assert code_of(place.event, **unknown) == ("NOT_FOUND", "no budget for tenant:other")
    assert code_of(place.event, actual={"unit": "CREDITS", "amount": 1})[0] == "UNIT_MISMATCH"
    assert place.decide(**unknown)["reason_code"] == "BUDGET_NOT_FOUND"
    assert place.reserve(dry_run=True, **unknown)["reason_code"] == "BUDGET_NOT_FOUND"


@pytest.mark.parametrize(("is_next", "detail"), [(False, None), (True, {"reason_code": "TENANT_CLOSED"})])
def test_a_closed_tenant(is_next: bool, detail: Any) -> None:
    place = Place(is_next=is_next)
    rid = place.reserve()["reservation_id"]
    place.operator.set_tenant("acme", status="CLOSED")
    for call in (place.reserve, place.event):
        assert code_of(call)[0] == "TENANT_CLOSED"
    for settle in (place.release, place.extend):
        assert code_of(settle, rid)[0] == "TENANT_CLOSED"
    assert code_of(place.commit, rid, 1)[0] == "TENANT_CLOSED"
    denied = place.decide()
    assert (denied["reason_code"], denied.get("deny_detail")) == ("TENANT_CLOSED", detail)
    place.operator.set_tenant("acme", status="ODD")
    assert code_of(place.decide)[0] == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("is_next", "dry_run", "mode", "makes_one"),
    [
        (True, False, "OBSERVE", False),
        (True, True, "OBSERVE", False),
        (True, False, "ENFORCE", True),
        (False, False, "OBSERVE", True),
    ],
)
def test_a_live_reservation_that_is_only_observed(is_next: bool, dry_run: bool, mode: str, makes_one: bool) -> None:
    place = Place(is_next=is_next)
    made = place.reserve(observe_mode=mode, dry_run=dry_run)
    assert (("reservation_id" in made), len(place.tables.reservations)) == (makes_one, int(makes_one))
    (stored,) = place.tables.responses.values()
    assert stored.observed is (is_next and not dry_run and not makes_one)
    assert stored.reservation_id == (made["reservation_id"] if makes_one else None)


# --- settle ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "policy", "charged", "released", "after"),
    [
        (0, "REJECT", 0, 10, (0, 0, 0, False)),
        (9, "REJECT", 9, 1, (0, 9, 0, False)),
        (10, "REJECT", 10, None, (0, 10, 0, False)),
        (11, "ALLOW_IF_AVAILABLE", 11, None, (0, 11, 0, False)),
        (101, "ALLOW_IF_AVAILABLE", 100, None, (0, 100, 0, True)),
    ],
)
def test_a_commit(
    actual: int, policy: str, charged: int, released: int | None, after: tuple[int, int, int, bool]
) -> None:
    place = Place()
    rid = place.reserve(overage_policy=policy)["reservation_id"]
    place.clock.advance(7)
    done = place.commit(rid, actual, metadata={"m": 2})
    expected = {"status": "COMMITTED", "charged": tokens(charged), "balances": place.balances()}
    assert done == expected | ({} if released is None else {"released": tokens(released)})
    row = place.row(rid)
    assert (row.status, row.finalized_at_ms, row.charged, row.committed_metadata) == (
        "COMMITTED", NOW + 7, charged, {"m": 2},
    )  # fmt: skip
    assert place.numbers() == after
    for call in (place.release, place.extend):
        assert code_of(call, rid) == ("RESERVATION_FINALIZED", f"reservation {rid} is COMMITTED already; reserve again")
    assert code_of(place.commit, rid, 1)[0] == "RESERVATION_FINALIZED"
    assert place.ledger.get("acme", rid) == row


def test_a_commit_that_is_rejected_changes_nothing() -> None:
    place = Place()
    rid = place.reserve(overage_policy="REJECT")["reservation_id"]
    assert code_of(place.commit, rid, 11)[0] == "BUDGET_EXCEEDED"
    mismatch = code_of(place.commit, rid, 1, actual={"unit": "CREDITS", "amount": 1})
    assert mismatch == ("UNIT_MISMATCH", "actual is in CREDITS, but the reservation is in TOKENS; send TOKENS")
    assert (place.row(rid).status, place.numbers()) == ("ACTIVE", (10, 0, 0, False))


def test_a_release() -> None:
    place = Place()
    rid, other = place.reserve()["reservation_id"], place.reserve(5)["reservation_id"]
    place.clock.advance(3)
    done = place.release(rid)
    assert done == {"status": "RELEASED", "released": tokens(10), "balances": place.balances()}
    row = place.row(rid)
    assert (row.status, row.finalized_at_ms, row.charged, place.numbers()) == (
        "RELEASED",
        NOW + 3,
        None,
        (5, 0, 0, False),
    )
    assert code_of(place.commit, rid, 1) == (
        "RESERVATION_FINALIZED", f"reservation {rid} is RELEASED already; reserve again",
    )  # fmt: skip
    key = {"idempotency_key": "admin"}
    assert place.ledger.release(None, other, key)["status"] == "RELEASED"  # the admin key
    assert place.ledger.release(None, other, key)["status"] == "RELEASED"  # again: the stored response
    belongs = ("FORBIDDEN", "the reservation belongs to another tenant; send a key of that tenant")
    for call in (place.ledger.commit, place.ledger.release, place.ledger.extend):
        assert code_of(call, "other", rid, key) == belongs
        assert code_of(call, "acme", "nope", key) == ("NOT_FOUND", "reservation not found: nope")
    assert code_of(place.ledger.get, "other", rid) == belongs


# --- time -----------------------------------------------------------------------------------------------------------


def test_an_extension_is_replayed_until_its_lease_ends() -> None:
    place = Place()
    rid = place.reserve(ttl_ms=1_000)["reservation_id"]
    request = {"idempotency_key": "once", "extend_by_ms": 500}
    made = place.ledger.extend("acme", rid, request)
    place.clock.advance(1_200)  # its lease would have ended without it
    again = place.ledger.extend("acme", rid, request)
    assert (again["expires_at_ms"], again["remaining_ttl_ms"]) == (made["expires_at_ms"], 300)
    assert (place.row(rid).expires_at_ms, place.row(rid).extensions) == (NOW + 1_500, 1)


def test_an_extension_counts_from_the_expiry() -> None:
    place = Place()
    place.operator.set_tenant("acme", max_reservation_extensions=2)
    rid = place.reserve(ttl_ms=1_000)["reservation_id"]
    place.clock.advance(1_000)  # the last moment of the lease
    made = place.extend(rid, 500)
    assert made == {
        "status": "ACTIVE", "expires_at_ms": NOW + 1_500, "remaining_ttl_ms": 500, "balances": place.balances(),
    }  # fmt: skip
    assert (place.row(rid).expires_at_ms, place.row(rid).extensions) == (NOW + 1_500, 1)
    place.extend(rid, 500)
    assert code_of(place.extend, rid) == ("MAX_EXTENSIONS_EXCEEDED", "all 2 extensions are used; reserve again")
    late = place.reserve(ttl_ms=1_000)["reservation_id"]
    place.clock.advance(1_001)
    assert code_of(place.extend, late) == ("RESERVATION_EXPIRED", f"reservation {late} has expired; reserve again")
    assert place.commit(late, 1)["status"] == "COMMITTED"  # in its grace period


@pytest.mark.parametrize("call", ["commit", "release"])
def test_a_lease_can_be_settled_until_the_end_of_its_grace_period(call: str) -> None:
    for late_ms in (0, 1):
        place = Place()
        rid = place.reserve(ttl_ms=1_000, grace_period_ms=200)["reservation_id"]
        place.clock.advance(1_200 + late_ms)
        args = (rid, 1) if call == "commit" else (rid,)
        if late_ms:
            expired = ("RESERVATION_EXPIRED", f"reservation {rid} has expired; reserve again")
            assert code_of(getattr(place, call), *args) == code_of(place.ledger.get, "acme", rid) == expired
            assert (place.numbers(A), place.numbers(), place.row(rid).finalized_at_ms) == (
                (0, 0, 0, False), (0, 0, 0, False), None,
            )  # fmt: skip
        else:
            assert getattr(place, call)(*args)["status"] in ("COMMITTED", "RELEASED")


@pytest.mark.parametrize("ends", ["commit", "expiry"])
def test_an_ended_reservation_is_stored_for_thirty_days(ends: str) -> None:
    place = Place()
    rid = place.reserve(ttl_ms=1_000, grace_period_ms=0)["reservation_id"]
    if ends == "commit":
        place.commit(rid, 1)
    place.clock.advance(30 * DAY + (0 if ends == "commit" else 1_000))
    assert place.row(rid).status == ("COMMITTED" if ends == "commit" else "EXPIRED")
    place.clock.advance(1)
    assert code_of(place.ledger.get, "acme", rid)[0] == "NOT_FOUND"
    assert place.tables.reservations == {}


# --- events ---------------------------------------------------------------------------------------------------------


def test_an_event() -> None:
    place = Place()
    made = place.event(10)
    assert made == {"status": "APPLIED", "event_id": made["event_id"], "balances": place.balances()}
    assert (place.numbers(A), place.numbers()) == ((0, 10, 0, False), (0, 10, 0, False))
    (stored,) = place.tables.responses.values()
    assert stored.charge == {"at_ms": NOW, "scope_path": B, "action": "a b", **tokens(10)}
    assert place.event(91)["charged"] == tokens(90)
    assert "charged" not in place.event(0, action={"kind": "a"})
    stored_charges = [each.charge for each in place.tables.responses.values() if each.charge]
    assert [(each["action"], each["amount"]) for each in stored_charges] == [("a b", 10), ("a b", 90), ("a", 0)]
    assert code_of(place.event, 1, overage_policy="REJECT")[0] == "BUDGET_EXCEEDED"
    assert place.event(0, overage_policy="REJECT")["status"] == "APPLIED"


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("debt", "limit", "was_over", "is_over"),
    [(0, 0, True, False), (5, 5, True, False), (6, 5, True, True), (6, 5, False, False)],
)
def test_a_window_that_begins(debt: int, limit: int, was_over: bool, is_over: bool) -> None:
    place = Place(debt=debt, overdraft_limit=limit, spent=7, is_over_limit=was_over)
    place.operator.set_window(A, cycles.window(cycles.tokens(1), "hour"), "TOKENS")
    window = place.operator.window(A, "TOKENS")
    assert window is not None
    place.clock.advance(window.ends_ms - NOW - 1)
    assert place.numbers(A) == (0, 7, debt, was_over)
    place.clock.advance(1)
    assert place.numbers(A) == (0, 0, debt, is_over)
    begun = place.operator.window(A, "TOKENS")
    assert begun == evolve(window, ends_ms=window.ends_ms + HOUR)
    place.clock.advance(3 * HOUR)  # two were missed
    assert place.operator.window(A, "TOKENS") == evolve(window, ends_ms=window.ends_ms + 4 * HOUR)


def test_the_next_window_of_a_budget() -> None:
    place = Place(spent=7)
    hour, day = (cycles.window(cycles.tokens(1), period) for period in ("hour", "day"))
    berlin = cycles.window(cycles.tokens(1), "hour", timezone="Europe/Berlin")

    def upcoming() -> tuple[str | None, str | None]:
        window = place.operator.window(A, "TOKENS")
        assert window is not None
        return window.next_period, window.next_timezone

    place.operator.set_window(A, None, "TOKENS")
    assert place.operator.window(A, "TOKENS") is None
    place.operator.set_window(A, hour, "TOKENS")
    assert upcoming() == (None, None)
    for window, expected in (
        (day, ("day", "UTC")), (berlin, ("hour", "Europe/Berlin")), (None, ("", None)), (hour, (None, None)),
        (None, ("", None)),
    ):  # fmt: skip
        place.operator.set_window(A, window, "TOKENS")
        assert upcoming() == expected
    place.clock.advance(HOUR)
    assert (place.operator.window(A, "TOKENS"), place.numbers(A)[1]) == (None, 7)  # it was the last one
    with pytest.raises(KeyError, match="no budget for tenant:acme in USD_MICROCENTS"):
        place.operator.set_window(A, hour)


def test_a_window_without_its_budget_is_deleted() -> None:
    place = Place()
    place.tables.apply(BudgetWindow(scope="tenant:x", unit="TOKENS", period="hour", timezone="UTC", ends_ms=NOW))
    with place.ledger.locked():
        assert place.tables.windows == {}


# --- the operator ---------------------------------------------------------------------------------------------------


def test_what_the_operator_sets() -> None:
    place = Place()
    rid = place.reserve(10)["reservation_id"]
    for reserved, held in ((0, 10), (9, 10), (11, 11)):
        place.operator.set_budget(A, cycles.tokens(50), reserved=reserved, caps={"max_tokens": 1, "cooldown_ms": None})
        budget = place.tables.budgets[(A, "TOKENS")]
        assert (budget.reserved, budget.caps, budget.allocated) == (held, {"max_tokens": 1}, 50)
    place.release(rid)
    place.operator.set_budget(B, cycles.tokens(50), caps={})
    budget = place.tables.budgets[(B, "TOKENS")]
    assert (budget.reserved, budget.caps) == (0, {})
    outside: list[dict[str, Any]] = [{"spent": 2**63}]
    outside += [{name: -1} for name in ("reserved", "spent", "debt", "overdraft_limit")]
    for wrong in outside:
        with pytest.raises(cycles.InvalidRequestError, match=f"a number of {A} is out of range; use 0 to {2**63 - 1}"):
            place.operator.set_budget(A, cycles.tokens(50), **wrong)
    with pytest.raises(cycles.InvalidRequestError, match="unknown cap: 'a'; use max_tokens, max_steps_remaining"):
        place.operator.set_budget(A, cycles.tokens(50), status="FROZEN", caps={"b": 1, "max_tokens": 1, "a": 1})
    place.operator.set_allocated(A, cycles.tokens(60))
    assert evolve(place.tables.budgets[(A, "TOKENS")], caps=None) == Budget(
        scope=A, unit="TOKENS", allocated=60, reserved=1
    )
    place.operator.set_allocated("tenant:New", cycles.tokens(5))
    assert place.tables.budgets[("tenant:new", "TOKENS")] == Budget(scope="tenant:new", unit="TOKENS", allocated=5)


@pytest.mark.parametrize(
    ("debt", "limit", "amount", "after"),
    [(0, 0, 5, (0, 105, False)), (3, 0, 2, (1, 100, True)), (3, 1, 2, (1, 100, False)), (3, 0, 5, (0, 102, False))],
)
def test_what_a_payment_changes(debt: int, limit: int, amount: int, after: tuple[int, int, bool]) -> None:
    place = Place(debt=debt, overdraft_limit=limit, is_over_limit=True)
    place.operator.fund(A, cycles.tokens(amount))
    budget = place.tables.budgets[(A, "TOKENS")]
    assert (budget.debt, budget.allocated, budget.is_over_limit) == after
    place.operator.set_budget(B, cycles.tokens(1))
    place.operator.fund(B, cycles.tokens(1))
    assert place.numbers()[3] is False


def test_budgets_in_several_units() -> None:
    place = Place(status="FROZEN", spent=3, debt=2, is_over_limit=True)
    place.operator.set_budget(A, cycles.usd(1))
    for call in (lambda: place.operator.balance(A), lambda: place.operator.set_status(A, "ACTIVE")):
        with pytest.raises(cycles.InvalidRequestError, match=f"{A} has budgets in TOKENS, USD_MICROCENTS; pass unit="):
            call()
    with pytest.raises(KeyError, match=f"no budget for {A} in CREDITS; set_budget"):
        place.operator.balance(A, "CREDITS")
    with pytest.raises(KeyError, match="no budget for tenant:x; set_budget"):
        place.operator.balance("tenant:x")
    place.operator.set_status(A, "CLOSED", "TOKENS")
    assert [place.tables.budgets[(A, unit)].status for unit in ("TOKENS", "USD_MICROCENTS")] == ["CLOSED", "ACTIVE"]
    place.operator.reset_spent()
    assert place.numbers(A) == (0, 0, 0, False)
    for unit in ("hour", "day"):
        place.operator.set_window(A, cycles.window(cycles.tokens(1), unit), "TOKENS")
    place.operator.set_window(A, cycles.window(cycles.usd(1), "day"))
    assert (place.operator.scopes(), place.operator.tenants()) == ([A, B], ["acme"])
    place.operator.delete_budget("tenant:Acme", "TOKENS")
    assert (place.operator.window(A, "TOKENS"), place.operator.window(A) is None) == (None, False)
    place.operator.delete_budget(A)
    assert (place.operator.window(A), place.operator.scopes()) == (None, [B])
    place.operator.delete_budget(A)


def test_the_keys_and_lists_of_the_operator() -> None:
    place = Place()
    key = place.operator.api_key_for("acme")
    assert (key.startswith("cyc_live_"), len(key), place.operator.api_key_for("acme")) == (True, 49, key)
    assert place.operator.api_key_for("Acme") != key
    place.operator.set_api_key("cyc_live_x", tenant="third")
    assert place.operator.api_key_for("third") != "cyc_live_x"  # only its own keys
    place.operator.set_api_key(key, tenant="acme", status="REVOKED", expires_at_ms=5)
    record = place.tables.api_keys[(key,)]
    assert (record.status, record.expires_at_ms, record.minted, place.operator.api_key_for("acme")) == (
        "REVOKED", 5, True, key,
    )  # fmt: skip
    assert place.operator.api_keys()[0] == key
    assert len(place.operator.api_keys()) == 4
    first, second = (place.reserve(1)["reservation_id"] for _ in range(2))
    place.commit(first, 1)
    assert place.operator.active_reservations() == [second]
    budgets, rows, responses = place.operator.records()
    assert ([each.scope for each in budgets], [each.reservation_id for each in rows]) == ([A, B], [first, second])
    assert [each.operation for each in responses] == ["reserve", "reserve", "commit"]
    assert [each.scope for each in place.operator.budgets_of(["tenant:x", B], "TOKENS")] == [B]
    assert place.operator.budgets_of([B], "CREDITS") == ()
    place.operator.set_tenant("acme", max_reservation_ttl_ms=5)
    assert place.reserve(1)["remaining_ttl_ms"] == 5
    place.operator.delete_tenant("acme")
    place.operator.delete_tenant("acme")
    assert place.reserve(1)["remaining_ttl_ms"] == 60_000


def test_an_observer_gets_each_change_while_the_ledger_is_locked() -> None:
    place = Place()
    seen: list[Any] = []
    place.operator.observe(seen.append)
    before = place.tables.budgets[(A, "TOKENS")]
    place.operator.set_status(A, "FROZEN")
    assert seen == [[(before, evolve(before, status="FROZEN"))]]
    with place.operator.locked() as now_ms:
        assert now_ms == NOW


def test_the_forecasts_of_the_operator() -> None:
    place = Place()
    for _ in range(3):
        place.commit(place.reserve(10)["reservation_id"], 10)
        place.clock.advance(60_000)
    place.reserve(1)
    found = [(each.scope, each.rate_per_hour) for each in place.operator.forecasts()]
    assert found == [(A, 600), (B, 600)]
    place.operator.set_window(A, cycles.window(cycles.tokens(1), "minute"), "TOKENS")
    assert [each.scope for each in place.operator.forecasts()] == [B]  # the budget begins again before it is used up


def test_a_commit_of_nothing_counts_for_the_pace_and_an_active_reservation_does_not() -> None:
    place = Place()
    for amount in (10, 0):
        place.commit(place.reserve(10)["reservation_id"], amount)
        place.clock.advance(60_000)
    place.reserve(10)
    assert place.operator.forecasts() == []
    place.commit(place.reserve(10)["reservation_id"], 0)
    assert [(each.scope, each.rate_per_hour) for each in place.operator.forecasts()] == [(A, 300), (B, 300)]


# --- quotas ---------------------------------------------------------------------------------------------------------

RUN = {**SUBJECT, "dimensions": {"run_id": "r1"}}


def test_the_order_of_tenant_quota_and_budget() -> None:
    place = Place(is_next=True)
    place.operator.set_policy("p", A, quotas=[{"action_kind": "a", "window": "per_run", "limit": 2}])
    first = place.reserve(subject=RUN)["reservation_id"]
    assert place.row(first).counted == ('["acme", "tenant:acme", "a", "", "per_run", "r1"]',)
    place.reserve(subject=RUN)
    said = "the quota of a is used up: 2 of 2, per_run; wait or raise the limit"
    assert code_of(place.reserve, subject=RUN) == ("ACTION_QUOTA_EXCEEDED", said)
    place.operator.set_budget(A, cycles.tokens(100), status="FROZEN")
    assert code_of(place.reserve, subject=RUN)[0] == "ACTION_QUOTA_EXCEEDED"
    denied = place.decide(subject=RUN)
    assert (denied["reason_code"], denied["deny_detail"]["blocked_by_policy"]) == ("ACTION_QUOTA_EXCEEDED", "p")
    place.release(first)
    assert code_of(place.reserve, subject=RUN)[0] == "BUDGET_FROZEN"
    assert place.decide(subject=RUN)["deny_detail"] == {"reason_code": "BUDGET_FROZEN"}
    place.reserve(subject=RUN, dry_run=True)
    (counter,) = place.tables.counters.values()
    assert counter.used == 1  # what is denied, and a dry run, do not count
    place.operator.set_budget(A, cycles.tokens(100))
    place.reserve(subject=RUN)
    assert place.decide(subject=RUN)["reason_code"] == "ACTION_QUOTA_EXCEEDED"
    place.operator.set_tenant("acme", status="CLOSED")
    assert place.decide(subject=RUN)["reason_code"] == "TENANT_CLOSED"


def test_an_expired_reservation_leaves_its_run() -> None:
    place = Place(is_next=True)
    place.operator.set_policy("p", A, quotas=[{"action_kind": "a", "window": "per_run", "limit": 1}])
    place.reserve(subject=RUN, ttl_ms=1_000, grace_period_ms=0)
    assert code_of(place.reserve, subject=RUN)[0] == "ACTION_QUOTA_EXCEEDED"
    place.clock.advance(1_001)
    assert place.reserve(subject=RUN)["decision"] == "ALLOW"


def test_a_quota_of_a_run_counts_as_long_as_the_run_lasts() -> None:
    place = Place(is_next=True)
    place.operator.set_policy("p", A, quotas=[{"action_kind": "a", "window": "per_run", "limit": 3}])
    for _ in range(3):
        place.commit(place.reserve(1, subject=RUN)["reservation_id"], 1)
        place.clock.advance(DAY - 1)
    assert code_of(place.reserve, subject=RUN)[0] == "ACTION_QUOTA_EXCEEDED"
    place.clock.advance(2)  # a day without an action of the run
    assert place.reserve(1, subject=RUN)["decision"] == "ALLOW"


def test_each_risk_class_has_a_counter_of_its_own() -> None:
    place = Place(is_next=True)
    place.operator.set_action_kind("custom.x", risk_class="high_risk")
    quotas = [{"risk_class": each, "window": "per_run", "limit": 2} for each in ("side_effect", "high_risk")]
    place.operator.set_policy("p", A, quotas=quotas)
    risky = {"kind": "custom.x", "name": "n"}
    for action in ({"kind": "a", "name": "n"}, risky):
        for _ in range(2):
            place.reserve(1, subject=RUN, action=action)
    assert [(each.risk_class, each.used) for each in place.tables.counters.values()] == [
        ("side_effect", 2), ("high_risk", 2),
    ]  # fmt: skip
    assert code_of(place.reserve, subject=RUN, action=risky)[0] == "ACTION_QUOTA_EXCEEDED"


def test_quotas_need_the_next_protocol() -> None:
    place = Place()
    place.operator.set_policy("p", A, denied_kinds=["a"])
    assert (place.reserve()["decision"], place.decide()["decision"], place.tables.counters) == ("ALLOW", "ALLOW", {})


def test_each_budget_is_checked_completely_before_the_next() -> None:
    place = Place()
    place.operator.set_budget(A, cycles.tokens(5))
    place.operator.set_budget(B, cycles.tokens(5), status="FROZEN")
    assert code_of(place.event, 6, overage_policy="REJECT")[0] == "BUDGET_EXCEEDED"
    assert code_of(place.event, 6, overage_policy="ALLOW_IF_AVAILABLE")[0] == "BUDGET_FROZEN"
    assert code_of(place.reserve, 6)[0] == "BUDGET_EXCEEDED"
    assert code_of(place.reserve, 5)[0] == "BUDGET_FROZEN"


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        ({"x": 1, "b": 2}, "unknown member of a quota: 'b'; use action_kind, risk_class, window, limit, hosts"),
        ({}, "a quota needs action_kind or risk_class, and not both"),
        ({"action_kind": "a", "risk_class": "high_risk"}, "a quota needs action_kind or risk_class, and not both"),
        ({"action_kind": "a", "window": "day"}, "window must be one of per_run, per_minute_tumbling, "),
        ({"action_kind": "a", "window": "per_run"}, "limit must be an integer of 0 or more, got None"),
        ({"action_kind": "a", "window": "per_run", "limit": -1}, "limit must be an integer of 0 or more, got -1"),
        ({"action_kind": "a", "window": "per_run", "limit": True}, "limit must be an integer of 0 or more, got True"),
        ({"action_kind": "a", "window": "per_run", "limit": 1.0}, "limit must be an integer of 0 or more, got 1.0"),
    ],
)
def test_a_wrong_quota(quota: dict[str, Any], message: str) -> None:
    place = Place()
    with pytest.raises(cycles.InvalidRequestError) as caught:
        place.operator.set_policy("p", A, quotas=[quota])
    assert str(caught.value).startswith(message)
    assert place.tables.policies == {}


def test_what_the_operator_sets_for_actions() -> None:
    place = Place()
    quota = {"action_kind": "a", "window": "per_run", "limit": 0, "hosts": ("x", "y")}
    place.operator.set_policy(
        "p", "tenant:ACME", priority=3, allowed_kinds=iter(["a"]), denied_kinds={"b"}, quotas=[quota]
    )
    policy = place.tables.policies[("p",)]
    assert policy.to_json() == {
        "name": "p", "scope": A, "priority": 3, "allowed_kinds": ("a",), "denied_kinds": ("b",),
        "quotas": ({**quota, "hosts": ["x", "y"]},),
    }  # fmt: skip
    place.operator.set_policy("p", A)
    policy = place.tables.policies[("p",)]
    assert (policy.priority, policy.allowed_kinds, policy.denied_kinds, policy.quotas) == (0, None, (), ())
    for _ in range(2):
        place.operator.delete_policy("p")
    assert place.tables.policies == {}
    place.operator.set_action_kind("custom.x")
    assert place.tables.admin_info[("action_kind", "custom.x")].values == {"risk_class": "side_effect"}
    place.operator.set_action_kind("custom.x", risk_class="read_only", replacement_kind="custom.y")
    values = {"risk_class": "read_only", "deprecated": True, "replacement_kind": "custom.y"}
    assert place.tables.admin_info[("action_kind", "custom.x")].values == values
    with pytest.raises(cycles.InvalidRequestError, match=r"risk_class must be one of read_only, .*, got 'x'"):
        place.operator.set_action_kind("custom.x", risk_class="x")
