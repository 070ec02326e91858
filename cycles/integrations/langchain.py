"""LangChain: guard each model call and each tool call of an agent.

Needs the extra ``langchain``; see `docs/integrations/langchain.md`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import cycles
from cycles import Amount, Cycles, Usage
from cycles.integrations._shared import (
    BudgetOption,
    Common,
    OnDenied,
    SubjectOption,
    checked_actual,
    checked_budget,
    code_of,
    estimate_of,
    require,
)
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
    tool_name,
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
        model_actual: Returns the cost of a `Usage`, for example a `PriceBook`.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `ToolCallRequest`.
        tool_actual: The cost of a tool call: an amount, or a callable of the request and the result.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the request.
        max_tokens_setting: The model setting that limits the output.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        model_budget: Amount | Callable[[ModelRequest[Any]], Amount | None] | None = None,
        model_actual: Callable[[Usage], Amount] | None = None,
        tool_budget: BudgetOption = None,
        tool_actual: Amount | Callable[[Any, Any], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        max_tokens_setting: str = "max_tokens",
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(max_tokens_setting, str) or not max_tokens_setting:
            raise cycles.InvalidRequestError(f"max_tokens_setting must be a name, got {max_tokens_setting!r:.80}")
        self._model_budget = checked_budget("model_budget", model_budget)
        self._model_actual = checked_actual("model_actual", model_actual, amount=False)
        self._tool_budget = checked_budget("tool_budget", tool_budget, mapping=True)
        self._tool_actual = checked_actual("tool_actual", tool_actual, amount=True, takes=("request", "result"))
        self._limit = max_tokens_setting
        self._common = Common(client, subject, on_denied, options)

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
        estimate = estimate_of("model_budget", self._model_budget, None, request)
        if estimate is None:
            return None

        def denied(error: Exception) -> AIMessage:
            text = self._common.message(error, request, default="raise")
            return AIMessage(text, response_metadata={"cycles_denied": code_of(error)})

        return Work(
            common=self._common,
            estimate=estimate,
            action=("llm.completion", model_name(request)),
            call=(request,),
            price=self._model_actual,
            read=read_usage,
            prompt=lambda: prompt_of(request),
            limit=integer_setting(request.model_settings.get(self._limit)),
            strings=text_of,
            denied=denied,
            is_model=True,
        )

    def _tool_work(self, request: Any) -> Work | None:
        name, call_id = request.tool_call["name"], request.tool_call["id"]
        estimate = estimate_of("tool_budget", self._tool_budget, name, request)
        if estimate is None:
            return None

        def denied(error: Exception) -> ToolMessage:
            text = self._common.message(error, request, default="message")
            return ToolMessage(text, tool_call_id=call_id, name=name, status="error")

        return Work(
            common=self._common,
            estimate=estimate,
            action=("tool.call", name),
            call=(request,),
            actual=self._tool_actual,
            failed=lambda result: getattr(result, "status", None) == "error",
            denied=denied,
            tool=name,
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
