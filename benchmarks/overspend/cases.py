"""The cases of the comparison: what is called, how, and what the provider does. Amounts are in microcents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

USD: Final = 100_000_000
CALL: Final = 5_250_000
"""A call of gpt-4o: 1,000 tokens in, 5,000 out."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: As `CASES=` takes it.
        title: What happens.
        pattern: The function of `worker.py` that makes the calls.
        calls: How many each process makes at most.
        price: The real price of a call; 0 if no call may be denied.
        wanted: Calls that would fit into the budget at their real price.
        plan: What the bank does, see `bank.Plan`.
        model: The model.
        limit: The output limit that is sent; None: none.
        tokens_in: The input tokens of a call, as the provider counts them.
        budget: Microcents.
        retries: Retries of the SDK.
        processes: How many processes make the calls.
        kill: Whether they are killed after 8 responses, and started again.
        late: Whether they are started again only after all leases have ended.
    """

    name: str
    title: str
    pattern: str
    calls: int = 64
    wanted: int = 19
    plan: dict[str, Any] = field(default_factory=dict)
    model: str = "gpt-4o"
    limit: int | None = 5_000
    tokens_in: int = 1_000
    budget: int = USD
    retries: int = 0
    processes: int = 1
    kill: bool = False
    late: bool = False


_GPT5: Final = {"tokens": {"": {"read": 300, "written": 400}}}
_MIXED: Final = {
    "tokens": {
        "gpt-5": {"read": 2_000, "written": 3_000, "cached": 1_000, "reasoning": 2_000},
        "claude-sonnet-4-5": {
            "read": 4_500,
            "written": 2_000,
            "cached": 2_000,
            "cache_write": 1_000,
            "cache_write_1h": 500,
        },
    }
}
_LONG: Final = {"tokens": {"": {"read": 1_000, "written": 10_000}}}

CASES: Final = {
    case.name: case
    for case in (
        Case("parallel", "64 calls at the same time", "parallel"),
        Case("streams", "64 streams at the same time", "streams"),
        Case("left", "64 streams that are left after 3 of 20 events", "left", wanted=64, plan={"gap_s": 0.5}),
        Case(
            "retry", "in turn; two 500, then a response", "turn", 40, retries=2, plan={"sequence": ["500", "500", "ok"]}
        ),
        Case(
            "lost",
            "in turn; a lost response, then one that arrives",
            "turn",
            40,
            9,
            {"sequence": ["lost", "ok"]},
            retries=2,
        ),
        Case("tokens", "cached, reasoning and cache writes, $100", "tokens", 5, 10, _MIXED, budget=100 * USD),
        Case("nested", "4 sub-agents at the same time, $0.40 each of $1", "nested", 12),
        Case("fallback", "gpt-4o-mini returns 500, then gpt-4o", "fallback", 40, plan={"failing": ["gpt-4o-mini"]}),
        Case("kill", "4 workers, kill -9 after 8 responses, restart", "turn", 40, processes=4, kill=True),
        Case("late", "the same, restart after the leases have ended", "turn", 40, processes=4, kill=True, late=True),
        Case("twoproc", "2 processes, 32 calls each at the same time", "parallel", 32, processes=2),
        Case("priceless", "40 calls of a model without a price", "turn", 40, model="acme-large-v1"),
        Case("caught", "40 calls in a loop that catches every exception", "caught", 40),
        Case(
            "large", "32 calls at the same time, limit 32,000, 400 out", "parallel", 32, 32, _GPT5, "gpt-5", 32_000, 300
        ),
        Case("largeseq", "the same in turn", "turn", 300, 228, _GPT5, "gpt-5", 32_000, 300),
        Case(
            "nolimit", "32 calls of 10,000 tokens at the same time, no limit sent", "parallel", 32, 9, _LONG, limit=None
        ),
    )
}
