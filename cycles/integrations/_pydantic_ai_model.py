"""`GuardedModel` of `cycles.integrations.pydantic_ai`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Unpack

from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.wrapper import WrapperModel

from cycles import Amount, Cycles, InvalidRequestError
from cycles.integrations._metering import metered
from cycles.integrations._options import Common, ModelOptions
from cycles.integrations._pydantic_ai_reading import (
    denial_response,
    denial_stream,
    ended_early,
    is_pending,
    limit_of,
    prompt_of,
    read_usage,
    takes_text,
    text_of,
    within_caps,
)
from cycles.integrations._shared import DENIALS
from cycles.integrations._work import Work

ModelBudget = Amount | Callable[[ModelRequestContext], Amount | None]


class GuardedModel(WrapperModel):
    """Guards each request of a model. It is a model like any other.

    Args:
        wrapped: The model, or its name.
        client: The Cycles client; by default the default client, looked up at each request.
        model_budget: The estimate of a request: an amount, or a callable of the `ModelRequestContext`. None from it:
            this request is not guarded.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the
            `ModelRequestContext`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    _common: Common

    def __init__(
        self,
        wrapped: Model | str,
        client: Cycles | None = None,
        *,
        model_budget: ModelBudget,
        **options: Unpack[ModelOptions],
    ) -> None:
        if not isinstance(wrapped, Model | str):
            raise InvalidRequestError(f"wrapped must be a Model of Pydantic AI or its name, got {wrapped!r:.80}")
        super().__init__(wrapped)
        self._common = Common.of(client, options, model_budget=model_budget)

    @classmethod
    def of(cls, wrapped: Model, common: Common) -> GuardedModel:
        """Return a guarded model without checking the options again."""
        guarded = cls.__new__(cls)
        WrapperModel.__init__(guarded, wrapped)
        guarded._common = common
        return guarded

    def _request_of(self, messages: Any, settings: Any, parameters: Any) -> ModelRequestContext:
        return ModelRequestContext(
            model=self.wrapped, messages=messages, model_settings=settings, model_request_parameters=parameters
        )

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> Any:
        """Guard one request."""
        request = self._request_of(messages, model_settings, model_request_parameters)
        work = _work_of(self._common, request)
        if work is None:
            return await self.wrapped.request(messages, model_settings, model_request_parameters)
        return await work.arun(lambda guard: metered(self.wrapped).request(messages, *within_caps(request, guard)))

    async def compact_messages(self, request_context: Any, *, instructions: str | None = None) -> Any:
        """Guard one compaction of messages. A denial is raised."""
        settings, parameters = request_context.model_settings, request_context.model_request_parameters
        request = self._request_of(request_context.messages, settings, parameters)
        work = _work_of(self._common, request, is_compaction=True)
        if work is None:
            return await self.wrapped.compact_messages(request_context, instructions=instructions)

        def compact(guard: Any) -> Any:
            settings, parameters = within_caps(request, guard)
            context = replace(request_context, model_settings=settings, model_request_parameters=parameters)
            return metered(self.wrapped).compact_messages(context, instructions=instructions)

        return await work.arun(compact)

    async def batch_create(self, requests: Any) -> Any:
        """Send no batch: its requests would cost without a reservation.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(
            f"GuardedModel cannot guard a batch of {self.model_name}: add CyclesCapability to the agent, which guards "
            "each request that BatchModelRequests sends, or send the batch with the model itself"
        )

    @asynccontextmanager
    async def request_stream(
        self, messages: Any, model_settings: Any, model_request_parameters: Any, run_context: Any = None
    ) -> AsyncGenerator[Any]:
        """Guard one stream: reserve when it opens, settle when it closes."""
        request = self._request_of(messages, model_settings, model_request_parameters)
        work = _work_of(self._common, request)
        if work is None:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                yield stream
            return
        guard = None
        denied: Any = None
        try:
            guard = await work.areserve()
        except DENIALS as error:
            denied = work.replaced(error)
        if guard is None:
            yield denial_stream(denied, model_request_parameters)
            return
        opened: Any = None
        try:
            async with AsyncExitStack() as stack:
                with work.paying():
                    opening = metered(self.wrapped).request_stream(messages, *within_caps(request, guard), run_context)
                    opened = await stack.enter_async_context(opening)
                yield opened
        except BaseException as raised:
            if opened is not None:
                work.see(opened.get(), guard)
            await work.abreak(guard, raised, sent=True)
            raise
        response = opened.get()
        work.see(response, guard)
        if ended_early(response):
            await work.abreak(guard, GeneratorExit(), sent=True)
        else:
            await work.afinish(guard, response)


def _work_of(common: Common, request: ModelRequestContext, *, is_compaction: bool = False) -> Work | None:
    """Return the guarded request; None if it is not guarded."""
    name = request.model.model_name

    def denied(error: Exception, text: str) -> Any:
        if is_compaction or not takes_text(request.model_request_parameters):
            raise error  # a message is neither a compaction nor a structured output
        return denial_response(text, error, name)

    return Work.of_model(
        common,
        name,
        request,
        read=read_usage,
        failed=is_pending,
        prompt=lambda: prompt_of(request),
        strings=text_of,
        limit=limit_of(request),
        denied=denied,
    )
