"""Microsoft Agent Framework: guard each model call and each tool call of an agent.

Needs the extra ``agent-framework``; see `docs/integrations/agent-framework.md`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Unpack

from cycles import Amount, Cycles, CyclesError
from cycles.integrations._options import Common, ModelOptions, ToolBudget, ToolOptions
from cycles.integrations._shared import require
from cycles.integrations._stepping import END
from cycles.integrations._work import Work

require("agent_framework", "agent-framework")

from agent_framework import (
    ChatContext,
    ChatMiddleware,
    ChatResponse,
    FunctionInvocationContext,
    FunctionMiddleware,
    MiddlewareFailure,
    ResponseStream,
)

from cycles.integrations._agent_framework_reading import (
    apply_caps,
    denial_of,
    limit_of,
    model_name,
    prompt_of,
    read_usage,
    text_of,
)

__all__ = ["CyclesChatMiddleware", "CyclesFunctionMiddleware"]

Next = Callable[[], Awaitable[None]]


class CyclesChatMiddleware(ChatMiddleware):
    """Guards each model call: ``Agent(middleware=[CyclesChatMiddleware(...)])``. Put it last.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: The estimate of a call: an amount, or a callable of the `ChatContext`. None from it: this call is
            not guarded.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the context.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        model_budget: Amount | Callable[[ChatContext], Amount | None],
        **options: Unpack[ModelOptions],
    ) -> None:
        self._common = Common.of(client, options, model_budget=model_budget)

    async def process(self, context: ChatContext, call_next: Next) -> None:
        """Guard one call."""
        work = self._work(context)
        if work is None:
            await call_next()
            return

        async def call(guard: Any) -> Any:
            apply_caps(context, guard)
            await call_next()
            return context.result

        if not context.stream:
            context.result = await work.arun(call)
            return
        updates = work.astream(call)
        first = await anext(updates, END)  # reserves and opens the stream, so that a denial is raised here
        opened: Any = context.result

        async def finished(read: Any) -> Any:
            return await opened.get_final_response() if opened is not None else ChatResponse.from_updates(read)

        context.result = ResponseStream(_rest(first, updates), finalizer=finished)

    def _work(self, context: ChatContext) -> Work | None:
        name = model_name(context)
        return Work.of_model(
            self._common,
            name,
            context,
            read=lambda event, usage: read_usage(event, usage, model=name),
            prompt=lambda: prompt_of(context),
            strings=text_of,
            limit=limit_of(context),
            charges_lost=True,
            denied=lambda error, text: denial_of(error, text, streamed=bool(context.stream)),
        )


async def _rest(first: Any, updates: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Yield the first update of a stream, which is read already, and the others."""
    try:
        while first is not END:
            yield first
            first = await anext(updates, END)
    finally:
        await updates.aclose()


class CyclesFunctionMiddleware(FunctionMiddleware):
    """Guards each call of a function tool: ``Agent(middleware=[CyclesFunctionMiddleware(...)])``. Put it last.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        tool_budget: The estimate of a tool call: an amount, a mapping by tool name (other tools are not guarded), or a
            callable of the `FunctionInvocationContext`.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the context,
            a callable `tool_actual` also the result. With ``on_denied="raise"`` the run ends with an error that is both
            the denial and a `MiddlewareFailure`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self, client: Cycles | None = None, *, tool_budget: ToolBudget, **options: Unpack[ToolOptions]
    ) -> None:
        self._common = Common.of(client, options, tool_budget=tool_budget, takes=("context", "result"))

    async def process(self, context: FunctionInvocationContext, call_next: Next) -> None:
        """Guard one call."""
        work = Work.of_tool(self._common, context.function.name, context, denied=lambda _, text: text)
        if work is None:
            await call_next()
            return

        async def call(_: Any) -> Any:
            await call_next()
            return context.result

        try:
            context.result = await work.arun(call)
        except CyclesError as error:
            if work.began:
                raise
            raise _fatal(error) from error


def _fatal(error: CyclesError) -> Exception:
    """Return an error that ends the run and is still the same one: the framework hides every other from the caller."""
    base: Any = type(error)
    made: Exception = _fatal_class(base).__new__(_fatal_class(base))
    made.__dict__.update(vars(error))
    made.args = error.args
    return made


@functools.cache
def _fatal_class(base: Any) -> Any:
    return type(base.__name__, (base, MiddlewareFailure), {"__module__": base.__module__})
