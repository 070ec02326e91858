"""LiteLLM's SDK with its `BudgetManager`: check before a call, `update_cost` after it."""

from __future__ import annotations

from typing import Any

import litellm
from adapters import none

litellm.suppress_debug_info = True


class Adapter(none.Adapter):
    """The check is a comparison in the program, as LiteLLM documents it."""

    class Denied(Exception):
        """What the program raises if the check says no."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.manager = litellm.BudgetManager(project_name="overspend", client_type="local")
        self.manager.create_budget(total_budget=job.budget / 1e8, user="agent")

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, self.Denied)

    async def call(self, body: dict[str, Any]) -> Any:
        return await self._call({**body, "model": f"openai/{body['model']}"}, f"{self.job.bank}/v1")

    async def message(self, body: dict[str, Any]) -> Any:
        return await self._call({**body, "model": f"anthropic/{body['model']}"}, self.job.bank)

    async def _call(self, body: dict[str, Any], url: str) -> Any:
        if self.manager.get_current_cost("agent") > self.manager.get_total_budget("agent"):
            raise self.Denied
        response = await litellm.acompletion(**body, api_base=url, api_key="k", max_retries=self.job.retries)
        self.manager.update_cost(user="agent", completion_obj=response)
        return response

    async def counted(self) -> float:
        return float(self.manager.get_current_cost("agent")) * 1e8
