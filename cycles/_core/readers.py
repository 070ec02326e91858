"""Reading token counts out of what model SDKs answer, by shape alone: objects or mappings, whole answers or chunks.

Nothing here imports those SDKs, and nothing here raises: what has no counts leaves the account as it is. Streams
repeat and correct their counts; an answer is told from another by its id, and its latest counts replace earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.usage import MAX_MODEL_VERSION, Usage


def openai(answer: Any, usage: Usage | None = None) -> Usage:
    """Read an answer, a stream chunk or a stream event of OpenAI's chat, responses, completions or embeddings API.

    Other providers that speak the same shapes are read as well. Chat streams tell their usage in the last chunk, and
    only when asked with ``stream_options={"include_usage": True}``.

    Args:
        answer: Object or mapping; anything without counts changes nothing.
        usage: The account to update, ``guard.usage`` for instance; a new one by default.

    Returns:
        The account.
    """
    account = Usage() if usage is None else usage
    source = _get(answer, "response") or answer  # events of the responses API carry the answer inside
    _see_model(account, source)
    told = _get(source, "usage")
    read = _count(told, "prompt_tokens", "input_tokens")
    details = _get(told, "prompt_tokens_details") or _get(told, "input_tokens_details")
    _see(
        account,
        _get(source, "id"),
        tokens_input=read,
        tokens_output=_count(told, "completion_tokens", "output_tokens"),
        tokens_cached_input=_count(details, "cached_tokens"),
    )
    return account


def anthropic(answer: Any, usage: Usage | None = None) -> Usage:
    """Read a message or a stream event of Anthropic's messages API.

    ``tokens_input`` counts all that was read: this API reports what came from its cache, and what was written to it,
    apart from ``input_tokens``.

    Args:
        answer: Object or mapping; anything without counts changes nothing.
        usage: The account to update, ``guard.usage`` for instance; a new one by default.

    Returns:
        The account.
    """
    account = Usage() if usage is None else usage
    source = _get(answer, "message") or answer  # message_start carries the message inside
    _see_model(account, source)
    told = _get(source, "usage")
    cached = _count(told, "cache_read_input_tokens")
    written = _count(told, "cache_creation_input_tokens")
    fresh = _count(told, "input_tokens")
    _see(
        account,
        _get(source, "id"),
        tokens_input=None if fresh is None else fresh + (cached or 0) + (written or 0),
        tokens_output=_count(told, "output_tokens"),
        tokens_cached_input=cached,
        tokens_cache_write=written,
    )
    return account


def any_answer(answer: Any) -> Usage:
    """Read an answer of any shape known here: Anthropic's where its cache counts or its type show, else OpenAI's."""
    source = _get(answer, "message") or answer
    told = _get(source, "usage")
    if _get(source, "type") == "message" or _get(told, "cache_read_input_tokens") is not None:
        return anthropic(answer)
    return openai(answer)


def _see(account: Usage, answer: object, **counts: int | None) -> None:
    told = {name: n for name, n in counts.items() if n is not None}
    name = answer if isinstance(answer, str) and answer else None
    if told or name is not None:
        account.see_answer(name, told)


def _see_model(account: Usage, source: Any) -> None:
    model = _get(source, "model")
    if isinstance(model, str) and model:
        account.model_version = model[:MAX_MODEL_VERSION]


def _get(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _count(source: Any, *names: str) -> int | None:
    for name in names:
        found = _get(source, name)
        if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
            return found
    return None
