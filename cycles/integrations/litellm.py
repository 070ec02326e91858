"""LiteLLM: guard each request that LiteLLM sends, also below its Router, DSPy, CrewAI and smolagents.

Needs the extra ``litellm``; see `docs/integrations/litellm.md`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Unpack

from attrs import define, field, frozen

import cycles
from cycles import Amount, Cycles, InvalidRequestError, PriceBook
from cycles.integrations._options import Common, ModelOptions
from cycles.integrations._shared import require
from cycles.integrations._work import Work

require("litellm", "litellm")

import litellm
import openai

from cycles.integrations._litellm_reading import (
    LIMITS,
    LiteLLMCall,
    Priced,
    call_of,
    denial_of,
    is_cached,
    read_usage,
    text_of,
    tool_name,
)
from cycles.integrations._litellm_streams import GuardedStreams
from cycles.integrations._stepping import finished, result_of

__all__ = ["Installed", "LiteLLMCall", "install"]

_log: Final = logging.getLogger("cycles")
_FUNCTIONS: Final = ("completion", "text_completion", "embedding", "responses")
_MARK: Final = "_cycles_guarded"
_FIRST_LIMIT: Final = {"completion": "max_tokens", "text_completion": "max_tokens", "responses": "max_output_tokens"}


def install(
    client: Cycles | None = None,
    *,
    model_budget: Amount | Callable[[LiteLLMCall], Amount | None] | Literal["book"],
    **options: Unpack[ModelOptions],
) -> Installed:
    """Replace the functions of LiteLLM that send requests by guarded ones.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: The estimate of a call: an amount, a callable of the `LiteLLMCall` (None from it: this call is not
            guarded), or ``"book"``: the upper bound of the price book, with the provider that LiteLLM resolves.
        options: See `docs/integrations/README.md#options-of-every-integration`. With ``"book"`` `model_actual` is that
            book, by default `PriceBook.genai()`. Only a denied chat completion can become a message; other calls raise.
            A callable `subject` gets the `LiteLLMCall`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value, and if LiteLLM is guarded already.
        ConfigurationError: if ``"book"`` needs prices and the extra is missing.
    """
    if model_budget == "book":
        book = options.get("model_actual")
        options["model_actual"] = book = PriceBook.genai() if book is None else book
        if not isinstance(book, PriceBook):
            raise InvalidRequestError(f"model_actual must be a PriceBook with model_budget='book', got {book!r:.80}")
        common = Common.of(client, options, model_budget=_Bounds(book, client))
    elif isinstance(model_budget, str):
        raise InvalidRequestError(f"model_budget must be an Amount, a callable or 'book', got {model_budget!r:.80}")
    else:
        common = Common.of(client, options, model_budget=model_budget)
    if hasattr(litellm.completion, _MARK):
        raise InvalidRequestError("LiteLLM is guarded already: call remove() of what the first install() returned")
    return Installed.of(common)


@define
class Installed:
    """The guarded functions of LiteLLM; `remove` restores the original ones."""

    _originals: dict[str, Any]
    _guarded: dict[str, Any]

    @classmethod
    def of(cls, common: Common) -> Installed:
        """Replace all functions."""
        originals = {name: getattr(litellm, name) for each in _FUNCTIONS for name in _names(each)}
        guarded = {name: _guarded(name, original, common) for name, original in originals.items()}
        _warn_about_copies(originals)
        for name, function in guarded.items():
            setattr(litellm, name, function)
        return cls(originals, guarded)

    def remove(self) -> None:
        """Restore the original functions; a function that another library has replaced since stays. Once is enough."""
        for name, function in self._guarded.items():
            setattr(function, _MARK, False)  # a library that keeps it calls the original
            if getattr(litellm, name, None) is function:
                setattr(litellm, name, self._originals[name])


def _names(function: str) -> tuple[str, ...]:
    """Return the names of the sync and the async form that this version of LiteLLM has."""
    return tuple(name for name in (function, f"a{function}") if hasattr(litellm, name))


def _warn_about_copies(originals: Mapping[str, Any]) -> None:
    """Name the modules that have imported a function of LiteLLM by its name, and will call the original."""
    for module, found in list(sys.modules.items()):
        if module.partition(".")[0] in ("litellm", "cycles"):
            continue
        members = getattr(found, "__dict__", {})
        if copied := [name for name, original in originals.items() if members.get(name) is original]:
            names = ", ".join(copied)
            _log.warning("%s imported %s of LiteLLM before install(): its calls are not guarded", module, names)


def _guarded(name: str, original: Any, common: Common) -> Any:
    """Return a function that takes the place of one of LiteLLM."""
    positional = list(inspect.signature(getattr(litellm, name.removeprefix("a"))).parameters)

    def attempt(arguments: dict[str, Any], send: Callable[..., Any]) -> Any:
        call = call_of(name, MappingProxyType(arguments))
        work = _work_of(common, call)
        return original(**arguments) if work is None else send(work, original, arguments, call)

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        arguments = {**dict(zip(positional, args, strict=False)), **kwargs}
        if _is_paid(arguments) or not function.__dict__[_MARK]:
            return original(*args, **kwargs)
        return finished(_attempts(arguments, lambda given: attempt(given, _send)))

    @functools.wraps(original)
    async def coroutine_function(*args: Any, **kwargs: Any) -> Any:
        arguments = {**dict(zip(positional, args, strict=False)), **kwargs}
        if _is_paid(arguments) or not coroutine_function.__dict__[_MARK]:
            return await original(*args, **kwargs)
        return await _attempts(arguments, lambda given: attempt(given, _asend))

    made = function if name in _FUNCTIONS else coroutine_function
    setattr(made, _MARK, True)
    return made


def _work_of(common: Common, call: LiteLLMCall) -> Work | None:
    """Return the guarded call; None if it is not guarded."""
    actual = common.model_actual
    return Work.of_model(
        common,
        call.model,
        call,
        action=("llm.embedding" if call.embeds else "llm.completion", call.model),
        price=Priced(actual, call) if isinstance(actual, PriceBook) else actual,
        read=functools.partial(read_usage, call=call),
        failed=is_cached,
        prompt=lambda: call.body,
        strings=text_of,
        limit=call.limit,
        charges_lost=True,
        denied=lambda error, text: denial_of(call, error, text),
    )


@frozen
class _Bounds:
    """The upper bounds of a price book, with the provider that LiteLLM resolves."""

    book: PriceBook
    client: Cycles | None
    _models: dict[str, Any] = field(factory=dict, init=False)

    def __call__(self, call: LiteLLMCall) -> Amount:
        """Return the highest price of a call."""
        if call.pricing not in self._models:
            options = {"prices": self.book, "client": self.client}
            self._models[call.pricing] = cycles.providers.reported_model(call.pricing, options)
        amount: Amount = self._models[call.pricing].bound(call.body, embeds=call.embeds)
        return amount


def _is_paid(arguments: Mapping[str, Any]) -> bool:
    """Return whether something else pays: a call around this one, or the calls that LiteLLM makes for its fallbacks."""
    return cycles.providers.current_payer() is not None or bool(arguments.get("fallbacks"))


async def _attempts(arguments: dict[str, Any], attempt: Callable[[dict[str, Any]], Any]) -> Any:
    """Make the attempts that `num_retries` allows, each with its own reservation."""
    retries = arguments.get("num_retries")
    if not isinstance(retries, int) or not retries or "model_info" in (arguments.get("metadata") or {}):
        return await result_of(attempt(arguments))  # the Router counts its attempts itself
    arguments = {**arguments, "num_retries": 0}
    for _ in range(retries):
        try:
            return await result_of(attempt(dict(arguments)))
        except openai.APIError:  # the base of all errors of providers in LiteLLM
            continue
    return await result_of(attempt(arguments))


def _send(work: Work, original: Any, arguments: dict[str, Any], call: LiteLLMCall) -> Any:
    if (streams := GuardedStreams.of(call)) is not None:
        return streams.opened(work, lambda guard: original(**_limited(streams.asked(arguments), guard, call)))
    return work.run(lambda guard: original(**_limited(arguments, guard, call)))


def _asend(work: Work, original: Any, arguments: dict[str, Any], call: LiteLLMCall) -> Awaitable[Any]:
    if (streams := GuardedStreams.of(call)) is not None:
        return streams.aopened(work, lambda guard: original(**_limited(streams.asked(arguments), guard, call)))
    return work.arun(lambda guard: original(**_limited(arguments, guard, call)))


def _limited(arguments: dict[str, Any], guard: Any, call: LiteLLMCall) -> dict[str, Any]:
    """Return a copy of the arguments within the caps."""
    changed = dict(arguments)
    if not guard.is_capped:
        return changed
    first = _FIRST_LIMIT.get(call.function.removeprefix("a"))
    most = guard.max_tokens(call.limit)
    if most is not None and first is not None:
        names = [name for name in LIMITS if arguments.get(name) is not None] or [first]
        changed |= dict.fromkeys(names, most)
    if arguments.get("tools"):
        tools = guard.filter_tools(arguments["tools"], tool_name)
        if len(tools) < len(arguments["tools"]):
            changed |= {"tools": tools or None, "tool_choice": None}
    return changed
