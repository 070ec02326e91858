"""`guard` of `cycles.integrations.langchain`."""

from __future__ import annotations

from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel

import cycles
from cycles import InvalidRequestError
from cycles.integrations._metering import is_guarded, with_clients
from cycles.integrations._shared import DENIALS, withhold

ModelT = TypeVar("ModelT", bound=BaseChatModel)


def guard(model: ModelT, **options: Any) -> ModelT:
    """Return a copy of a chat model that reserves each of its requests, for nodes of LangGraph and for chains.

    It charges what `cycles.providers.guard` charges, whole and streamed. Inside `CyclesMiddleware` that middleware
    pays. The model itself is not changed.

    Args:
        model: A chat model of OpenAI, Azure, Anthropic or Gemini, or a subclass.
        options: The options of `cycles.providers.guard`.

    Raises:
        InvalidRequestError: for another value, for a model that is guarded, and for a model whose client is unknown.
        TypeError: for an unknown option.
        ConfigurationError: as `cycles.providers.guard` does.
    """
    if not isinstance(model, BaseChatModel):
        raise InvalidRequestError(f"model must be a chat model of LangChain, got {model!r:.80}")
    made: dict[int, Any] = {}  # a model has several resources of one client
    cls = f"{type(model).__module__}.{type(model).__qualname__}"

    def guarded(client: Any) -> Any:
        if is_guarded(client):
            raise InvalidRequestError(f"this {cls} is guarded already: guard the original model")
        if id(client) not in made:
            made[id(client)] = cycles.providers.guard_for_framework(client, _withhold, options)
        return made[id(client)]

    copied = with_clients(model, guarded)
    if copied is None:
        raise InvalidRequestError(
            f"the client of {cls} is unknown, so its requests cannot be reserved: use CyclesMiddleware with "
            "model_budget=, which reads what the model reports"
        )
    return copied


def _withhold(error: BaseException) -> None:
    if isinstance(error, DENIALS):
        withhold(error)
