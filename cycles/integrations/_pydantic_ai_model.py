"""`GuardedModel` of `cycles.integrations.pydantic_ai`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.wrapper import WrapperModel

from cycles import Amount, Cycles, InvalidRequestError, Usage
from cycles.integrations._pydantic_ai_reading import (
    denial_response,
    denial_stream,
    ended_early,
    limit_of,
    prompt_of,
    read_usage,
    takes_text,
    text_of,
    within_caps,
)
from cycles.integrations._shared import (
    DENIALS,
    Common,
    OnDenied,
    SubjectOption,
    checked_actual,
    checked_budget,
    estimate_of,
)
from cycles.integrations._work import Work

ModelBudget = Amount | Callable[[ModelRequestContext], Amount | None] | None


@frozen
class Guarding:
    """The options of guarded models."""

    common: Common
    budget: Any
    actual: Callable[[Usage], Amount] | None

    @classmethod
    def of(cls, common: Common, budget: ModelBudget, actual: Callable[[Usage], Amount] | None) -> Guarding:
        checked = checked_budget("model_budget", budget)
        return cls(common, checked, checked_actual("model_actual", actual, amount=False))

    def work(self, request: ModelRequestContext) -> Work | None:
        """Return the guarded request; None if it is not guarded."""
        estimate = estimate_of("model_budget", self.budget, None, request)
        if estimate is None:
            return None
        name = request.model.model_name

        def denied(error: Exception) -> Any:
            if not takes_text(request.model_request_parameters):
                raise error
            return denial_response(self.common.message(error, request, default="raise"), error, name)

        return Work(
            common=self.common,
            estimate=estimate,
            action=("llm.completion", name),
            call=(request,),
            price=self.actual,
            read=read_usage,
            prompt=lambda: prompt_of(request),
            strings=text_of,
            limit=limit_of(request),
            denied=denied,
            is_model=True,
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
        return await work.arun(lambda guard: self.wrapped.request(messages, *within_caps(request, guard)))

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
            denied = work.denied(error)
        if guard is None:
            yield denial_stream(denied, model_request_parameters)
            return
        opened: Any = None
        try:
            async with self.wrapped.request_stream(messages, *within_caps(request, guard), run_context) as opened:
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
            await work.afinish(guard)
