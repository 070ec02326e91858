"""A slow and obvious ledger: every amount is a list of entries, added up at each read.

It implements the rules with separate names and structures and shares no code with the server. So a mistake in one of
them shows as a difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ORDER = ["tenant", "workspace", "agent"]


@dataclass(eq=False)
class Account:
    """One budget: its allocation and every change since, as (column, difference)."""

    allocated: int
    limit: int = 0
    entries: list[tuple[str, int]] = field(default_factory=list)
    flagged: bool = False
    status: str = "ACTIVE"

    def total(self, column: str) -> int:
        return sum(difference for name, difference in self.entries if name == column)

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        reserved, spent, debt = (self.total(column) for column in ("reserved", "spent", "debt"))
        return self.allocated - reserved - spent - debt, reserved, spent, debt

    @property
    def left(self) -> int:
        return self.numbers[0]


@dataclass(eq=False)
class Hold:
    """One reservation."""

    accounts: list[Account]
    estimate: int
    policy: str
    expires: int
    grace: int
    state: str = "ACTIVE"
    extensions: int = 0


Outcome = tuple[int, str | None, int | None]  # status, error code or reason, amount charged


class Model:
    """The whole ledger of one tenant in one unit."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.holds: list[Hold] = []
        self.now = 0

    def sweep(self) -> None:
        for hold in self.holds:
            if hold.state == "ACTIVE" and self.now > hold.expires + hold.grace:
                hold.state = "EXPIRED"
                self.unhold(hold)

    def unhold(self, hold: Hold) -> None:
        for account in hold.accounts:
            account.entries.append(("reserved", -hold.estimate))

    def path(self, subject: dict[str, str]) -> list[Account]:
        scope, found = "", []
        for level in ORDER:
            if level in subject:
                scope += ("/" if scope else "") + f"{level}:{subject[level].lower()}"
                if scope in self.accounts:
                    found.append(self.accounts[scope])
        return found

    def refusal(self, accounts: list[Account], estimate: int) -> str | None:
        for account in accounts:
            if account.status != "ACTIVE":
                return f"BUDGET_{account.status}"
            if account.flagged:
                return "OVERDRAFT_LIMIT_EXCEEDED"
            if account.numbers[3] > 0 and account.limit == 0:
                return "DEBT_OUTSTANDING"
            if account.left < estimate:
                return "BUDGET_EXCEEDED"
        return None if accounts else "NOT_FOUND"

    def reserve(self, subject: dict[str, str], estimate: int, policy: str, ttl: int, grace: int) -> Outcome:
        accounts = self.path(subject)
        refusal = self.refusal(accounts, estimate)
        if refusal:
            return (404 if refusal == "NOT_FOUND" else 409), refusal, None
        for account in accounts:
            account.entries.append(("reserved", estimate))
        self.holds.append(Hold(accounts, estimate, policy, self.now + ttl, grace))
        return 200, None, None

    def decide(self, subject: dict[str, str], estimate: int) -> str | None:
        refusal = self.refusal(self.path(subject), estimate)
        return "BUDGET_NOT_FOUND" if refusal == "NOT_FOUND" else refusal

    def closed(self, hold: Hold) -> Outcome | None:
        if hold.state == "EXPIRED":
            return 410, "RESERVATION_EXPIRED", None
        return (409, "RESERVATION_FINALIZED", None) if hold.state != "ACTIVE" else None

    def commit(self, hold: Hold, actual: int) -> Outcome:
        if closed := self.closed(hold):
            return closed
        more = actual - hold.estimate
        charged = actual
        if more > 0:
            if hold.policy == "REJECT":
                return 409, "BUDGET_EXCEEDED", None
            taken = self.take(hold.accounts, more, hold.policy)
            if taken is None:
                return 409, "OVERDRAFT_LIMIT_EXCEEDED", None
            charged = hold.estimate + taken
        self.unhold(hold)
        for account in hold.accounts:
            account.entries.append(("spent", min(actual, hold.estimate)))
        hold.state = "COMMITTED"
        return 200, None, charged

    def take(self, accounts: list[Account], wanted: int, policy: str) -> int | None:
        """Charge an amount that is not reserved, the same in every scope. None: a debt would be too big."""
        payers = [account for account in accounts if policy == "ALLOW_IF_AVAILABLE" or account.limit == 0]
        taken = wanted
        for account in payers:
            taken = min(taken, max(0, account.left))
        short = [account for account in payers if account.left < wanted]
        for account in accounts:
            new_debt = 0 if account in payers else taken - min(taken, max(0, account.left))
            if account.left < taken and account not in payers and account.numbers[3] + new_debt > account.limit:
                return None
        for account in accounts:
            cash = taken if account in payers else min(taken, max(0, account.left))
            account.entries += [("spent", cash), ("debt", taken - cash)]
        if taken < wanted:
            for account in short:
                account.flagged = True
        return taken

    def release(self, hold: Hold) -> Outcome:
        if closed := self.closed(hold):
            return closed
        self.unhold(hold)
        hold.state = "RELEASED"
        return 200, None, None

    def extend(self, hold: Hold, by: int) -> Outcome:
        if closed := self.closed(hold):
            return closed
        if self.now > hold.expires:
            return 410, "RESERVATION_EXPIRED", None
        if hold.extensions == 10:
            return 409, "MAX_EXTENSIONS_EXCEEDED", None
        hold.expires += by
        hold.extensions += 1
        return 200, None, None

    def event(self, subject: dict[str, str], actual: int, policy: str) -> Outcome:
        accounts = self.path(subject)
        for account in accounts:
            if account.status != "ACTIVE":
                return 409, f"BUDGET_{account.status}", None
            if policy == "REJECT" and account.left < actual:
                return 409, "BUDGET_EXCEEDED", None
        if not accounts:
            return 404, "NOT_FOUND", None
        if policy == "REJECT":
            for account in accounts:
                account.entries.append(("spent", actual))
            return 201, None, None
        taken = self.take(accounts, actual, policy)
        if taken is None:
            return 409, "OVERDRAFT_LIMIT_EXCEEDED", None
        return 201, None, taken if taken < actual else None

    def fund(self, account: Account, money: int) -> None:
        repaid = min(account.numbers[3], money)
        account.entries.append(("debt", -repaid))
        account.allocated += money - repaid
        if account.numbers[3] <= account.limit:
            account.flagged = False


def outcome(status: int, body: dict[str, Any]) -> Outcome:
    """Return the outcome of a server response."""
    charged = body.get("charged")
    return status, body.get("error"), charged["amount"] if charged else None
