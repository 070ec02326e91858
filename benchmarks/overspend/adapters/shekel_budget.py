"""shekel's `budget`, which patches the SDKs; with Redis if the calls are made by several processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from adapters import none
from shekel import budget
from shekel.exceptions import BudgetExceededError


class Adapter(none.Adapter):
    """The program runs inside the budget. One price replaces all, so `tokens` has no calls of Claude."""

    message = None  # type: ignore[assignment]

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        more = (
            {"price_per_1k_tokens": {"input": 0.00125, "output": 0.01}}
            if "gpt-5" in (job.model, *job.plan.get("tokens", ()))
            else {}
        )
        if hasattr(job, "redis"):
            from shekel.backends.redis import RedisBackend

            self.backend = RedisBackend(url=job.redis)
            self.budget = budget(f"${job.budget / 1e8:g}/hr", name="agents", backend=self.backend, **more)
        else:
            self.budget = budget(max_usd=job.budget / 1e8, name="agents", **more)

    async def __aenter__(self) -> Any:
        await self.budget.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        with contextlib.suppress(BudgetExceededError):
            await self.budget.__aexit__(None, None, None)

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, BudgetExceededError)

    @contextlib.asynccontextmanager
    async def agent(self, name: str, usd: str) -> AsyncIterator[Any]:
        """A sub-agent with a limit."""
        async with budget(max_usd=float(usd), name=name):
            yield self.call

    async def counted(self) -> float:
        if hasattr(self.job, "redis"):
            return float(self.backend.get_state("agents").get("usd") or 0) * 1e8
        return float(self.budget.spent) * 1e8
