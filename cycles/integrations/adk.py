"""Google ADK: guard each model call with `guard`, and each tool call with `CyclesPlugin`.

Needs the extra ``adk``; see `docs/integrations/adk.md`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar, Unpack

from cycles import Amount, Cycles, InvalidRequestError
from cycles.integrations._options import Common, ModelOptions, ToolBudget, ToolOptions
from cycles.integrations._shared import require
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
    **options: Unpack[ModelOptions],
) -> BaseLlm:
    """Return a copy of a model that reserves each of its calls: ``Agent(model=guard("gemini-2.5-flash", ...))``.

    The class of the copy is a subclass of the model's own. The model itself is not changed.

    Args:
        model: A model, or its name.
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: The estimate of a call: an amount, or a callable of the `ModelCall`. None from it: this call is
            not guarded.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the
            `ModelCall`: ``lambda call: {"agent": call.agent}``.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value, for what is no model, and for a model that is guarded.
    """
    if isinstance(model, str):
        try:
            model = LLMRegistry.new_llm(model)
        except ValueError as error:
            raise InvalidRequestError(f"model must be a BaseLlm of ADK or a name that it knows: {error}") from error
    if not isinstance(model, BaseLlm):
        raise InvalidRequestError(f"model must be a BaseLlm of ADK or its name, got {model!r:.80}")
    if _GUARDED in vars(model):
        raise InvalidRequestError(f"this {type(model).__name__} is guarded already: guard the original model")
    return _as_guarded(model, Common.of(client, options, model_budget=model_budget), _guarded_model)


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
        work = _work_of(vars(self)[_GUARDED], ModelCall(llm_request.model or self.model, llm_request, stream))
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


def _work_of(common: Common, call: ModelCall) -> Work | None:
    return Work.of_model(
        common,
        call.model,
        call,
        read=lambda response, usage: read_usage(response, usage, model=call.model),
        failed=has_failed,
        prompt=lambda: prompt_of(call.request),
        strings=text_of,
        limit=call.request.config.max_output_tokens,
        denied=denial_of,
    )


class CyclesPlugin(BasePlugin):
    """Guards tool calls of all agents of a runner: ``Runner(plugins=[CyclesPlugin(...)])``.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `ToolCall`.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the
            `ToolCall`: ``lambda call: {"agent": call.agent}``; a callable `tool_actual` also gets the result.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self, client: Cycles | None = None, *, tool_budget: ToolBudget, **options: Unpack[ToolOptions]
    ) -> None:
        super().__init__(name="cycles")
        self._common = Common.of(client, options, tool_budget=tool_budget, takes=("call", "result"))

    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
        """Replace the tools of a request by guarded copies: ADK calls those that its model asks for."""
        tools = llm_request.tools_dict
        for name, tool in tools.items():
            if _GUARDED not in vars(tool):
                tools[name] = _as_guarded(tool, self, _guarded_tool)

    def work(self, call: ToolCall) -> Work | None:
        """Return the guarded call of a tool; None if it is not guarded."""
        return Work.of_tool(
            self._common,
            call.name,
            call,
            failed=lambda result: isinstance(result, dict) and bool(result.get("error")),
            denied=lambda _, text: {"error": text},
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
