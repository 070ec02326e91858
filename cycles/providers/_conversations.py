"""Bound the input tokens of a conversation by what the provider has counted of its beginning.

An agent sends its conversation again with each call. The bytes of a prompt are about four times its tokens, but a
response has reported the tokens of all messages but the last ones. So the bound is what was reported for the longest
equal beginning, and the bytes of the messages after it. It is an upper bound: special tokens separate messages, and the
bytes of JSON around each added message exceed what a boundary can add.

Two requests belong to one conversation if everything that may count as input is equal: model, tools, system prompt,
response format. Only hashes are kept, chained over the messages, so that any beginning can be looked up. Media that
are named by an address are not: what is there may change.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from cycles._usage.tokens import NO_INPUT, bound_of
from cycles.providers._shared import shared

MOST_KEPT: Final = 4_096
"""Hashes that one guarded client keeps."""

_MESSAGES: Final = {
    "chat.completions": "messages",
    "responses": "input",
    "responses.compact": "input",
    "messages": "messages",
    "models.generate_content": "contents",
    "converse": "messages",
    "converse_stream": "messages",
}
"""The member of the body that has the messages, by endpoint."""
_UNKNOWN: Final = frozenset(
    (
        *("previous_response_id", "conversation", "prompt"),
        *("cachedContent", "cached_content", "truncation", "context_management"),
    )
)
"""Members that add or remove input which the request does not show."""
_CONFIG: Final = ("generationConfig", "generation_config", "inferenceConfig")
_ADDRESSES: Final = ('url":"http', 'fileUri"', 'file_uri"', '"s3Location"')
_CACHE_CONTROL: Final = "cache_control"
_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


@frozen
class Chain:
    """The messages of a request, and the hash of each beginning of them.

    Attributes:
        messages: The messages.
        hashes: One for each number of messages, from one on.
    """

    messages: Sequence[Any]
    hashes: tuple[bytes, ...]


def chain_of(endpoint: str, origin: tuple[str | None, ...], body: Mapping[str, Any]) -> Chain | None:
    """Return the chain of a request; None if its input is not only what it shows.

    Args:
        endpoint: The name in the endpoint table.
        origin: The model and the address.
        body: The body.
    """
    member = _MESSAGES.get(endpoint)
    given = None if member is None else body.get(member)
    messages = [given] if isinstance(given, str) else given
    if not isinstance(messages, list) or not messages or any(body[name] is not None for name in _UNKNOWN & body.keys()):
        return None
    others = {name: _counted(name, value) for name, value in body.items() if name != member and name not in NO_INPUT}
    try:
        state = hashlib.sha256(_encoded([endpoint, *origin, others]))
        hashes = []
        for message in messages:
            state.update(_encoded(message))
            hashes.append(state.digest())
    except (TypeError, ValueError, RecursionError):  # values that are no JSON
        return None
    return Chain(messages, tuple(hashes))


def _counted(name: str, value: Any) -> Any:
    if name in _CONFIG and isinstance(value, Mapping):
        return {inner: each for inner, each in value.items() if inner not in NO_INPUT}
    return value


def _encoded(value: Any) -> bytes:
    """Return the JSON of a value without `cache_control`, which agents move from message to message.

    Raises:
        ValueError: if it names media by their address.
    """
    text = _json(value)
    if _CACHE_CONTROL in text:
        text = _json(_without_cache_control(value))
    if any(mark in text for mark in _ADDRESSES):
        raise ValueError("media that are named by an address")
    return text.encode("utf-8", "surrogatepass")


def _without_cache_control(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_cache_control(each) for name, each in value.items() if name != _CACHE_CONTROL}
    if isinstance(value, list | tuple):
        return [_without_cache_control(each) for each in value]
    return value


class Conversations:
    """The input tokens that were reported for the requests of one guarded client; threads share it."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[bytes, int] = OrderedDict()

    def learn(self, chain: Chain, tokens: int) -> None:
        """Keep what was reported for a request."""
        key = chain.hashes[-1]
        with shared:
            self._tokens[key] = max(tokens, self._tokens.pop(key, 0))
            if len(self._tokens) > MOST_KEPT:
                self._tokens.popitem(last=False)

    def bound(self, chain: Chain, model: str) -> int | None:
        """Return a bound of the input tokens of a request to a model; None if no beginning of it is known."""
        for count in range(len(chain.hashes), 0, -1):
            key = chain.hashes[count - 1]
            with shared:
                tokens = self._tokens.get(key)
                if tokens is not None:
                    self._tokens.move_to_end(key)
            if tokens is not None:
                rest = list(chain.messages[count:])
                return tokens + (bound_of(rest).tokens(model) if rest else 0)
        return None
