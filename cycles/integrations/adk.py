"""Google ADK: guard each model call with `guard`, and each tool call with `CyclesPlugin`.

Needs the extra ``adk``; see `docs/integrations/adk.md`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

from attrs import frozen

import cycles
from cycles import Amount, Cycles, InvalidRequestError, Usage
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

require("google.adk", "adk")

from google.adk.models import BaseLlm, LLMRegistry
from google.adk.plugins.base_plugin import BasePlugin

from cycles.integrations._adk_reading import (
    ModelCall,
    ToolCall,
    denial_of,
    has_failed,
    prompt_of,
    read_usage,
    text_of,
    within_caps,
)
from cycles.integrations._metering import metered

__all__ = ["CyclesPlugin", "ModelCall", "ToolCall", "guard"]

_GUARDED: Final = "_cycles_guarded"
T = TypeVar("T")


def guard(
    model: BaseLlm | str,
    client: Cycles | None = None,
    *,
    model_budget: Amount | Callable[[ModelCall], Amount | None],
    model_actual: Callable[[Usage], Amount] | None = None,
    on_denied: OnDenied = None,
    subject: SubjectOption = None,
    **options: Any,
) -> BaseLlm:
    """Return a copy of a model that reserves each of its calls: ``Agent(model=guard("gemini-2.5-flash", ...))``.

    The class of the copy is a subclass of the model's own. The model itself is not changed.

    Args:
        model: A model, or its name.
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: The estimate of a call: an amount, or a callable of the `ModelCall`. None from it: this call is
            not guarded.
        model_actual: Returns the cost of a `Usage`, for example a `PriceBook`.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the `ModelCall`: ``lambda call: {"agent": call.agent}``.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value, for what is no model, and for a model that is guarded.
    """
    if isinstance(model, str):
        model = LLMRegistry.new_llm(model)
    if not isinstance(model, BaseLlm):
        raise InvalidRequestError(f"model must be a BaseLlm of ADK or its name, got {model!r:.80}")
    if _GUARDED in vars(model):
        raise InvalidRequestError(f"this {type(model).__name__} is guarded already: guard the original model")
    if model_budget is None:
        raise InvalidRequestError("model_budget must be an Amount such as cycles.usd('0.05') or a callable, got None")
    guarding = _Guarding(
        Common(client, subject, on_denied, options),
        checked_budget("model_budget", model_budget),
        checked_actual("model_actual", model_actual, amount=False),
    )
    return _as_guarded(model, guarding, _guarded_model)


def _as_guarded(original: T, guarding: Any, class_of: Callable[[Any], Any]) -> T:
    """Return a copy of a model or tool whose class is a guarded subclass of its own."""
    copied = copy.copy(original)
    copied.__dict__[_GUARDED] = guarding
    object.__setattr__(copied, "__class__", class_of(type(original)))
    return copied


@functools.cache
def _guarded_model(base: Any) -> Any:
    made = type(base)(base.__name__, (base,), {"__module__": base.__module__, "__qualname__": base.__qualname__})

    @functools.wraps(base.generate_content_async)
    def generate_content_async(self: Any, llm_request: Any, stream: bool = False) -> AsyncGenerator[Any, None]:
        work = vars(self)[_GUARDED].work(ModelCall(llm_request.model or self.model, llm_request, stream))
        if work is None:
            return base.generate_content_async(self, llm_request, stream)  # type: ignore[no-any-return]
        return work.astream(
            lambda guard: base.generate_content_async(metered(self), within_caps(llm_request, guard), stream)
        )

    @functools.wraps(base.connect)
    def connect(self: Any, llm_request: Any) -> Any:
        raise InvalidRequestError(
            f"a live connection of {self.model} cannot be metered: use the original model; nothing was sent"
        )

    made.generate_content_async, made.connect = generate_content_async, connect
    return made


@frozen
class _Guarding:
    """The options of a guarded model."""

    common: Common
    budget: Any
    actual: Callable[[Usage], Amount] | None

    def work(self, call: ModelCall) -> Work | None:
        """Return the guarded call; None if it is not guarded, or if a call around it pays."""
        if cycles.providers.current_payer() is not None:
            return None
        estimate = estimate_of("model_budget", self.budget, None, call)
        if estimate is None:
            return None
        return Work(
            common=self.common,
            estimate=estimate,
            action=("llm.completion", call.model),
            call=(call,),
            price=self.actual,
            read=lambda response, usage: read_usage(response, usage, model=call.model),
            failed=has_failed,
            prompt=lambda: prompt_of(call.request),
            strings=text_of,
            limit=call.request.config.max_output_tokens,
            denied=lambda error: denial_of(error, self.common.message(error, call, default="raise")),
            is_model=True,
        )


class CyclesPlugin(BasePlugin):
    """Guards tool calls of all agents of a runner: ``Runner(plugins=[CyclesPlugin(...)])``.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `ToolCall`.
        tool_actual: The cost of a tool call: an amount, or a callable of the `ToolCall` and the result.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the `ToolCall`: ``lambda call: {"agent": call.agent}``.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        tool_budget: BudgetOption,
        tool_actual: Amount | Callable[[ToolCall, Any], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        **options: Any,
    ) -> None:
        super().__init__(name="cycles")
        self._common = Common(client, subject, on_denied, options)
        self._budget = checked_budget("tool_budget", tool_budget, mapping=True)
        self._actual = checked_actual("tool_actual", tool_actual, amount=True, takes=("call", "result"))

    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
        """Replace the tools of a request by guarded copies: ADK calls those that its model asks for."""
        tools = llm_request.tools_dict
        for name, tool in tools.items():
            if _GUARDED not in vars(tool):
                tools[name] = _as_guarded(tool, self, _guarded_tool)

    def work(self, call: ToolCall) -> Work | None:
        """Return the guarded call of a tool; None if it is not guarded."""
        estimate = estimate_of("tool_budget", self._budget, call.name, call)
        if estimate is None:
            return None
        return Work(
            common=self._common,
            estimate=estimate,
            action=("tool.call", call.name),
            call=(call,),
            actual=self._actual,
            failed=lambda result: isinstance(result, dict) and bool(result.get("error")),
            denied=lambda error: {"error": self._common.message(error, call, default="message")},
            tool=call.name,
        )


@functools.cache
def _guarded_tool(base: Any) -> Any:
    made = type(base)(base.__name__, (base,), {"__module__": base.__module__, "__qualname__": base.__qualname__})

    @functools.wraps(base.run_async)
    async def run_async(self: Any, *, args: dict[str, Any], tool_context: Any) -> Any:
        plugin: CyclesPlugin = vars(self)[_GUARDED]
        work = plugin.work(ToolCall(str(tool_context.agent_name), self.name, args, tool_context))
        if work is None:
            return await base.run_async(self, args=args, tool_context=tool_context)
        return await work.arun(lambda _: base.run_async(self, args=args, tool_context=tool_context))

    made.run_async = run_async
    return made
