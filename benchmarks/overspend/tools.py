"""The tools of the comparison, one column each: environment, adapter, options, and what they need beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal


@dataclass(frozen=True)
class Tool:
    """One column.

    Attributes:
        key: As `TOOLS=` takes it.
        name: Package and version are those of its environment.
        environment: The file of `requirements/` that has its packages.
        adapter: The module of `adapters/`.
        configuration: For the page.
        needs: Processes: a server of `cycles dev`, that and a proxy, a private redis-server, or LiteLLM's proxy. A
            program of the last one has only the SDKs.
        options: Options of `cycles.providers.guard`.
        counts: Whether the program counts the tokens of its prompts as the provider does.
        is_ours: Whether a figure of it that gets worse fails the run.
        shares: Whether its count is kept outside of the processes that make the calls.
        without: Cases that it does not offer.
        quick: Whether ``--quick`` runs it.
    """

    key: str
    name: str
    environment: str
    adapter: str
    configuration: str
    needs: Literal["server", "proxy", "redis", "litellm"] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    counts: bool = False
    is_ours: bool = False
    shares: bool = False
    without: tuple[str, ...] = ()
    quick: bool = False


def _ours(key: str, configuration: str, adapter: str = "guard", **more: Any) -> Tool:
    given: dict[str, Any] = {"environment": "cycles", "needs": "server", "quick": True, **more}
    return Tool(key, "cycles", adapter=adapter, configuration=configuration, is_ours=True, shares=True, **given)


_PROCESSES: Final = ("kill", "late", "twoproc")

TOOLS: Final = {
    tool.key: tool
    for tool in (
        Tool("N", "no guard", "cycles", "none", "the SDKs alone", quick=True),
        _ours("G", "`guard`, extra `tokens`, no options"),
        _ours("C", "as G, `count_tokens=` counts as the provider does", counts=True),
        _ours("W", "as G, `wait=10`", options={"wait": 10}),
        _ours("Z", "as G, `wait=0`", options={"wait": 0}),
        _ours(
            "P",
            "`client.pool(limit=1USD, max_held=1USD)`, `PriceBook.genai()`; each attempt is a guard that spends its "
            "estimate before the request; `cycles.limit` for sub-agents",
            "pool",
            without=("nolimit",),
        ),
        _ours(
            "D",
            "`cycles proxy`, which `cycles run` starts, too; only its client is killed",
            "proxy",
            needs="proxy",
            without=("nested", "late"),
        ),
        Tool(
            "B",
            "LiteLLM SDK",
            "litellm",
            "litellm_sdk",
            '`BudgetManager(client_type="local")`, check before the call, `update_cost` after it',
            without=("streams", "left", "nested", "late"),
        ),
        Tool(
            "S",
            "shekel",
            "shekel",
            "shekel_budget",
            '`budget(max_usd=1)`, nested for sub-agents; kill, twoproc: `budget("$1/hr", backend=RedisBackend())`; '
            "`price_per_1k_tokens` for gpt-5",
            needs="redis",
            without=("late",),
        ),
        Tool(
            "F",
            "floe-guard",
            "floe-guard",
            "floe_call",
            "`guarded_acompletion`; kill, twoproc: `SqliteStore`",
            without=("streams", "left", "nested", "late"),
            shares=True,
        ),
        Tool(
            "R",
            "floe-guard",
            "floe-guard",
            "floe_reserve",
            "`reserve(estimate_call())`, `settle`, tokens counted as the provider does; streams: `StreamGuard`, which "
            "`guard_stream` uses; kill, twoproc: `SqliteStore`",
            without=("nested", "late"),
            shares=True,
        ),
        Tool(
            "A",
            "AgentBudget",
            "agentbudget",
            "agent_budget",
            '`init("$1.00", max_repeated_calls=10**6)`, `child_session` for sub-agents, `register_model` for gpt-5',
            without=("late",),
        ),
        Tool(
            "Y",
            "pydantic-ai",
            "pydantic-ai",
            "pydantic_limits",
            "`UsageLimits(cost_limit=1)`, one `RunUsage` for all runs; fallback: `FallbackModel`",
            without=("nested", "late"),
        ),
        Tool(
            "K",
            "runcycles",
            "runcycles",
            "runcycles_client",
            "`@cycles(estimate=, actual=)`, tokens counted as the provider does, our server; "
            "streams: `stream_reservation`; `CyclesModelGate` of langchain-runcycles was not run",
            needs="server",
            shares=True,
            without=("nested", "late", "nolimit"),
        ),
        Tool(
            "X",
            "LiteLLM proxy",
            "litellm-proxy",
            "litellm_key",
            "PostgreSQL 15, virtual key with `max_budget: 1.0`, budget reservation (default), "
            "`proxy_batch_write_at: 2`, one worker, no Redis, retries are those of the SDK; nested: a team, and a key "
            "for each sub-agent; only its client is killed; Prisma's engine is that of `benchmarks/overspend/prisma`",
            needs="litellm",
            without=("late",),
        ),
    )
}
"""By key."""
