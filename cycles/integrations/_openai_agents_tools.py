"""`guard_tool` of `cycles.integrations.openai_agents`."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Unpack

from agents import FunctionTool

import cycles
from cycles import Cycles, InvalidRequestError
from cycles.integrations._openai_agents_reading import for_runner
from cycles.integrations._options import Common, ToolBudget, ToolOptions, checked_actual
from cycles.integrations._work import Work


def guard_tool(
    client: Cycles | None = None,
    *,
    tool_budget: ToolBudget,
    name: str | None = None,
    **options: Unpack[ToolOptions],
) -> Callable[[Any], Any]:
    """Return a decorator that guards each call of a tool: below ``@function_tool``, or around a `FunctionTool`.

    Below ``@function_tool``, callables get the arguments of the function, in its order. Around a `FunctionTool` they
    get the `ToolContext`.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        tool_budget: The estimate of a call: an amount, a callable, or a mapping by tool name. None from it: this call
            is not guarded.
        name: The name of the tool on reservations; by default that of the function or tool.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `tool_actual` gets the
            result last.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value; when a tool is decorated, if `tool_actual` cannot take its arguments.
    """
    common = Common.of(client, options, tool_budget=tool_budget)

    def work_of(tool: str, *call: Any) -> Work | None:
        return Work.of_tool(common, name or tool, *call, denied=lambda _, text: text)

    def decorate(tool: Any) -> Any:
        if isinstance(tool, FunctionTool):
            checked_actual("tool_actual", common.tool_actual, takes=("context", "result"))
            return _guarded_tool(work_of, tool)
        if not inspect.isroutine(tool):
            raise InvalidRequestError(f"guard_tool needs a function or a FunctionTool, got {tool!r:.80}")
        parameters = inspect.signature(tool).parameters.values()
        if not any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
            takes = (*(each.name for each in parameters), "result")
            checked_actual("tool_actual", common.tool_actual, takes=takes)
        return _guarded_function(work_of, tool)

    return decorate


def _guarded_tool(work_of: Callable[..., Work | None], tool: FunctionTool) -> FunctionTool:
    invoke = tool.on_invoke_tool

    async def guarded(context: Any, arguments: str) -> Any:
        work = work_of(tool.name, context)
        if work is None:
            return await invoke(context, arguments)
        try:
            return await work.arun(lambda _: invoke(context, arguments))
        except cycles.CyclesError as error:
            raise for_runner(error)  # noqa: B904 - it is the same error

    copied = copy.copy(tool)
    copied.on_invoke_tool = guarded
    return copied


def _guarded_function(work_of: Callable[..., Work | None], function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    def bound_work(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work | None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return work_of(function.__name__, *bound.args, *bound.kwargs.values())

    @functools.wraps(function)
    async def guarded_async(*args: Any, **kwargs: Any) -> Any:
        work = bound_work(args, kwargs)
        if work is None:
            return await function(*args, **kwargs)
        try:
            return await work.arun(lambda _: function(*args, **kwargs))
        except cycles.CyclesError as error:
            raise for_runner(error)  # noqa: B904 - it is the same error

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        work = bound_work(args, kwargs)
        if work is None:
            return function(*args, **kwargs)
        try:
            return work.run(lambda _: function(*args, **kwargs))
        except cycles.CyclesError as error:
            raise for_runner(error)  # noqa: B904 - it is the same error

    return guarded_async if inspect.iscoroutinefunction(function) else guarded
