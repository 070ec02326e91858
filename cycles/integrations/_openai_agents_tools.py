"""`guard_tool` of `cycles.integrations.openai_agents`."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

from agents import FunctionTool
from attrs import frozen

import cycles
from cycles import Amount, Cycles, InvalidRequestError
from cycles.integrations._openai_agents_reading import for_runner
from cycles.integrations._shared import (
    BudgetOption,
    Common,
    OnDenied,
    SubjectOption,
    checked_actual,
    checked_budget,
    estimate_of,
)
from cycles.integrations._work import Work


def guard_tool(
    client: Cycles | None = None,
    *,
    tool_budget: BudgetOption,
    tool_actual: Amount | Callable[..., Amount] | None = None,
    on_denied: OnDenied = None,
    subject: SubjectOption = None,
    name: str | None = None,
    **options: Any,
) -> Callable[[Any], Any]:
    """Return a decorator that guards each call of a tool: below ``@function_tool``, or around a `FunctionTool`.

    Below ``@function_tool``, callables get the arguments of the function, in its order. Around a `FunctionTool` they
    get the `ToolContext`.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        tool_budget: The estimate of a call: an amount, a callable, or a mapping by tool name. None from it: this call
            is not guarded.
        tool_actual: The cost of a call: an amount, or a callable that gets the result last.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable.
        name: The name of the tool on reservations; by default that of the function or tool.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value; when a tool is decorated, if `tool_actual` cannot take its arguments.
    """
    budget = checked_budget("tool_budget", tool_budget, mapping=True)
    actual = checked_actual("tool_actual", tool_actual, amount=True)
    guarding = _ToolGuarding(Common(client, subject, on_denied, options), budget, actual, name)

    def decorate(tool: Any) -> Any:
        if isinstance(tool, FunctionTool):
            checked_actual("tool_actual", actual, amount=True, takes=("context", "result"))
            return _guarded_tool(guarding, tool)
        if not inspect.isroutine(tool):
            raise InvalidRequestError(f"guard_tool needs a function or a FunctionTool, got {tool!r:.80}")
        parameters = inspect.signature(tool).parameters.values()
        if not any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
            takes = (*(each.name for each in parameters), "result")
            checked_actual("tool_actual", actual, amount=True, takes=takes)
        return _guarded_function(guarding, tool)

    return decorate


@frozen
class _ToolGuarding:
    """The options of one guarded tool."""

    common: Common
    budget: BudgetOption
    actual: Any
    name: str | None

    def work(self, tool: str, *call: Any) -> Work | None:
        """Return the guarded call; None if it is not guarded."""
        name = self.name or tool
        estimate = estimate_of("tool_budget", self.budget, name, *call)
        if estimate is None:
            return None
        return Work(
            common=self.common,
            estimate=estimate,
            action=("tool.call", name),
            call=call,
            actual=self.actual,
            denied=lambda error: self.common.message(error, *call, default="message"),
            tool=name,
        )


def _guarded_tool(guarding: _ToolGuarding, tool: FunctionTool) -> FunctionTool:
    invoke = tool.on_invoke_tool

    async def guarded(context: Any, arguments: str) -> Any:
        work = guarding.work(tool.name, context)
        if work is None:
            return await invoke(context, arguments)
        try:
            return await work.arun(lambda _: invoke(context, arguments))
        except cycles.CyclesError as error:
            raise for_runner(error)  # noqa: B904 - it is the same error

    copied = copy.copy(tool)
    copied.on_invoke_tool = guarded
    return copied


def _guarded_function(guarding: _ToolGuarding, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    def work_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work | None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return guarding.work(function.__name__, *bound.args, *bound.kwargs.values())

    @functools.wraps(function)
    async def guarded_async(*args: Any, **kwargs: Any) -> Any:
        work = work_of(args, kwargs)
        if work is None:
            return await function(*args, **kwargs)
        try:
            return await work.arun(lambda _: function(*args, **kwargs))
        except cycles.CyclesError as error:
            raise for_runner(error)  # noqa: B904 - it is the same error

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        work = work_of(args, kwargs)
        if work is None:
            return function(*args, **kwargs)
        try:
            return work.run(lambda _: function(*args, **kwargs))
        except cycles.CyclesError as error:
            raise for_runner(error)  # noqa: B904 - it is the same error

    return guarded_async if inspect.iscoroutinefunction(function) else guarded
