"""What `cycles.integrations.pydantic_ai` reads of requests and responses, and makes for a denial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestContext, ModelRequestParameters
from pydantic_ai.tools import RunContext

from cycles import Usage
from cycles.integrations._shared import code_of

if TYPE_CHECKING:
    from cycles import AsyncGuard

_COUNTS: Final = {
    "input_tokens": "tokens_input",
    "output_tokens": "tokens_output",
    "cache_read_tokens": "tokens_cached_input",
    "cache_write_tokens": "tokens_cache_write",
    "cache_write_1h_tokens": "tokens_cache_write_1h",
    "output_reasoning_tokens": "tokens_reasoning",
    "input_audio_tokens": "tokens_input_audio",
    "cache_audio_read_tokens": "tokens_cached_input_audio",
    "output_audio_tokens": "tokens_output_audio",
}
_ENDED_EARLY: Final = ("incomplete", "interrupted")
_UNFORCED: Final = (None, "auto", "none")


@frozen
class ToolCall:
    """One call of a tool, as callables get it.

    Attributes:
        context: The `RunContext`; ``context.deps`` are the dependencies of the run.
        name: The name of the tool.
        args: The validated arguments.
    """

    context: RunContext[Any]
    name: str
    args: Mapping[str, Any]


def read_usage(response: ModelResponse, usage: Usage) -> bool:
    """Add the usage of a response. Returns True if it is complete; usage that is all zeros is not reported."""
    reported = response.usage
    if not (reported.input_tokens or reported.output_tokens):
        return False
    counts = {count: getattr(reported, name, 0) for name, count in _COUNTS.items()}
    found = {name: n for name, n in counts.items() if isinstance(n, int) and n > 0}
    usage.see_response(response.provider_response_id, found, model=(response.model_name or "")[:128] or None)
    return not ended_early(response)


def is_pending(response: ModelResponse) -> bool:
    """Return whether the response only says that the work continues: the later response reports what it cost."""
    return response.state == "suspended" and not (response.usage.input_tokens or response.usage.output_tokens)


def ended_early(response: ModelResponse) -> bool:
    """Return whether a stream was not read to its end."""
    return response.state in _ENDED_EARLY


def text_of(response: ModelResponse) -> Iterator[str]:
    """Yield what a stream that ended early wrote, arguments of tool calls included."""
    if ended_early(response):
        for part in response.parts:
            yield str(getattr(part, "content", None) or getattr(part, "args", None) or "")


def prompt_of(request: ModelRequestContext) -> list[str]:
    """Return the text that the model reads."""
    parts = [part for message in request.messages for part in message.parts]
    instructions = [getattr(message, "instructions", None) or "" for message in request.messages[-1:]]
    return instructions + [str(getattr(part, "content", None) or getattr(part, "args", None) or "") for part in parts]


def limit_of(request: ModelRequestContext) -> int | None:
    """Return the output limit of a request, or that of its model."""
    settings = {**(request.model.settings or {}), **(request.model_settings or {})}
    limit = settings.get("max_tokens")
    return limit if isinstance(limit, int) and not isinstance(limit, bool) else None


def within_caps(request: ModelRequestContext, guard: AsyncGuard) -> tuple[Any, ModelRequestParameters]:
    """Return settings and parameters that request no more than the caps allow. Those of the caller stay unchanged."""
    settings, parameters = request.model_settings, request.model_request_parameters
    if not guard.is_capped:
        return settings, parameters
    changed: dict[str, Any] = {**(settings or {})}
    most = guard.max_tokens(limit_of(request))
    if most is not None:
        changed["max_tokens"] = most
    functions = guard.filter_tools(parameters.function_tools, lambda tool: tool.name)
    natives = guard.filter_tools(parameters.native_tools, lambda tool: tool.kind)
    before = len(parameters.function_tools) + len(parameters.native_tools)
    if len(functions) + len(natives) < before:
        parameters = replace(parameters, function_tools=functions, native_tools=natives)
        if changed.get("tool_choice") not in _UNFORCED:
            changed["tool_choice"] = None
    return changed, parameters


def takes_text(parameters: ModelRequestParameters) -> bool:
    """Return whether the output is plain text. A message would fail the validation of any other output."""
    return parameters.allow_text_output and parameters.output_mode == "text" and not parameters.output_tools


def denial_response(text: str, error: Exception, model: str) -> ModelResponse:
    """Return a response that is a message and nothing else."""
    return ModelResponse(parts=[TextPart(text)], model_name=model, metadata={"cycles_denied": code_of(error)})


def denial_stream(response: ModelResponse, parameters: ModelRequestParameters) -> CompletedStreamedResponse:
    """Return a stream of a response."""
    return CompletedStreamedResponse(response, model_request_parameters=parameters, replay_events=True)
