"""Pydantic AI: guard each model request and each tool call of an agent.

Needs the extra ``pydantic-ai``; see `docs/integrations/pydantic-ai.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cycles import Amount, Cycles, Usage
from cycles.integrations._shared import (
    BudgetOption,
    Common,
    OnDenied,
    SubjectOption,
    checked_actual,
    checked_budget,
    estimate_of,
    require,
)
from cycles.integrations._work import Work

require("pydantic_ai.capabilities", "pydantic-ai")

from pydantic_ai.capabilities import AbstractCapability, BatchModelRequests, CapabilityOrdering
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.models import Model

from cycles.integrations._pydantic_ai_guarding import Guarding, ModelBudget
from cycles.integrations._pydantic_ai_model import GuardedModel
from cycles.integrations._pydantic_ai_reading import ToolCall

__all__ = ["CyclesCapability", "GuardedModel", "ToolCall"]


class CyclesCapability(AbstractCapability[Any]):
    """Guards model requests and tool calls: ``Agent(capabilities=[CyclesCapability(...)])``.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: As for `GuardedModel`; by default requests are not guarded.
        model_actual: As for `GuardedModel`.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `ToolCall`.
        tool_actual: The cost of a tool call: an amount, or a callable of the `ToolCall` and the result.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the `ModelRequestContext` or `ToolCall`.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        model_budget: ModelBudget = None,
        model_actual: Callable[[Usage], Amount] | None = None,
        tool_budget: BudgetOption = None,
        tool_actual: Amount | Callable[[ToolCall, Any], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        **options: Any,
    ) -> None:
        self._common = Common(client, subject, on_denied, options)
        self._guarding = Guarding.of(self._common, model_budget, model_actual)
        self._tool_budget = checked_budget("tool_budget", tool_budget, mapping=True)
        self._tool_actual = checked_actual("tool_actual", tool_actual, amount=True, takes=("call", "result"))

    def get_ordering(self) -> CapabilityOrdering:
        """Stay outside of `BatchModelRequests`, so that each request of a batch is guarded."""
        return CapabilityOrdering(wraps=[BatchModelRequests])

    def get_wrapper_model(self, model: Model) -> Model | None:
        """Return the guarded model that serves one attempt of a request."""
        return None if self._guarding.budget is None else GuardedModel.of(model, self._guarding)

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        """Guard one execution of a tool, with validated arguments."""
        tool = ToolCall(ctx, call.tool_name, args)
        estimate = estimate_of("tool_budget", self._tool_budget, tool.name, tool)
        if estimate is None:
            return await handler(args)

        def denied(error: Exception) -> Any:
            raise ToolFailed(self._common.message(error, tool, default="message")) from None

        work = Work(
            common=self._common,
            estimate=estimate,
            action=("tool.call", tool.name),
            call=(tool,),
            actual=self._tool_actual,
            denied=denied,
            tool=tool.name,
        )
        return await work.arun(lambda _: handler(args))
