"""An upper bound of the tokens of a request, from its bytes: no tokenizer in use makes more tokens than bytes.

Inline media are left out of the bytes; `cycles/_usage/media.py` says how many tokens they may be.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from attrs import define, field

from cycles._errors import InvalidRequestError
from cycles._usage.media import LARGEST_WINDOW, Medium, kind_of, medium_of, most_of, typical_of

UNSEEN_TOKENS: Final = 8_192
"""Tokens of context that the request names and does not contain, such as an earlier response."""

_UNSEEN: Final = ("previous_response_id", "conversation", "cachedContent", "cached_content")
_REFERENCES: Final = ("file_id", "file_url", "fileData", "file_uri", "fileUri", "s3Location")
_INLINE: Final = ("inlineData", "inline_data", "input_audio")
NO_INPUT: Final = frozenset(
    (
        *("temperature", "top_p", "top_k", "topP", "topK", "seed", "stop", "stop_sequences", "stopSequences"),
        *("frequency_penalty", "presence_penalty", "frequencyPenalty", "presencePenalty"),
        *("logit_bias", "logprobs", "top_logprobs", "responseLogprobs"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample"),
        *("maxOutputTokens", "maxTokens"),
        *("metadata", "user", "stream", "stream_options"),
    )
)
"""Sampling, limits, metadata, user and stream options: they do not change what counts as input."""


@define
class Bound:
    """What a request's content may amount to.

    Attributes:
        text_bytes: UTF-8 bytes of all text and structure.
        media: The media, inline or referenced.
        text_bytes_of_files: Bytes of inline files of text.
        unseen: Number of contexts that are named and not contained.
        cache: How long the provider keeps what the request writes to its cache, if it has
            `cache_control` or `cachePoint`.
        content: The content without inline media, of strings, numbers, lists and dicts only.
    """

    text_bytes: int = 0
    media: list[Medium] = field(factory=list)
    text_bytes_of_files: int = 0
    unseen: int = 0
    cache: Literal["5m", "1h"] | None = None
    content: Any = None

    def tokens(self, model: str, text_tokens: int | None = None) -> int:
        """Return the bound; `text_tokens` replaces the bytes of text, if they were counted."""
        text = self.text_bytes if text_tokens is None else text_tokens
        media = most_of(self.media, model) if self.media else 0
        if media is None:
            return max(text, LARGEST_WINDOW)
        return text + media + self.text_bytes_of_files + UNSEEN_TOKENS * self.unseen

    def may_fill_window(self, model: str) -> bool:
        """Whether it has a medium that only the context window of the model bounds."""
        return bool(self.media) and most_of(self.media, model) is None

    def typical(self, model: str) -> int:
        """Return about as many tokens as there are beside the text."""
        return typical_of(self.media, model) + self.text_bytes_of_files + UNSEEN_TOKENS * self.unseen


def token_bound(content: Any, model: str = "") -> int:
    """Return an upper bound of the tokens of a prompt, messages, or a whole request body; see `docs/prices.md`.

    Args:
        content: The prompt.
        model: Its name, which bounds the tokens of media; without it a request with media may fill a whole window.
    """
    return bound_of(content).tokens(model)


def bound_of(content: Any) -> Bound:
    """Return the bound of a request's content: a string, messages, or a whole request body."""
    bound = Bound()
    if content is None:
        return bound
    if isinstance(content, Iterator):  # reading it would leave nothing to send
        raise InvalidRequestError(
            f"the content is a {type(content).__name__}, which can be read only once; pass a list"
        )
    if isinstance(content, str):
        bound.content = content
        bound.text_bytes = len(content.encode("utf-8", "surrogatepass"))
        return bound
    bound.content = _strip(content, bound)
    encoded = json.dumps(bound.content, ensure_ascii=False, separators=(",", ":"))
    bound.text_bytes = len(encoded.encode("utf-8", "surrogatepass"))
    if isinstance(content, Mapping):
        bound.unseen = sum(1 for name in _UNSEEN if content.get(name))
        prompt = content.get("prompt")
        if isinstance(prompt, Mapping) and prompt.get("id"):
            bound.unseen += 1
    return bound


def _strip(value: Any, bound: Bound) -> Any:
    """Return the value without inline media, and note in `bound` what it contained."""
    if isinstance(value, str):
        return _media(bound, value[5:64], value) if value.startswith("data:") else value
    if isinstance(value, bytes | bytearray | memoryview):
        return _media(bound, "", value)
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return _strip_mapping(value, bound)
    if isinstance(value, Sequence):
        return [_strip(item, bound) for item in value]
    return value if isinstance(value, int | float | None) else str(value)


def _strip_mapping(value: Mapping[Any, Any], bound: Bound) -> dict[str, Any]:
    _note_cache(value.get("cache_control") or value.get("cachePoint"), bound)
    kind = value.get("type")
    mime = str(value.get("media_type") or value.get("mimeType") or value.get("mime_type") or kind or "")
    stripped: dict[str, Any] = {}
    sampling = value.get("videoMetadata") or value.get("video_metadata")
    if isinstance(sampling, Mapping) and sampling.get("fps"):  # more pictures of each second
        bound.media.append(Medium("video"))
    for key, member in value.items():
        name = str(key)
        if _is_inline(name, member, kind, mime):
            _media(bound, "audio" if name == "input_audio" else _mime_of(member) or mime or name, member)
            stripped[name] = ""
        elif (name in _REFERENCES and member) or _is_link(name, member, kind):
            stripped[name] = str(member)
            bound.media.append(Medium(kind_of(_mime_of(member) or f"{mime} {name}")))
        else:
            stripped[name] = _strip(member, bound)
    return stripped


def _is_inline(name: str, member: Any, kind: Any, mime: str) -> bool:
    if name in _INLINE:
        # A string is Mistral's.
        return isinstance(member, Mapping) or (name == "input_audio" and isinstance(member, str) and member != "")
    if name == "image_url":
        return isinstance(member, Mapping) and isinstance(member.get("url"), str)
    if name == "data":
        return kind == "base64" or ("/" in mime and kind != "text" and isinstance(member, str | bytes))
    if name == "result":
        return kind == "image_generation_call" and isinstance(member, str)
    return name == "file_data" and isinstance(member, str)


def _is_link(name: str, member: Any, kind: Any) -> bool:
    """Whether this is an address of media: OpenAI's image addresses, and sources of type url."""
    if not isinstance(member, str) or member.startswith("data:"):
        return False
    return name == "image_url" or (name == "url" and kind == "url")


def _mime_of(member: Any) -> str:
    if not isinstance(member, Mapping):
        return ""
    return str(member.get("mimeType") or member.get("mime_type") or "")


def _media(bound: Bound, hint: str, data: Any) -> str:
    """Note an inline medium: bytes, base64, a data URL, or a mapping that has one of them or an address."""
    if isinstance(data, Mapping):
        data = next((data[name] for name in ("data", "url", "bytes") if data.get(name)), b"")
    if not isinstance(data, str):
        bound.media.append(medium_of(bytes(data), hint))
        return ""
    head, comma, encoded = data.partition(",") if data.startswith("data:") else (hint, ",", data)
    if "://" in data[:16] or not comma:
        bound.media.append(Medium(kind_of(hint)))
        return ""
    if data.startswith("data:"):
        hint = head
    text = "text/" in hint  # its tokens are at most its bytes
    decoded = b"" if kind_of(hint) == "image" else decoded_base64(encoded)
    if text:
        bound.text_bytes_of_files += len(decoded)
    else:
        bound.media.append(medium_of(decoded, hint))
    return ""


def decoded_base64(encoded: str | bytes) -> bytes:
    """Return what is encoded; nothing if it is not base64."""
    try:
        return base64.b64decode(encoded)
    except ValueError:
        return b""


def _note_cache(control: Any, bound: Bound) -> None:
    if isinstance(control, Mapping):
        bound.cache = "1h" if control.get("ttl") == "1h" or bound.cache == "1h" else "5m"
