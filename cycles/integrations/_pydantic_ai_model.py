"""`GuardedModel` of `cycles.integrations.pydantic_ai`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.wrapper import WrapperModel

from cycles import Amount, Cycles, InvalidRequestError, Usage
from cycles.integrations._metering import metered
from cycles.integrations._pydantic_ai_guarding import Guarding, ModelBudget
from cycles.integrations._pydantic_ai_reading import (
    denial_stream,
    ended_early,
    within_caps,
)
from cycles.integrations._shared import (
    DENIALS,
    Common,
    OnDenied,
    SubjectOption,
)


class GuardedModel(WrapperModel):
    """Guards each request of a model. It is a model like any other.

    Args:
        wrapped: The model, or its name.
        client: The Cycles client; by default the default client, looked up at each request.
        model_budget: The estimate of a request: an amount, or a callable of the `ModelRequestContext`. None from it:
            this request is not guarded.
        model_actual: Returns the cost of a `Usage`, for example a `PriceBook`.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`.
        subject: The subject, or a callable of the `ModelRequestContext`.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    _guarding: Guarding

    def __init__(
        self,
        wrapped: Model | str,
        client: Cycles | None = None,
        *,
        model_budget: ModelBudget,
        model_actual: Callable[[Usage], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        **options: Any,
    ) -> None:
        if not isinstance(wrapped, Model | str):
            raise InvalidRequestError(f"wrapped must be a Model of Pydantic AI or its name, got {wrapped!r:.80}")
        super().__init__(wrapped)
        self._guarding = Guarding.of(Common(client, subject, on_denied, options), model_budget, model_actual)

    @classmethod
    def of(cls, wrapped: Model, guarding: Guarding) -> GuardedModel:
        """Return a guarded model without checking the options again."""
        guarded = cls.__new__(cls)
        WrapperModel.__init__(guarded, wrapped)
        guarded._guarding = guarding
        return guarded

    def _request_of(self, messages: Any, settings: Any, parameters: Any) -> ModelRequestContext:
        return ModelRequestContext(
            model=self.wrapped, messages=messages, model_settings=settings, model_request_parameters=parameters
        )

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> Any:
        """Guard one request."""
        request = self._request_of(messages, model_settings, model_request_parameters)
        work = self._guarding.work(request)
        if work is None:
            return await self.wrapped.request(messages, model_settings, model_request_parameters)
        return await work.arun(lambda guard: metered(self.wrapped).request(messages, *within_caps(request, guard)))

    async def compact_messages(self, request_context: Any, *, instructions: str | None = None) -> Any:
        """Guard one compaction of messages. A denial is raised."""
        settings, parameters = request_context.model_settings, request_context.model_request_parameters
        request = self._request_of(request_context.messages, settings, parameters)
        work = self._guarding.work(request, is_compaction=True)
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
            InvalidRequestError: Always, unless no request of this model is guarded.
        """
        if self._guarding.budget is None:
            return await self.wrapped.batch_create(requests)
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
        work = self._guarding.work(request)
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
