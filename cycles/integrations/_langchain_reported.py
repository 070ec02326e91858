"""Subclasses of chat models whose client is unknown: each of their calls is reserved, and priced by its messages."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, Final

from attrs import frozen
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage

from cycles import Usage
from cycles.integrations._langchain_reading import counts_of, integer_setting, name_of, read_tools, text_of, tier_of
from cycles.integrations._stepping import END, Awaiting, Blocking, Steps, blocking, finished, result_of

GUARDED: Final = "_cycles_guarded"
"""The attribute of guarded models that has their `Guarded`."""
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")
_ADDRESSES: Final = ("base_url", "openai_api_base", "anthropic_api_url", "api_base", "endpoint")
_NATIVE: Final = ("_stream_chat_model_events", "_astream_chat_model_events")
"""Streams of events, which only some models have; without them LangChain uses `_stream` and `_astream`."""
_log: Final = logging.getLogger("cycles")


@frozen
class Guarded:
    """What a guarded model was made of.

    Attributes:
        original: The model.
        options: The options of `guard`.
        replaced: The attributes of the guarded model that have guarded clients.
        settings: The settings of its calls, if its client is unknown.
        guard: Makes it again, when it is unpickled.
    """

    original: BaseChatModel
    options: Mapping[str, Any]
    replaced: frozenset[str]
    settings: Any
    guard: Callable[..., Any]

    def original_as(self, model: Any) -> Any:
        """Return the original with the settings of its guarded model, and without clients that it makes when needed."""
        original = copy.copy(self.original)
        fields = type(original).model_fields.keys() - self.replaced
        vars(original).update({name: value for name, value in vars(model).items() if name in fields})
        for name in list(vars(original)):
            if isinstance(inspect.getattr_static(type(original), name, None), functools.cached_property):
                del vars(original)[name]
        return original


@functools.cache
def guarded_class(base: Any, reports: bool) -> Any:
    """Return the class of guarded copies of a model: they are pickled as the original and its options.

    Args:
        base: The class of the model.
        reports: Whether its client is unknown, so that this class reserves its calls.
    """
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    metaclass: Any = type(base)
    made = metaclass(base.__name__, (base,), names)

    def reduce(self: Any, protocol: Any) -> Any:
        kept: Guarded = vars(self)[GUARDED]
        if kept.options.get("client") is not None:
            raise TypeError(
                f"a guarded {base.__name__} with client= cannot be pickled: guard the model without client=, and call "
                "cycles.set_default_client() in each process"
            )
        return _made_again, (kept.guard, kept.original_as(self), dict(kept.options))

    def deepcopy(self: Any, memo: Any = None) -> Any:
        kept: Guarded = vars(self)[GUARDED]
        return kept.guard(copy.deepcopy(kept.original_as(self), memo), **kept.options)

    made.__reduce_ex__, made.__deepcopy__ = reduce, deepcopy
    if reports:
        _reserve_calls(made, base)
    return made


def _made_again(guard: Callable[..., Any], model: BaseChatModel, options: dict[str, Any]) -> Any:
    return guard(model, **options)


def _reserve_calls(made: Any, base: type[BaseChatModel]) -> None:
    """Let a subclass reserve each call of the four methods that make one."""
    whole, awhole, stream, astream = base._generate, base._agenerate, base._stream, base._astream

    @functools.wraps(whole)
    def generate(self: Any, messages: Any, *given: Any, **options: Any) -> Any:
        call = _call(self, messages, options, stream=False)
        if call is None:
            return whole(self, messages, *given, **options)
        return finished(_answer(Blocking, call, self, whole, messages, given, options))

    @functools.wraps(awhole)
    async def agenerate(self: Any, messages: Any, *given: Any, **options: Any) -> Any:
        call = _call(self, messages, options, stream=False)
        if call is None:
            return await awhole(self, messages, *given, **options)
        return await _answer(Awaiting, call, self, awhole, messages, given, options)

    @functools.wraps(stream)
    def streamed(self: Any, messages: Any, *given: Any, **options: Any) -> Any:
        call = _call(self, messages, options, stream=True)
        if call is None:
            return stream(self, messages, *given, **options)
        return blocking(_chunks(Blocking, call, self, stream, messages, given, options))

    @functools.wraps(astream)
    def astreamed(self: Any, messages: Any, *given: Any, **options: Any) -> Any:
        call = _call(self, messages, options, stream=True)
        if call is None:
            return astream(self, messages, *given, **options)
        return _chunks(Awaiting, call, self, astream, messages, given, options)

    made._generate, made._agenerate = generate, agenerate
    # LangChain streams if one of these two is not that of `BaseChatModel`.
    if stream is not BaseChatModel._stream:
        made._stream = streamed
    if made._stream is not BaseChatModel._stream or astream is not BaseChatModel._astream:
        made._astream = astreamed
    for name in _NATIVE:
        if getattr(base, name, None) is not None:
            setattr(made, name, None)


async def _answer(steps: type[Steps], call: Any, model: Any, send: Any, messages: Any, given: Any, options: Any) -> Any:
    """Reserve, send the request, read the response, and settle."""
    try:
        limited, changed = _limited(model, options, await steps.begun(call))
        with call.inside():
            result = await result_of(send(limited, messages, *given, **changed))
        _Reader(call).see(result.generations, result.llm_output or {}, whole=True)
        await steps.ended(call)
    except BaseException as raised:
        await steps.ended(call, raised)
        raise
    return result


async def _chunks(
    steps: type[Steps], call: Any, model: Any, send: Any, messages: Any, given: Any, options: Any
) -> AsyncGenerator[Any, None]:
    """As `_answer`, for a stream."""
    stream: Any = None
    reader = _Reader(call)
    try:
        limited, changed = _limited(model, options, await steps.begun(call))
        with call.inside():
            stream = send(limited, messages, *given, **changed)
            events = steps.events(stream)
        while True:
            with call.inside():
                chunk = await steps.next(events)
            if chunk is END:
                break
            reader.see([chunk], {}, whole=False)
            yield chunk
        await steps.ended(call)
    except BaseException as raised:
        try:
            await steps.close(stream)
        finally:
            await steps.ended(call, raised)
        raise


class _Reader:
    """Reads the messages of one response; the counts of chunks are added up, as LangChain adds them."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._used: Any = None
        self._model: str | None = None
        self._content: list[Any] = []
        self._tools = Usage()

    def see(self, generations: Iterable[Any], output: Mapping[str, Any], *, whole: bool) -> None:
        """Report messages to the call. One of an unknown shape reports nothing.

        Args:
            generations: What has the messages, or one chunk of a stream.
            output: What a model reports beside its messages.
            whole: Whether these are no chunks.
        """
        try:
            for each in generations:
                metadata = {**output, **(each.generation_info or {}), **each.message.response_metadata}
                self._see(each.message, metadata, whole=whole)
        except Exception as error:  # the call was made and is paid, also if its message cannot be read
            _log.warning("the usage of a message of LangChain cannot be read: %r", error)

    def _see(self, message: Any, metadata: Mapping[str, Any], *, whole: bool) -> None:
        self._model = metadata.get("model_name") or metadata.get("model") or self._model
        self._content += message.content if isinstance(message.content, list) else []
        read_tools(self._content, metadata, self._tools)
        used = message.usage_metadata if isinstance(message, AIMessage) else None
        if used:
            self._used = used if whole else add_usage(self._used, used)
        totals: Mapping[str, Any] = self._used or {}
        counts = counts_of(totals) if totals else _counts_of_output(metadata.get("token_usage"))
        is_last = whole or getattr(message, "chunk_position", None) == "last" or "finish_reason" in metadata
        counts |= {name: n for name, n in self._tools.counts.items() if not name.startswith("tokens_")}
        self._call.report(
            text_of(message), counts, (self._model or "")[:128] or None, tier_of(totals), complete=is_last
        )


def _counts_of_output(usage: Any) -> dict[str, int]:
    """Return the counts that older models report beside their messages."""
    found = usage if isinstance(usage, Mapping) else {}
    counts = {"tokens_input": found.get("prompt_tokens"), "tokens_output": found.get("completion_tokens")}
    return {name: n for name, n in counts.items() if isinstance(n, int) and n >= 0}


def _call(model: Any, messages: Any, options: Mapping[str, Any], *, stream: bool) -> Any:
    """Return the call that is reserved, with its estimate; None if one around it pays."""
    limit = next(iter(_limits(model, options).values()), None)
    body: dict[str, Any] = {
        "model": name_of(model),
        "messages": [
            {"role": each.type, "content": each.content, "tool_calls": getattr(each, "tool_calls", [])}
            for each in messages
        ],
        **{name: options[name] for name in ("tools", "functions", "response_format", "n") if name in options},
    }
    if limit is not None:
        body["max_tokens"] = limit
    found = (getattr(model, name, None) for name in _ADDRESSES)
    url = next((address for address in found if isinstance(address, str)), "")
    return vars(model)[GUARDED].settings.call(body, stream=stream, url=url)


def _limits(model: Any, options: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the output limits of a call, or of its model, by name; those that are set come first."""
    given = {name: options[name] for name in _LIMITS if name in options}
    found = given or {name: getattr(model, name) for name in _LIMITS if name in type(model).model_fields}
    limits = {name: integer_setting(value) for name, value in found.items()}
    return dict(sorted(limits.items(), key=lambda item: item[1] is None))


def _limited(model: Any, options: dict[str, Any], limits: Mapping[str, int]) -> tuple[Any, dict[str, Any]]:
    """Return the model and its options with a lower output limit, by the name that the model knows."""
    if not limits:
        return model, options
    limit, name = limits["max_tokens"], next(iter(_limits(model, options)), "max_tokens")
    if name in options or name not in type(model).model_fields:
        return model, {**options, name: limit}
    model = copy.copy(model)
    vars(model)[name] = limit
    return model, options


def pricing_of(model: BaseChatModel) -> str:
    """Return the provider of the prices of a model, as LangChain names it."""
    return str(model._get_ls_params().get("ls_provider") or "unknown")
