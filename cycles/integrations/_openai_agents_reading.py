"""What `cycles.integrations.openai_agents` reads of calls, responses and events, and makes for a denial."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from agents import AgentsException, ModelResponse, ModelSettings, Usage as AgentsUsage
from agents.models.fake_id import FAKE_RESPONSES_ID
from attrs import frozen
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
)

import cycles
from cycles import Usage

if TYPE_CHECKING:
    from cycles import AsyncGuard, CyclesError

_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
_UNFORCED: Final = (None, "auto", "none")


@frozen
class ModelCall:
    """One call of a model, as callables get it.

    Attributes:
        model: The name of the model.
        instructions: The system instructions, or None.
        input: A string, or the list of input items.
        settings: The `ModelSettings`.
        tools: The tools that are offered.
    """

    model: str
    instructions: str | None
    input: Any
    settings: ModelSettings
    tools: Sequence[Any]


def read_usage(event: Any, usage: Usage, *, model: str) -> bool:
    """Add the usage of a response, or of the last event of a stream. Usage that is all zeros is not reported."""
    is_response = isinstance(event, ModelResponse)
    if not is_response and getattr(event, "type", None) not in _TERMINAL:
        return False
    response = event if is_response else event.response
    reported = getattr(response, "usage", None)
    if reported is None or not (reported.input_tokens or reported.output_tokens):
        return False
    if not getattr(response, "model", None):
        usage.see_response(None, {}, model=model)
    cycles.usage.openai(response, usage)
    return True


def text_of(event: Any) -> Iterator[str]:
    """Yield the text of a stream event, arguments of tool calls included. A response yields nothing."""
    delta = getattr(event, "delta", None)
    if isinstance(delta, str) and not str(getattr(event, "type", "")).endswith("audio.delta"):
        yield delta


def is_failure(event: Any) -> bool:
    """Return whether a stream event says that the response failed."""
    return getattr(event, "type", None) == "response.failed"


def model_name(model: Any) -> str:
    """Return the name of a model."""
    name = getattr(model, "model", None)
    return name if isinstance(name, str) and name else type(model).__name__


def tool_name(tool: Any) -> str:
    """Return the name of a tool."""
    return str(getattr(tool, "name", ""))


def within_caps(call: ModelCall, guard: AsyncGuard) -> tuple[ModelSettings, Any]:
    """Return settings and tools that request no more than the caps allow. Those of the caller stay unchanged."""
    if not guard.is_capped:
        return call.settings, call.tools
    tools = guard.filter_tools(call.tools, tool_name)
    changes: dict[str, Any] = {"max_tokens": guard.max_tokens(call.settings.max_tokens)}
    if len(tools) < len(call.tools) and call.settings.tool_choice not in _UNFORCED:
        changes["tool_choice"] = None
    return replace(call.settings, **changes), tools


def denial_response(text: str) -> ModelResponse:
    """Return a response that is a message and nothing else."""
    return ModelResponse(output=[_message(text)], usage=AgentsUsage(), response_id=None)


def denial_event(text: str, model: str) -> ResponseCompletedEvent:
    """Return the only event of a stream that is a message and nothing else."""
    response = Response(
        id=FAKE_RESPONSES_ID,
        created_at=time.time(),
        model=model,
        object="response",
        output=[_message(text)],
        tool_choice="none",
        tools=[],
        parallel_tool_calls=False,
    )
    return ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")


def _message(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(
        id=FAKE_RESPONSES_ID, content=[content], role="assistant", status="completed", type="message"
    )


def for_runner(error: CyclesError) -> CyclesError:
    """Make an error an `AgentsException` too: the runner wraps any other exception of a tool in a `UserError`."""
    raised: Any = error
    if not isinstance(raised, AgentsException):
        raised.__class__ = _both(raised.__class__)
        raised.run_data = None  # what AgentsException.__init__ sets
    return error


@cache
def _both(base: type[CyclesError]) -> type[CyclesError]:
    """Return the class of errors that are `base` and `AgentsException`. It is pickled and copied as `base`."""

    def reduce(self: CyclesError) -> tuple[Any, ...]:
        rebuild, (_, args, state) = base.__reduce__(self)[:2]
        return rebuild, (base, args, {name: value for name, value in state.items() if name != "run_data"})

    return type(base.__name__, (base, AgentsException), {"__reduce__": reduce, "__module__": base.__module__})
