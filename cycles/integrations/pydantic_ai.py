"""Pydantic AI: guard each model request and each tool call of an agent.

Needs the extra ``pydantic-ai``; see `docs/integrations/pydantic-ai.md`.
"""

from __future__ import annotations

from typing import Any, Unpack

from cycles import Cycles
from cycles.integrations._options import AgentOptions, Common, ToolBudget
from cycles.integrations._shared import require
from cycles.integrations._work import Work

require("pydantic_ai.capabilities", "pydantic-ai")

from pydantic_ai.capabilities import AbstractCapability, BatchModelRequests, CapabilityOrdering
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.models import Model

from cycles.integrations._pydantic_ai_model import GuardedModel, ModelBudget
from cycles.integrations._pydantic_ai_reading import ToolCall

__all__ = ["CyclesCapability", "GuardedModel", "ToolCall"]


class CyclesCapability(AbstractCapability[Any]):
    """Guards model requests and tool calls: ``Agent(capabilities=[CyclesCapability(...)])``.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: As for `GuardedModel`; by default requests are not guarded.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `ToolCall`.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the
            `ModelRequestContext` or the `ToolCall`; a callable `tool_actual` gets the `ToolCall` and the result.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        model_budget: ModelBudget | None = None,
        tool_budget: ToolBudget | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        budgets = {"model_budget": model_budget, "tool_budget": tool_budget}
        self._common = Common.of(client, options, is_optional=True, takes=("call", "result"), **budgets)

    def get_ordering(self) -> CapabilityOrdering:
        """Stay outside of `BatchModelRequests`, so that each request of a batch is guarded."""
        return CapabilityOrdering(wraps=[BatchModelRequests])

    def get_wrapper_model(self, model: Model) -> Model | None:
        """Return the guarded model that serves one attempt of a request."""
        return None if self._common.model_budget is None else GuardedModel.of(model, self._common)

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        """Guard one execution of a tool, with validated arguments."""
        tool = ToolCall(ctx, call.tool_name, args)
        work = Work.of_tool(self._common, tool.name, tool, denied=_denied)
        return await (handler(args) if work is None else work.arun(lambda _: handler(args)))


def _denied(_: Exception, text: str) -> Any:
    raise ToolFailed(text) from None
