"""`guard` of `cycles.integrations.langchain`."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel

import cycles
from cycles import InvalidRequestError
from cycles.integrations._langchain_reported import GUARDED, Guarded, guarded_class, pricing_of
from cycles.integrations._metering import is_guarded, report_unknown, with_clients
from cycles.integrations._shared import DENIALS, withhold

ModelT = TypeVar("ModelT", bound=BaseChatModel)


def guard(model: ModelT, **options: Any) -> ModelT:
    """Return a copy of a chat model that reserves each of its requests, for nodes of LangGraph and for chains.

    It charges what `cycles.providers.guard` charges, whole and streamed. A model whose client is unknown is charged by
    what it reports of each response, with all counts. Inside `CyclesMiddleware` that middleware pays. The model itself
    is not changed. The class of the copy is a subclass of the model's own; it can be pickled and copied if the model
    can. A pickle has no client: with ``client`` pickling raises a `TypeError`.

    Args:
        model: Any chat model of LangChain.
        options: The options of `cycles.providers.guard`. For a model whose client is unknown, `reported_cost` and
            `unmetered` have no effect.

    Raises:
        InvalidRequestError: for another value, and for a model that is guarded.
        TypeError: for an unknown option.
        ConfigurationError: as `cycles.providers.guard` does.
    """
    if not isinstance(model, BaseChatModel):
        raise InvalidRequestError(f"model must be a chat model of LangChain, got {model!r:.80}")
    made: dict[int, Any] = {}  # a model has several resources of one client
    cls: Any = type(model)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if GUARDED in vars(model):
        raise InvalidRequestError(f"this {name} is guarded already: guard the original model")

    def guarded(client: Any) -> Any:
        if is_guarded(client):
            raise InvalidRequestError(f"the client of this {name} is guarded already: guard the original model")
        if id(client) not in made:
            made[id(client)] = cycles.providers.guard_for_framework(client, _withhold, options)
        return made[id(client)]

    copied, settings = with_clients(model, guarded), None
    if copied is None:
        settings = cycles.providers.reported_model(pricing_of(model), options, _withhold)
        report_unknown(model)
        copied = copy.copy(model)
    replaced = frozenset(name for name, value in vars(copied).items() if value is not vars(model).get(name))
    copied.__dict__[GUARDED] = Guarded(model, options, replaced, settings, guard)
    object.__setattr__(copied, "__class__", guarded_class(cls, settings is not None))
    return copied


def _withhold(error: BaseException) -> None:
    if isinstance(error, DENIALS):
        withhold(error)
