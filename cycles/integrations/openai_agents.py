"""OpenAI Agents SDK: guard each model call, and the tools that you choose.

Needs the extra ``openai-agents``; see `docs/integrations/openai-agents.md`.
"""

# ruff: noqa: A002 - the SDK names a parameter `input`
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Unpack

import cycles
from cycles import Amount, Cycles, InvalidRequestError
from cycles.integrations._options import Common, ModelOptions
from cycles.integrations._shared import require
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

ModelBudget = Amount | Callable[[ModelCall], Amount | None]


def _work_of(common: Common, call: ModelCall, rest: Any, more: Any, make: Callable[[str], Any]) -> Work | None:
    """Return the guarded call; None if it is not guarded. `make` returns what replaces a denied call."""

    def denied(error: Exception, text: str) -> Any:
        schema = rest[0] if rest else more.get("output_schema")
        if not (schema is None or schema.is_plain_text()):
            raise error  # a message is no structured output
        return make(text)

    return Work.of_model(
        common,
        call.model,
        call,
        failed=is_failure,
        read=lambda event, usage: read_usage(event, usage, model=call.model[:128]),
        prompt=lambda: [call.instructions or "", call.input],
        strings=text_of,
        limit=call.settings.max_tokens,
        denied=denied,
    )


class GuardedModel(Model):
    """Guards each call of a model. It is a `Model` as well: ``Agent(model=GuardedModel(...))``.

    Args:
        model: The model.
        name: The name of the model on reservations; by default its attribute ``model``.
        client: As for `GuardedProvider`.
        model_budget: As for `GuardedProvider`.
        options: As for `GuardedProvider`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str | None = None,
        client: Cycles | None = None,
        model_budget: ModelBudget,
        **options: Unpack[ModelOptions],
    ) -> None:
        if not isinstance(model, Model):
            raise InvalidRequestError(f"model must be a Model of the Agents SDK, got {model!r:.80}")
        self._model, self._name = model, name or model_name(model)
        self._common = Common.of(client, options, model_budget=model_budget)

    @classmethod
    def _of(cls, model: Model, name: str | None, common: Common) -> GuardedModel:
        """Return a guarded model without checking the options again."""
        guarded = cls.__new__(cls)
        guarded._model, guarded._name, guarded._common = model, name or model_name(model), common
        return guarded

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: Any, *rest: Any, **more: Any
    ) -> Any:
        """Guard one call."""
        call = ModelCall(self._name, system_instructions, input, model_settings, tools)
        work = _work_of(self._common, call, rest, more, denial_response)
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
        work = _work_of(self._common, call, rest, more, lambda text: denial_event(text, self._name))
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
        model_budget: The estimate of a call: an amount, or a callable of the `ModelCall`. None from it: this call is
            not guarded.
        options: See `docs/integrations/README.md#options-of-every-integration`. A callable `subject` gets the
            `ModelCall`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value.
    """

    def __init__(
        self,
        client: Cycles | None = None,
        *,
        provider: ModelProvider | None = None,
        model_budget: ModelBudget,
        **options: Unpack[ModelOptions],
    ) -> None:
        if not (provider is None or isinstance(provider, ModelProvider)):
            raise InvalidRequestError(f"provider must be a ModelProvider of the Agents SDK, got {provider!r:.80}")
        self._common = Common.of(client, options, model_budget=model_budget)
        self._provider = MultiProvider() if provider is None else provider

    def get_model(self, model_name: str | None) -> Model:
        """Return the guarded model of this name."""
        return GuardedModel._of(self._provider.get_model(model_name), model_name, self._common)

    async def aclose(self) -> None:
        """Close the provider."""
        await self._provider.aclose()

    def __getattr__(self, name: str) -> Any:
        if name == "_provider":
            raise AttributeError(name)
        return getattr(self._provider, name)
