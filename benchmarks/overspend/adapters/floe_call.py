"""floe-guard's `guarded_acompletion` around the clients of the SDKs."""

from __future__ import annotations

from typing import Any

from adapters import none
from floe_guard import BudgetGuard, SqliteStore
from floe_guard.errors import FloeGuardError
from floe_guard.integrations import anthropic as of_anthropic, openai as of_openai


class Adapter(none.Adapter):
    """One guard for the process, or one database for several."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        shared = {"window": "utc-day", "store": SqliteStore(f"{job.folder}/floe.db")} if job.processes > 1 else {}
        self.guard = BudgetGuard(limit_usd=job.budget / 1e8, **shared)

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, FloeGuardError)

    async def call(self, body: dict[str, Any]) -> Any:
        return await of_openai.guarded_acompletion(self.guard, self.llm, **body)

    async def message(self, body: dict[str, Any]) -> Any:
        return await of_anthropic.guarded_acompletion(self.guard, self.claude, **body)

    async def counted(self) -> float:
        return float(self.guard.spent_usd) * 1e8
