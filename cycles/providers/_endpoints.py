"""Which requests are metered, which are free, and which cost money that cannot be metered: the tables, as data.

Only POST requests can cost money. A POST that is in no table counts as unmetered, so that a new paid endpoint is
rejected and not passed through. `docs/providers.md` prints these tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen

from cycles._usage.estimating import Kind

Provider: TypeAlias = Literal["openai", "anthropic", "google"]


@frozen
class Endpoint:
    """One metered endpoint.

    Attributes:
        name: How users see it, for example ``"chat.completions"``.
        kind: What it makes.
        action: The action kind of its reservations.
        limits: Members of the body that limit the output; the first is the one that is added. A dot goes deeper.
    """

    name: str
    kind: Kind
    action: str
    limits: tuple[str, ...] = ()


_TEXT: Final = "llm.completion"
_CHAT: Final = Endpoint("chat.completions", "text", _TEXT, ("max_completion_tokens", "max_tokens"))
_RESPONSES: Final = Endpoint("responses", "text", _TEXT, ("max_output_tokens",))
_MESSAGES: Final = Endpoint("messages", "text", _TEXT, ("max_tokens",))
_GEMINI: Final = Endpoint("models.generate_content", "text", _TEXT, ("generationConfig.maxOutputTokens",))
_GEMINI_EMBEDDING: Final = Endpoint("models.embed_content", "embedding", "llm.embedding")

METERED: Final[Mapping[Provider, Mapping[str, Endpoint]]] = {
    "openai": {
        "/chat/completions": _CHAT,
        "/completions": Endpoint("completions", "text", _TEXT, ("max_tokens",)),
        "/responses": _RESPONSES,
        "/responses/compact": Endpoint("responses.compact", "text", _TEXT, ("max_output_tokens",)),
        "/embeddings": Endpoint("embeddings", "embedding", "llm.embedding"),
        "/images/generations": Endpoint("images.generate", "image", "llm.image"),
        "/images/edits": Endpoint("images.edit", "image", "llm.image"),
        "/images/variations": Endpoint("images.create_variation", "image", "llm.image"),
        "/audio/transcriptions": Endpoint("audio.transcriptions", "transcription", "llm.audio"),
        "/audio/translations": Endpoint("audio.translations", "transcription", "llm.audio"),
        "/audio/speech": Endpoint("audio.speech", "speech", "llm.audio"),
    },
    "anthropic": {
        "/v1/messages": _MESSAGES,
        "/v1/complete": Endpoint("completions", "text", _TEXT, ("max_tokens_to_sample",)),
    },
    "google": {
        ":generateContent": _GEMINI,
        ":streamGenerateContent": _GEMINI,
        ":embedContent": _GEMINI_EMBEDDING,
        ":batchEmbedContents": _GEMINI_EMBEDDING,
    },
}
"""Exact paths; for Google the method after the colon."""

FREE: Final[Mapping[Provider, tuple[str, ...]]] = {
    "openai": (
        "/moderations",
        "/files",
        "/uploads/**",
        "/responses/input_tokens",
        "**/cancel",
        "/conversations/**",
        "/chat/completions/*",
        "/threads",
        "/threads/thread_*",
        "/threads/*/messages",
        "/threads/*/messages/*",
        "/assistants/**",
        "/skills/**",
        "/organization/**",
        "/projects/**",
        "/webhook_endpoints/**",
        "/vector_stores/*/**",
    ),
    "anthropic": (
        "/v1/messages/count_tokens",
        "**/cancel",
        "/v1/files/**",
        "/v1/skills/**",
        "/v1/organizations/**",
        "/v1/user_profiles/**",
    ),
    "google": (
        "**:countTokens",
        "**:computeTokens",
        "**:cancel",
        "files/**",
        "files:register",
        "upload/*/files",
        "**operations/**",
        "**:fetchPredictOperation",
    ),
}
"""POSTs that cost nothing. ``*`` is one segment, ``**`` any number of them."""


def _pattern(path: str) -> re.Pattern[str]:
    wild = {"/**": "(?:/.*)?", "**": ".*", "*": "[^/]+"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in re.split(r"(/\*\*|\*\*|\*)", path)))


_FREE: Final = {provider: tuple(_pattern(path) for path in paths) for provider, paths in FREE.items()}


def normalized(path: str) -> str:
    """Return a request's path without host, query and closing slash."""
    # `urlsplit` takes the word before a colon for a scheme: Gemini has paths like files:register.
    name = urlsplit(path).path if "://" in path else re.split("[?#]", path, maxsplit=1)[0]
    return name.rstrip("/") or "/"


def find(provider: Provider, method: str, path: str) -> Endpoint | Literal["free", "unmetered"]:
    """Return the metered endpoint of a request, or what else it is.

    Args:
        provider: Whose SDK sends it.
        method: HTTP method, in any case.
        path: As the SDK has it, before it adds deployments or regions.
    """
    if method.upper() != "POST":
        return "free"
    name = normalized(path)
    endpoint = METERED[provider].get(f":{name.rpartition(':')[2]}" if provider == "google" and ":" in name else name)
    if endpoint is not None:
        return endpoint
    return "free" if any(pattern.fullmatch(name) for pattern in _FREE[provider]) else "unmetered"
