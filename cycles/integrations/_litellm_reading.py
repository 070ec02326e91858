"""What `cycles.integrations.litellm` reads of calls, responses and chunks, and makes for a denial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import litellm
from attrs import frozen

import cycles
from cycles import Amount, PriceBook, Usage
from cycles.integrations._shared import code_of

_REQUEST: Final = (
    *("messages", "prompt", "input", "instructions", "tools", "functions", "response_format", "text", "n", "best_of"),
    *("modalities", "audio", "service_tier", "web_search_options", "thinking", "reasoning_effort", "reasoning"),
)
"""Arguments that decide what a request may cost."""
LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_PRICES: Final = {"gemini": "google", "vertex_ai": "google", "bedrock": "aws", "xai": "x-ai", "azure_ai": "azure"}
"""Names of providers that the price data has under another name than LiteLLM."""


@frozen
class LiteLLMCall:
    """One call of LiteLLM, as callables get it.

    Attributes:
        function: For example ``"acompletion"``.
        model: The model, without its provider.
        provider: The provider that LiteLLM resolves, or an empty string.
        arguments: By name; read-only.
    """

    function: str
    model: str
    provider: str
    arguments: Mapping[str, Any]

    @property
    def embeds(self) -> bool:
        """Whether it is a call for embeddings."""
        return "embedding" in self.function

    @property
    def limit(self) -> int | None:
        """The output limit of the call."""
        found = (self.arguments.get(name) for name in LIMITS)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)

    @property
    def body(self) -> dict[str, Any]:
        """What of the call decides its highest price."""
        found = {name: self.arguments[name] for name in _REQUEST if self.arguments.get(name) is not None}
        return {"model": self.model, **found, **({} if self.limit is None else {"max_tokens": self.limit})}

    @property
    def pricing(self) -> str:
        """The provider of the price data."""
        return _PRICES.get(self.provider, self.provider)


@frozen
class Priced:
    """Prices usage at the prices of a provider."""

    book: PriceBook
    call: LiteLLMCall

    def __call__(self, usage: Usage) -> Amount:
        """Return the cost of a usage."""
        origin = cycles.prices.Origin(model=self.call.model, provider=self.call.pricing, at=datetime.now(UTC))
        return self.book.priced(usage, origin).amount

    def count_input(self, model: str, content: Any) -> int:
        """Return the input tokens of a prompt whose response reports none."""
        return self.book.count_input(model, content)


def call_of(function: str, arguments: Mapping[str, Any]) -> LiteLLMCall:
    """Return a call with the provider that LiteLLM resolves."""
    name = str(arguments.get("model") or arguments.get("engine") or "unknown")
    try:
        model, provider, *_ = litellm.get_llm_provider(
            model=name,
            custom_llm_provider=arguments.get("custom_llm_provider"),
            api_base=arguments.get("api_base") or arguments.get("base_url"),
        )
    except Exception:  # LiteLLM raises its own error for the call
        model, provider = name, ""
    return LiteLLMCall(function, str(model), str(provider or ""), arguments)


def reads_usage_on_request(call: LiteLLMCall) -> bool:
    """Return whether a stream reports its usage only if the request says so, and it does not."""
    asks = "include_usage" in (call.arguments.get("stream_options") or {})
    return not (asks or "responses" in call.function)  # LiteLLM removes the option for providers that do not have it


def is_added(chunk: Any) -> bool:
    """Return whether a chunk has nothing but the usage that the caller did not ask for."""
    if getattr(chunk, "usage", None) is None:
        return False
    parts = [(each, getattr(each, "delta", None)) for each in getattr(chunk, "choices", None) or ()]
    return not any(each.finish_reason or getattr(delta, "content", None) for each, delta in parts)


def read_usage(event: Any, usage: Usage, *, call: LiteLLMCall) -> bool:
    """Add the usage of a response or of a chunk of a call. Returns True if it reports any."""
    response = getattr(event, "response", None) or event
    reported = getattr(response, "usage", None)
    served_by = (getattr(event, "_hidden_params", None) or {}).get("provider_response_model")
    if served_by:  # the chunks themselves have the name that was asked for
        usage.see_response("litellm", {}, model=_model(served_by, call))
    if reported is None or is_cached(event):
        return False
    model = usage.model_version or _model(getattr(response, "model", None), call)
    if getattr(reported, "prompt_tokens", None) is None:  # of the responses API
        content = response.model_dump()
        cycles.usage.openai({**content, "model": model or None}, usage)
        return True
    tier = getattr(response, "service_tier", None) or getattr(reported, "service_tier", None)
    context = {"service_tier": tier} if isinstance(tier, str) and tier else {}
    counts = _counts(reported)
    if model.startswith("gemini") and "web_searches" in counts:  # LiteLLM counts queries, and some models bill a prompt
        asked = {"candidates": [{"groundingMetadata": {"webSearchQueries": ["query"] * counts["web_searches"]}}]}
        counts |= cycles.usage.google({**asked, "modelVersion": model}).counts
    usage.see_response("litellm", counts, model=model or None, context=context)
    return True


def _model(name: Any, call: LiteLLMCall) -> str:
    """Return a name without the provider that LiteLLM adds, but with the vendor, which some providers have in it."""
    text = str(name or "").removeprefix(f"{call.provider}/")
    return (text.rpartition("/")[2] if call.provider == "bedrock" else text)[:128]


def _counts(reported: Any) -> dict[str, int]:
    """Return the counts of a `litellm.Usage`, which has all providers' in one form."""
    of_input, of_output = reported.prompt_tokens_details, reported.completion_tokens_details
    written = getattr(of_input, "cache_creation_token_details", None)
    searches = getattr(getattr(reported, "server_tool_use", None), "web_search_requests", None)
    counts = {
        "tokens_input": reported.prompt_tokens,
        "tokens_output": reported.completion_tokens,
        "tokens_cached_input": getattr(of_input, "cached_tokens", None),
        "tokens_cache_write": getattr(reported, "cache_creation_input_tokens", None)
        or getattr(of_input, "cache_creation_tokens", None)
        or getattr(of_input, "cache_write_tokens", None),
        "tokens_cache_write_1h": getattr(written, "ephemeral_1h_input_tokens", None),
        "tokens_input_audio": getattr(of_input, "audio_tokens", None),
        "tokens_input_image": getattr(of_input, "image_tokens", None),
        "tokens_output_audio": getattr(of_output, "audio_tokens", None),
        "tokens_output_image": getattr(of_output, "image_tokens", None),
        "tokens_reasoning": getattr(of_output, "reasoning_tokens", None),
        "web_searches": searches or getattr(of_input, "web_search_requests", None),
    }
    return {name: n for name, n in counts.items() if isinstance(n, int) and n > 0}


def text_of(event: Any) -> Iterator[str]:
    """Yield the text of a chunk, arguments of tool calls included. A response yields nothing."""
    delta = getattr(event, "delta", None)
    if isinstance(delta, str):  # of the responses API
        yield delta
    for choice in getattr(event, "choices", None) or ():
        part = getattr(choice, "delta", None)
        if part is None:
            if not hasattr(choice, "message"):  # a chunk of a text completion
                yield getattr(choice, "text", None) or ""
            continue
        yield part.content or ""
        yield getattr(part, "reasoning_content", None) or ""
        for call in part.tool_calls or ():
            yield call.function.arguments or ""


def is_cached(result: Any) -> bool:
    """Return whether LiteLLM took a response from its cache: it costs nothing."""
    return (getattr(result, "_hidden_params", None) or {}).get("cache_hit") is True


def tool_name(tool: Any) -> str:
    """Return the name of a tool; one of a provider has only a type."""
    found = tool if isinstance(tool, Mapping) else {}
    return str((found.get("function") or {}).get("name") or found.get("name") or found.get("type") or "")


def denial_of(call: LiteLLMCall, error: Exception, text: str) -> Any:
    """Return a response with the message of a denial.

    Raises:
        Exception: `error` itself, if the function has no response of text.
    """
    if call.function in ("completion", "acompletion"):
        if call.arguments.get("stream") is True:
            parts = [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
            return litellm.ModelResponseStream(model=call.model, choices=parts)
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        response = litellm.ModelResponse(model=call.model, choices=choices)
        response._hidden_params["cycles_denied"] = code_of(error)
        return response
    raise error
