"""What `cycles.integrations.adk` reads of requests and responses, and makes for a denial."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types

import cycles
from cycles import Usage
from cycles.integrations._shared import code_of

_AGENT_LABEL: Final = "adk_agent_name"


@frozen
class ModelCall:
    """One call of a model, as callables get it.

    Attributes:
        model: The name of the model.
        request: The `LlmRequest`.
        stream: Whether the response is streamed.
    """

    model: str
    request: LlmRequest
    stream: bool

    @property
    def agent(self) -> str | None:
        """The name of the agent that calls the model, if ADK has put it into the request."""
        return (getattr(self.request.config, "labels", None) or {}).get(_AGENT_LABEL)


@frozen
class ToolCall:
    """One call of a tool, as callables get it.

    Attributes:
        agent: The name of the agent.
        name: The name of the tool.
        args: Its arguments.
        context: The `ToolContext`.
    """

    agent: str
    name: str
    args: dict[str, Any]
    context: Any


def read_usage(response: LlmResponse, usage: Usage, *, model: str) -> bool:
    """Add the usage of a response, or of a chunk. Returns True if it is complete."""
    reported = response.usage_metadata
    if reported is None:
        return False
    grounding = response.grounding_metadata
    searches = {} if grounding is None else {"groundingMetadata": _plain(grounding)}
    content = {
        "usageMetadata": _plain(reported),
        "modelVersion": getattr(response, "model_version", None) or model,
        "candidates": [searches],
    }
    cycles.usage.google(content, usage)
    return not response.partial


def _plain(value: Any) -> Any:
    return value.model_dump(by_alias=True, mode="json", exclude_none=True)


def has_failed(response: LlmResponse | None) -> bool:
    """Return whether a response only says that the call failed."""
    return response is not None and bool(response.error_code) and response.usage_metadata is None


def text_of(response: LlmResponse) -> Iterator[str]:
    """Yield the text of a chunk. The last response of a stream repeats the text of the chunks, so it yields nothing."""
    if not response.partial or response.content is None:
        return
    for part in response.content.parts or ():
        yield part.text or ""
        if part.function_call is not None:
            yield str(part.function_call.args or "")


def prompt_of(request: LlmRequest) -> Any:
    """Return what the model reads."""
    return [_plain(content) for content in request.contents], str(request.config.system_instruction or "")


def within_caps(request: LlmRequest, guard: Any) -> LlmRequest:
    """Return a request with a lower output limit and without forbidden tools, a copy if anything changes."""
    if not guard.is_capped:
        return request
    changes: dict[str, Any] = {"max_output_tokens": guard.max_tokens(request.config.max_output_tokens)}
    if request.config.tools:
        changes["tools"] = [_allowed(tool, guard) for tool in request.config.tools]
    return request.model_copy(update={"config": request.config.model_copy(update=changes)})


def _allowed(tool: Any, guard: Any) -> Any:
    declarations = getattr(tool, "function_declarations", None)
    if not declarations:
        return tool
    allowed = guard.filter_tools(declarations, lambda each: str(each.name))
    return tool.model_copy(update={"function_declarations": allowed})


def denial_of(error: Exception, text: str) -> LlmResponse:
    """Return the response with the message of a denial."""
    content = types.Content(role="model", parts=[types.Part(text=text)])
    return LlmResponse(content=content, custom_metadata={"cycles_denied": code_of(error)})
