"""Microsoft Agent Framework: guard each model call and each tool call of an agent.

Needs the extra ``agent-framework``; see `docs/integrations/agent-framework.md`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import cycles
from cycles import Amount, Cycles, CyclesError, InvalidRequestError, Usage
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
        model_actual: Returns the cost of a `Usage`, for example a `PriceBook`.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the `ChatContext`.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        model_budget: Amount | Callable[[ChatContext], Amount | None],
        model_actual: Callable[[Usage], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        **options: Any,
    ) -> None:
        if model_budget is None:
            raise InvalidRequestError("model_budget must be an Amount such as cycles.usd('0.05') or a callable")
        self._common = Common(client, subject, on_denied, options)
        self._budget = checked_budget("model_budget", model_budget)
        self._actual = checked_actual("model_actual", model_actual, amount=False)

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
        if cycles.providers.current_payer() is not None:
            return None  # a call around this one pays
        estimate = estimate_of("model_budget", self._budget, None, context)
        if estimate is None:
            return None
        name = model_name(context)

        def denied(error: Exception) -> Any:
            text = self._common.message(error, context, default="raise")
            return denial_of(error, text, streamed=bool(context.stream))

        return Work(
            common=self._common,
            estimate=estimate,
            action=("llm.completion", name),
            call=(context,),
            price=self._actual,
            read=lambda event, usage: read_usage(event, usage, model=name),
            prompt=lambda: prompt_of(context),
            strings=text_of,
            limit=limit_of(context),
            denied=denied,
            is_model=True,
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
        tool_actual: The cost of a tool call: an amount, or a callable of the context and the result.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`. With ``"raise"`` the run ends with
            an error that is both the denial and a `MiddlewareFailure`.
        subject: The subject, or a callable of the context.
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
        tool_actual: Amount | Callable[[FunctionInvocationContext, Any], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        **options: Any,
    ) -> None:
        self._common = Common(client, subject, on_denied, options)
        self._budget = checked_budget("tool_budget", tool_budget, mapping=True)
        self._actual = checked_actual("tool_actual", tool_actual, amount=True, takes=("context", "result"))

    async def process(self, context: FunctionInvocationContext, call_next: Next) -> None:
        """Guard one call."""
        name = context.function.name
        estimate = estimate_of("tool_budget", self._budget, name, context)
        if estimate is None:
            await call_next()
            return

        async def call(_: Any) -> Any:
            await call_next()
            return context.result

        work = Work(
            common=self._common,
            estimate=estimate,
            action=("tool.call", name),
            call=(context,),
            actual=self._actual,
            denied=lambda error: self._common.message(error, context, default="message"),
            tool=name,
        )
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
