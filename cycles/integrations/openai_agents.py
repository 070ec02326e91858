"""OpenAI Agents SDK: guard each model call, and the tools that you choose.

Needs the extra ``openai-agents``; see `docs/integrations/openai-agents.md`.
"""

# ruff: noqa: A002 - the SDK names a parameter `input`
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from attrs import frozen

import cycles
from cycles import Amount, Cycles, InvalidRequestError, Usage
from cycles.integrations._shared import (
    Common,
    OnDenied,
    SubjectOption,
    checked_actual,
    checked_budget,
    estimate_of,
    require,
)
from cycles.integrations._work import Work

require("agents", "openai-agents")

from agents import Model, ModelProvider, MultiProvider

from cycles.integrations._metering import metered
from cycles.integrations._openai_agents_reading import (
    ModelCall,
    denial_event,
    denial_response,
    is_failure,
    model_name,
    read_usage,
    text_of,
    within_caps,
)
from cycles.integrations._openai_agents_tools import guard_tool

__all__ = ["GuardedModel", "GuardedProvider", "ModelCall", "guard_tool"]

ModelBudget = Amount | Callable[[ModelCall], Amount | None] | None


@frozen
class _Guarding:
    """The options of guarded models."""

    common: Common
    budget: ModelBudget
    actual: Callable[[Usage], Amount] | None

    @classmethod
    def of(
        cls,
        client: Cycles | None = None,
        *,
        model_budget: ModelBudget,
        model_actual: Callable[[Usage], Amount] | None = None,
        on_denied: OnDenied = None,
        subject: SubjectOption = None,
        **options: Any,
    ) -> _Guarding:
        budget: Any = checked_budget("model_budget", model_budget)
        actual = checked_actual("model_actual", model_actual, amount=False)
        return cls(Common(client, subject, on_denied, options), budget, actual)

    def work(self, call: ModelCall, rest: Any, more: Any, make: Callable[[str], Any]) -> Work | None:
        """Return the guarded call; None if it is not guarded. `make` returns what replaces a denied call."""
        estimate = estimate_of("model_budget", self.budget, None, call)
        if estimate is None:
            return None

        def denied(error: Exception) -> Any:
            schema = rest[0] if rest else more.get("output_schema")
            if not (schema is None or schema.is_plain_text()):
                raise error  # a message is no structured output
            return make(self.common.message(error, call, default="raise"))

        return Work(
            common=self.common,
            estimate=estimate,
            action=("llm.completion", call.model),
            call=(call,),
            price=self.actual,
            failed=is_failure,
            read=lambda event, usage: read_usage(event, usage, model=call.model[:128]),
            prompt=lambda: [call.instructions or "", call.input],
            strings=text_of,
            limit=call.settings.max_tokens,
            denied=denied,
            is_model=True,
        )


class GuardedModel(Model):
    """Guards each call of a model. It is a `Model` as well: ``Agent(model=GuardedModel(...))``.

    Args:
        model: The model.
        name: The name of the model on reservations; by default its attribute ``model``.
        options: ``client``, and the options of `GuardedProvider`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(self, model: Model, *, name: str | None = None, **options: Any) -> None:
        if not isinstance(model, Model):
            raise InvalidRequestError(f"model must be a Model of the Agents SDK, got {model!r:.80}")
        self._model, self._name, self._guarding = model, name or model_name(model), _Guarding.of(**options)

    @classmethod
    def _of(cls, model: Model, name: str | None, guarding: _Guarding) -> GuardedModel:
        """Return a guarded model without checking the options again."""
        guarded = cls.__new__(cls)
        guarded._model, guarded._name, guarded._guarding = model, name or model_name(model), guarding
        return guarded

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: Any, *rest: Any, **more: Any
    ) -> Any:
        """Guard one call."""
        call = ModelCall(self._name, system_instructions, input, model_settings, tools)
        work = self._guarding.work(call, rest, more, denial_response)
        if work is None:
            return await self._model.get_response(system_instructions, input, model_settings, tools, *rest, **more)
        return await work.arun(
            lambda guard: metered(self._model).get_response(
                system_instructions, input, *within_caps(call, guard), *rest, **more
            )
        )

    def stream_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: Any, *rest: Any, **more: Any
    ) -> AsyncIterator[Any]:
        """Guard one stream, from its first step to its end."""
        call = ModelCall(self._name, system_instructions, input, model_settings, tools)
        work = self._guarding.work(call, rest, more, lambda text: denial_event(text, self._name))
        if work is None:
            return self._model.stream_response(system_instructions, input, model_settings, tools, *rest, **more)
        return work.astream(
            lambda guard: metered(self._model).stream_response(
                system_instructions, input, *within_caps(call, guard), *rest, **more
            )
        )

    def get_retry_advice(self, request: Any) -> Any:
        """Return the advice of the model. It has none for an error of Cycles."""
        return None if isinstance(request.error, cycles.CyclesError) else self._model.get_retry_advice(request)

    async def close(self) -> None:
        """Close the model."""
        await self._model.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._model._cleanup_on_run_end(owner)

    def __getattr__(self, name: str) -> Any:
        if name == "_model":  # during a copy it is not set yet
            raise AttributeError(name)
        return getattr(self._model, name)


class GuardedProvider(ModelProvider):
    """Guards the models of a provider: ``RunConfig(model_provider=GuardedProvider(...))``.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        provider: The provider of the models; by default a `MultiProvider`.
        options: ``model_budget``: the estimate of a model call, an amount or a callable of the `ModelCall`; None from
            it: this call is not guarded. ``model_actual``: returns the cost of a `Usage`, for example a `PriceBook`.
            ``on_denied``: see `docs/integrations/README.md#denials`. ``subject``: the subject, or a callable of the
            `ModelCall`. Other options are those of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(self, client: Cycles | None = None, *, provider: ModelProvider | None = None, **options: Any) -> None:
        if not (provider is None or isinstance(provider, ModelProvider)):
            raise InvalidRequestError(f"provider must be a ModelProvider of the Agents SDK, got {provider!r:.80}")
        self._guarding = _Guarding.of(client, **options)
        self._provider = MultiProvider() if provider is None else provider

    def get_model(self, model_name: str | None) -> Model:
        """Return the guarded model of this name."""
        return GuardedModel._of(self._provider.get_model(model_name), model_name, self._guarding)

    async def aclose(self) -> None:
        """Close the provider."""
        await self._provider.aclose()

    def __getattr__(self, name: str) -> Any:
        if name == "_provider":
            raise AttributeError(name)
        return getattr(self._provider, name)
