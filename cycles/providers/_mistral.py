"""Mistral: OpenAI's shapes of chats, code completions and embeddings, with usage in the last chunk. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from cycles._usage import readers
from cycles.providers import _openai
from cycles.providers._provider import Endpoint, Hook, StreamRules, from_version, no_cost

name: Final = "mistral"
clients: Final = ("mistralai.Mistral",)
hook: Final[Hook] = "httpx"
prices: Final = "mistral"
price_by: Final[Literal["response"]] = "response"
is_copied: Final = False
vertex: Final[Mapping[str, str]] = {}

metered: Final[Mapping[str, Endpoint]] = {
    "/v1/chat/completions": Endpoint("chat.completions", "text", "llm.completion", ("max_tokens",)),
    "/v1/fim/completions": Endpoint("fim.completions", "text", "llm.completion", ("max_tokens",)),
    "/v1/embeddings": Endpoint("embeddings", "embedding", "llm.embedding"),
}
free: Final = ("/v1/files", "**/cancel")

_RULES: Final = _openai.rules()

path = from_version
read = readers.openai
reported_cost = no_cost


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: the last chunk of each stream reports the usage, beside the finish reason."""
    return _RULES


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    kind = "internal_server_error" if status >= 500 else "invalid_request_error"
    return {"object": "error", "message": message, "type": kind, "param": None, "code": None}
