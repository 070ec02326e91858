"""LangChain: guard each model call and each tool call of an agent.

Needs the extra ``langchain``; see `docs/integrations/langchain.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Unpack

import cycles
from cycles import Amount, Cycles
from cycles.integrations._options import AgentOptions, Common, ToolBudget
from cycles.integrations._shared import code_of, require, tool_name
from cycles.integrations._work import Work

require("langchain.agents.middleware", "langchain")

from langchain.agents.middleware import AgentMiddleware, ModelRequest
from langchain_core.messages import AIMessage, ToolMessage

from cycles.integrations._langchain_guard import guard
from cycles.integrations._langchain_reading import (
    integer_setting,
    model_name,
    prompt_of,
    read_usage,
    text_of,
    watched,
)
from cycles.integrations._metering import metered

if TYPE_CHECKING:
    from cycles import AsyncGuard, Guard

__all__ = ["CyclesMiddleware", "guard"]


class CyclesMiddleware(AgentMiddleware[Any, Any]):
    """Guards model calls and tool calls of ``create_agent``. Put it last, so that each attempt is guarded.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: The estimate of a model call: an amount, or a callable of the `ModelRequest`. None from it: this
            call is not guarded.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `ToolCallRequest`.
        max_tokens_setting: The model setting that limits the output.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the request,
            a callable `tool_actual` also the result.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        model_budget: Amount | Callable[[ModelRequest[Any]], Amount | None] | None = None,
        tool_budget: ToolBudget | None = None,
        max_tokens_setting: str = "max_tokens",
        **options: Unpack[AgentOptions],
    ) -> None:
        super().__init__()
        if not isinstance(max_tokens_setting, str) or not max_tokens_setting:
            raise cycles.InvalidRequestError(f"max_tokens_setting must be a name, got {max_tokens_setting!r:.80}")
        self._limit = max_tokens_setting
        budgets = {"model_budget": model_budget, "tool_budget": tool_budget}
        self._common = Common.of(client, options, is_optional=True, takes=("request", "result"), **budgets)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[..., Any]) -> Any:
        """Guard one attempt of a model call."""
        work = self._model_work(request)
        if work is None:
            return handler(request)

        def call(guard: Guard) -> Any:
            with watched(work, guard):
                return handler(self._within_caps(request, guard))

        return work.run(call)

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[..., Awaitable[Any]]) -> Any:
        """As `wrap_model_call`, for a coroutine."""
        work = self._model_work(request)
        if work is None:
            return await handler(request)

        async def call(guard: AsyncGuard) -> Any:
            with watched(work, guard):
                return await handler(self._within_caps(request, guard))

        return await work.arun(call)

    def wrap_tool_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        """Guard one call of a tool."""
        work = self._tool_work(request)
        return handler(request) if work is None else work.run(lambda _: handler(request))

    async def awrap_tool_call(self, request: Any, handler: Callable[..., Awaitable[Any]]) -> Any:
        """As `wrap_tool_call`, for a coroutine."""
        work = self._tool_work(request)
        return await (handler(request) if work is None else work.arun(lambda _: handler(request)))

    def _model_work(self, request: ModelRequest[Any]) -> Work | None:
        return Work.of_model(
            self._common,
            model_name(request),
            request,
            read=read_usage,
            prompt=lambda: prompt_of(request),
            limit=integer_setting(request.model_settings.get(self._limit)),
            strings=text_of,
            denied=lambda error, text: AIMessage(text, response_metadata={"cycles_denied": code_of(error)}),
        )

    def _tool_work(self, request: Any) -> Work | None:
        name, call_id = request.tool_call["name"], request.tool_call["id"]
        return Work.of_tool(
            self._common,
            name,
            request,
            failed=lambda result: getattr(result, "status", None) == "error",
            denied=lambda _, text: ToolMessage(text, tool_call_id=call_id, name=name, status="error"),
        )

    def _within_caps(self, request: ModelRequest[Any], guard: Guard | AsyncGuard) -> ModelRequest[Any]:
        """Return a copy of the request, with guarded clients in its model and with the limits of the caps."""
        changes: dict[str, Any] = {"model": metered(request.model)}
        if not guard.is_capped:
            return request.override(**changes)
        most = guard.max_tokens(integer_setting(request.model_settings.get(self._limit)))
        if most is not None:
            changes["model_settings"] = {**request.model_settings, self._limit: most}
        tools = guard.filter_tools(request.tools, tool_name)
        if len(tools) < len(request.tools):
            changes |= {"tools": tools, "tool_choice": None}
        return request.override(**changes)
