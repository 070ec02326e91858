"""Random operations on a ledger and on a slow and obvious model: every response and every number must agree."""

from __future__ import annotations

from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

import cycles
from cycles.embedded import EmbeddedServer
from tests.support.short import fewer

from .model import Account, Hold, Model, outcome

SCOPES = ["tenant:acme", "tenant:acme/workspace:w", "tenant:acme/workspace:w/agent:a", "tenant:acme/agent:a"]
SUBJECTS: list[dict[str, str]] = [
    {"tenant": "acme"},
    {"tenant": "acme", "workspace": "W"},
    {"tenant": "acme", "workspace": "w", "agent": "A"},
    {"tenant": "acme", "agent": "a"},
    {"agent": "a"},
]
POLICIES = ["REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"]
ACTION = {"kind": "k", "name": "n"}

# Few values, so that sums often equal limits and times often equal expiries.
amounts = st.sampled_from([0, 1, 5, 10, 15, 20])
times = st.sampled_from([1, 500, 1000])
subjects = st.sampled_from(SUBJECTS)
policies = st.sampled_from(POLICIES)


def tokens(value: int) -> dict[str, Any]:
    return {"unit": "TOKENS", "amount": value}


class Lives(RuleBasedStateMachine):
    """Every rule runs an operation on the server and on the model."""

    holds: Bundle[tuple[str, Hold]] = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.clock = cycles.ManualClock(0)
        self.server = EmbeddedServer(clock=self.clock)
        headers = {"X-Cycles-API-Key": self.server.api_key_for("acme")}
        self.http = httpx.Client(transport=self.server.transport(), base_url="http://x", headers=headers)
        self.model = Model()
        self.keys = 0

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.keys += 1
        body = {"idempotency_key": str(self.keys), **body}
        first = self.http.post(path, json=body)
        again = self.http.post(path, json=body)  # a repetition gets the same response and changes nothing
        assert again.status_code == first.status_code
        if not first.is_error:
            assert again.json() == first.json()
        return first.status_code, first.json()

    @initialize(
        limits=st.lists(st.sampled_from([0, 10, 20]), min_size=4, max_size=4),
        sizes=st.lists(amounts, min_size=4, max_size=4),
    )
    def budgets(self, limits: list[int], sizes: list[int]) -> None:
        for scope, limit, size in zip(SCOPES[:3], limits, sizes, strict=False):
            self.put(scope, 2 * size, limit)

    def put(self, scope: str, allocated: int, limit: int) -> None:
        self.server.ledger.set_budget(scope, cycles.tokens(allocated), overdraft_limit=limit)
        self.model.accounts[scope] = Account(allocated, limit)

    @rule(
        target=holds,
        subject=subjects,
        estimate=amounts,
        policy=policies,
        ttl=st.sampled_from([1000, 1500]),
        grace=times,
    )
    def reserve(self, subject: dict[str, str], estimate: int, policy: str, ttl: int, grace: int) -> Any:
        body = {"subject": subject, "action": ACTION, "estimate": tokens(estimate)}
        lease = {"ttl_ms": ttl, "grace_period_ms": grace, "overage_policy": policy}
        status, response = self.post("/v1/reservations", body | lease)
        expected = self.model.reserve(subject, estimate, policy, ttl, grace)
        assert outcome(status, response) == expected
        if status != 200:
            return response.get("reservation_id", "none"), Hold([], 0, "", 0, 0, "UNKNOWN")
        return response["reservation_id"], self.model.holds[-1]

    @rule(subject=subjects, estimate=amounts, dry=st.booleans())
    def ask(self, subject: dict[str, str], estimate: int, dry: bool) -> None:
        body = {"subject": subject, "action": ACTION, "estimate": tokens(estimate)}
        path, more = ("/v1/reservations", {"dry_run": True}) if dry else ("/v1/decide", {})
        status, response = self.post(path, body | more)
        assert (status, response.get("reason_code")) == (200, self.model.decide(subject, estimate))

    @rule(hold=holds, actual=amounts)
    def commit(self, hold: tuple[str, Hold], actual: int) -> None:
        if hold[1].state != "UNKNOWN":
            response = self.post(f"/v1/reservations/{hold[0]}/commit", {"actual": tokens(actual)})
            assert outcome(*response) == self.model.commit(hold[1], actual)

    @rule(hold=holds)
    def release(self, hold: tuple[str, Hold]) -> None:
        if hold[1].state != "UNKNOWN":
            assert outcome(*self.post(f"/v1/reservations/{hold[0]}/release", {})) == self.model.release(hold[1])

    @rule(hold=holds, by=times)
    def extend(self, hold: tuple[str, Hold], by: int) -> None:
        if hold[1].state != "UNKNOWN":
            response = self.post(f"/v1/reservations/{hold[0]}/extend", {"extend_by_ms": by})
            assert outcome(*response) == self.model.extend(hold[1], by)

    @rule(subject=subjects, actual=amounts, policy=policies)
    def event(self, subject: dict[str, str], actual: int, policy: str) -> None:
        body = {"subject": subject, "action": ACTION, "actual": tokens(actual), "overage_policy": policy}
        assert outcome(*self.post("/v1/events", body)) == self.model.event(subject, actual, policy)

    @rule(ms=times)
    def wait(self, ms: int) -> None:
        self.clock.advance(ms)
        self.model.now += ms
        self.model.sweep()

    @rule(scope=st.sampled_from(SCOPES[:3]), money=amounts)
    def fund(self, scope: str, money: int) -> None:
        self.server.ledger.fund(scope, cycles.tokens(money))
        self.model.fund(self.model.accounts[scope], money)

    @rule(scope=st.sampled_from(SCOPES[:3]), status=st.sampled_from(["ACTIVE", "ACTIVE", "FROZEN", "CLOSED"]))
    def freeze(self, scope: str, status: str) -> None:
        now, account = self.server.ledger.balance(scope), self.model.accounts[scope]
        _, reserved, spent, debt = account.numbers
        self.server.ledger.set_budget(
            scope,
            cycles.tokens(account.allocated),
            reserved=reserved,
            spent=spent,
            debt=debt,
            overdraft_limit=account.limit,
            status=status,
            is_over_limit=bool(now.is_over_limit),
        )
        account.status = status

    @rule(size=amounts)
    def budget_that_comes_late(self, size: int) -> None:
        if SCOPES[3] not in self.model.accounts:
            self.put(SCOPES[3], size, 0)

    @invariant()
    def the_books_agree(self) -> None:
        shown = self.http.get("/v1/balances?tenant=acme").json()["balances"]
        assert len(shown) == len(self.model.accounts)
        for item in shown:
            account = self.model.accounts[item["scope_path"]]
            debt = item.get("debt", tokens(0))["amount"]
            numbers = (item["remaining"]["amount"], item["reserved"]["amount"], item["spent"]["amount"], debt)
            assert numbers == account.numbers
            assert item.get("is_over_limit", False) == account.flagged
            assert item["allocated"]["amount"] == sum(numbers)  # remaining = allocated - spent - reserved - debt
            assert min(numbers[1:]) >= 0
            assert debt <= account.limit


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=fewer(100, 8),
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
