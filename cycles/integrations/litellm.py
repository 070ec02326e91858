"""LiteLLM: guard each request that LiteLLM sends, also below its Router, DSPy, CrewAI and smolagents.

Needs the extra ``litellm``; see `docs/integrations/litellm.md`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from attrs import define, field

import cycles
from cycles import Amount, Cycles, InvalidRequestError, PriceBook, Usage
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

_FUNCTIONS: Final = ("completion", "text_completion", "embedding", "responses")
_MARK: Final = "_cycles_guarded"
_FIRST_LIMIT: Final = {"completion": "max_tokens", "text_completion": "max_tokens", "responses": "max_output_tokens"}


def install(
    client: Cycles | None = None,
    *,
    model_budget: Amount | Callable[[LiteLLMCall], Amount | None] | Literal["book"],
    model_actual: Callable[[Usage], Amount] | None = None,
    on_denied: OnDenied = None,
    subject: SubjectOption = None,
    **options: Any,
) -> Installed:
    """Replace the functions of LiteLLM that send requests by guarded ones.

    Args:
        client: The Cycles client; by default the default client, looked up at each call.
        model_budget: The estimate of a call: an amount, a callable of the `LiteLLMCall` (None from it: this call is not
            guarded), or ``"book"``: the upper bound of the price book, with the provider that LiteLLM resolves.
        model_actual: Returns the cost of a `Usage`, for example a `PriceBook`. With ``"book"`` it is that book, by
            default `PriceBook.genai()`.
        on_denied: What a denial becomes: see `docs/integrations/README.md#denials`. Only chat completions can become a
            message; other calls raise.
        subject: The subject, or a callable of the `LiteLLMCall`.
        options: Other options of `reserve`.

    Raises:
        TypeError: for an unknown option.
        InvalidRequestError: for a wrong value, and if LiteLLM is guarded already.
        ConfigurationError: if ``"book"`` needs prices and the extra is missing.
    """
    if model_budget is None:
        raise InvalidRequestError("model_budget must be an Amount such as cycles.usd('0.05'), a callable or 'book'")
    common = Common(client, subject, on_denied, options)
    actual = checked_actual("model_actual", model_actual, amount=False)
    if model_budget == "book":
        if not (actual is None or isinstance(actual, PriceBook)):
            raise InvalidRequestError(f"model_actual must be a PriceBook with model_budget='book', got {actual!r:.80}")
        guarding = _Guarding(common, None, PriceBook.genai() if actual is None else actual, is_bound=True)
    else:
        guarding = _Guarding(common, checked_budget("model_budget", model_budget), actual)
    if hasattr(litellm.completion, _MARK):
        raise InvalidRequestError("LiteLLM is guarded already: call remove() of what the first install() returned")
    return Installed.of(guarding)


@define
class Installed:
    """The guarded functions of LiteLLM; `remove` restores the original ones."""

    _originals: dict[str, Any]
    _guarded: dict[str, Any]

    @classmethod
    def of(cls, guarding: _Guarding) -> Installed:
        """Replace all functions."""
        originals = {name: getattr(litellm, name) for each in _FUNCTIONS for name in _names(each)}
        guarded = {name: guarding.guarded(name, original) for name, original in originals.items()}
        for name, function in guarded.items():
            setattr(litellm, name, function)
        return cls(originals, guarded)

    def remove(self) -> None:
        """Restore the original functions; a function that another library has replaced since stays. Once is enough."""
        for name, function in self._guarded.items():
            if getattr(litellm, name, None) is function:
                setattr(litellm, name, self._originals[name])


def _names(function: str) -> tuple[str, ...]:
    """Return the names of the sync and the async form that this version of LiteLLM has."""
    return tuple(name for name in (function, f"a{function}") if hasattr(litellm, name))


@define
class _Guarding:
    """The options of the guarded functions."""

    common: Common
    budget: Any
    actual: Any
    is_bound: bool = False
    _bounds: dict[str, Any] = field(factory=dict, init=False)

    def guarded(self, name: str, original: Any) -> Any:
        """Return a function that takes the place of one of LiteLLM."""
        positional = list(inspect.signature(getattr(litellm, name.removeprefix("a"))).parameters)

        def attempt(arguments: dict[str, Any], send: Callable[..., Any]) -> Any:
            call = call_of(name, MappingProxyType(arguments))
            work = self.work(call)
            return original(**arguments) if work is None else send(work, original, arguments, call)

        @functools.wraps(original)
        def function(*args: Any, **kwargs: Any) -> Any:
            arguments = {**dict(zip(positional, args, strict=False)), **kwargs}
            if _is_paid(arguments):
                return original(*args, **kwargs)
            return finished(_attempts(arguments, lambda given: attempt(given, _send)))

        @functools.wraps(original)
        async def coroutine_function(*args: Any, **kwargs: Any) -> Any:
            arguments = {**dict(zip(positional, args, strict=False)), **kwargs}
            if _is_paid(arguments):
                return await original(*args, **kwargs)
            return await _attempts(arguments, lambda given: attempt(given, _asend))

        made = function if name in _FUNCTIONS else coroutine_function
        setattr(made, _MARK, True)
        return made

    def work(self, call: LiteLLMCall) -> Work | None:
        """Return the guarded call; None if it is not guarded."""
        embeds = "embedding" in call.function
        estimate = self._bound(call, embeds) if self.is_bound else estimate_of("model_budget", self.budget, None, call)
        if estimate is None:
            return None
        streamed = call.arguments.get("stream") is True

        def denied(error: Exception) -> Any:
            return denial_of(call, error, self.common.message(error, call, default="raise"), streamed=streamed)

        return Work(
            common=self.common,
            estimate=estimate,
            action=("llm.embedding" if embeds else "llm.completion", call.model),
            call=(call,),
            price=Priced(self.actual, call) if isinstance(self.actual, PriceBook) else self.actual,
            read=read_usage,
            failed=is_cached,
            prompt=lambda: call.body,
            strings=text_of,
            limit=call.limit,
            denied=denied,
            is_model=True,
        )

    def _bound(self, call: LiteLLMCall, embeds: bool) -> Amount:
        """Return the upper bound of the price book."""
        if call.pricing not in self._bounds:
            options = {"prices": self.actual, "client": self.common.client}
            self._bounds[call.pricing] = cycles.providers.reported_model(call.pricing, options)
        amount: Amount = self._bounds[call.pricing].bound(call.body, embeds=embeds)
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
