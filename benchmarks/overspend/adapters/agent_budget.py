"""AgentBudget: `init` patches the SDKs; sub-agents have child sessions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import agentbudget
from adapters import none
from agentbudget.exceptions import BudgetExhausted


class Adapter(none.Adapter):
    """The loop detector is off: equal prompts are meant here."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        agentbudget.register_model("gpt-5", input_price_per_million=1.25, output_price_per_million=10.0)
        usd = f"${job.budget / 1e8:.2f}"
        if job.pattern == "nested":
            self.session = agentbudget.AgentBudget(max_spend=usd, max_repeated_calls=10**6).session()
            self.session.__enter__()
        else:
            self.session = agentbudget.init(usd, max_repeated_calls=10**6)

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, BudgetExhausted)

    @contextlib.asynccontextmanager
    async def agent(self, name: str, usd: str) -> AsyncIterator[Any]:
        """A sub-agent with a limit."""
        with contextlib.suppress(BudgetExhausted), self.session.child_session(float(usd)) as child:

            async def call(body: dict[str, Any]) -> Any:
                return child.wrap(await self.call(body))

            yield call

    async def counted(self) -> float:
        return float(self.session.spent) * 1e8
