"""Who pays in a run: each use of a guard has its own budget; some are empty, tight, frozen or have caps."""

from __future__ import annotations

import random
from typing import Any, Final

from attrs import define

from cycles.embedded.records import Budget

TENANTS: Final = ("acme", "globex")
USES: Final = {"acme": 60, "globex": 30}  # the most uses of one tenant in a run
WORKSPACE: Final = "research"
LARGE: Final = 1_000_000
ESTIMATE: Final = 100
CAPS: Final = {"max_tokens": 50}
UNIT: Final = "TOKENS"
FORGIVING: Final = "ALLOW_IF_AVAILABLE"


@define
class Account:
    """The budget of one use.

    Attributes:
        agent: The subject level that only this use has, so that its charges can be read from the ledger.
        freezes_s: When the operator freezes the budget, in seconds after the start; None for never.
        has_changed: Whether the operator has set another limit.
        closes: Whether the operator has closed the budget.
    """

    tenant: str
    agent: str
    workspace: str | None = None
    allocated: int = LARGE
    overdraft_limit: int = 0
    policy: str = FORGIVING
    caps: dict[str, Any] | None = None
    freezes_s: float | None = None
    has_changed: bool = False
    closes: bool = False

    @property
    def scope(self) -> str:
        """The path of the budget."""
        middle = "" if self.workspace is None else f"/workspace:{self.workspace}"
        return f"tenant:{self.tenant}{middle}/agent:{self.agent}"

    @property
    def subject(self) -> dict[str, str]:
        """The subject of the use, without the tenant."""
        return {"agent": self.agent} if self.workspace is None else {"workspace": self.workspace, "agent": self.agent}

    @property
    def is_tight(self) -> bool:
        """Whether the budget may be smaller than what is spent, so that the server charges less."""
        return self.allocated < LARGE or self.has_changed

    @property
    def is_empty(self) -> bool:
        """Whether no reservation fits into the budget."""
        return self.allocated < ESTIMATE


def make_accounts(random: random.Random) -> dict[str, list[Account]]:
    """Return the accounts of each tenant."""
    made: dict[str, list[Account]] = {}
    number = 0
    for tenant in TENANTS:
        made[tenant] = []
        for _ in range(USES[tenant]):
            made[tenant].append(_account(random, tenant, f"op{number}"))
            number += 1
    return made


def _account(random: random.Random, tenant: str, agent: str) -> Account:
    account = Account(tenant, agent)
    if random.random() < 0.2:
        account.workspace = WORKSPACE
    special = random.random()
    if special < 0.04:
        account.allocated = ESTIMATE // 2
    elif special < 0.12:
        account.allocated = ESTIMATE + 20
        account.policy = random.choice(("REJECT", FORGIVING, "ALLOW_WITH_OVERDRAFT"))
        account.overdraft_limit = random.choice((0, 1_000))
    elif special < 0.16:
        account.policy = "REJECT"
    elif special < 0.20:
        account.caps = dict(CAPS)
    elif special < 0.24:
        account.freezes_s = random.random() * 30
    return account


def records(accounts: dict[str, list[Account]]) -> list[Budget]:
    """Return the budgets as the server's disk has them."""
    outer = [f"tenant:{tenant}" for tenant in accounts]
    outer += [f"{scope}/workspace:{WORKSPACE}" for scope in outer]
    made = [Budget(scope=scope, unit=UNIT, allocated=100 * LARGE, overdraft_limit=LARGE) for scope in outer]
    for each in accounts.values():
        made += [
            Budget(
                scope=account.scope,
                unit=UNIT,
                allocated=account.allocated,
                overdraft_limit=account.overdraft_limit,
                caps=account.caps,
            )
            for account in each
        ]
    return made
