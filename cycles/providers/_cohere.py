"""Cohere: chats and embeddings of version 2 of its API, with billed units for usage. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from cycles._usage import readers
from cycles.providers._provider import (
    WITH_ERROR,
    WITH_FINISH,
    WITH_USAGE,
    Endpoint,
    Hook,
    Reported,
    StreamRules,
    from_version,
    no_cost,
)

name: Final = "cohere"
clients: Final = ("cohere.Client", "cohere.AsyncClient")
hook: Final[Hook] = "httpx"
prices: Final = "cohere"
price_by: Final[Literal["request"]] = "request"
is_copied: Final = False
vertex: Final[Mapping[str, str]] = {}

metered: Final[Mapping[str, Endpoint]] = {
    "/v2/chat": Endpoint("chat", "text", "llm.completion", ("max_tokens",), ("thinking.token_budget",)),
    "/v2/embed": Endpoint("embed", "embedding", "llm.embedding"),
}
free: Final = ("/v1/tokenize", "/v1/detokenize", "/v1/check-api-key", "**/cancel")

path = from_version
read = readers.cohere
reported_cost = no_cost


def _delta(value: Mapping[str, Any]) -> Mapping[str, Any]:
    delta = value.get("delta")
    return delta if isinstance(delta, Mapping) else {}


def _reported(value: Mapping[str, Any], finished: bool) -> Reported:
    if not _delta(value).get("usage"):
        return None
    return "total" if value.get("type") == "message-end" else "part"


_RULES: Final = StreamRules(
    with_usage=WITH_USAGE,
    with_finish=WITH_FINISH,
    with_error=WITH_ERROR,
    usage=_reported,
    failed=lambda value: bool(value.get("error") or _delta(value).get("error")),
)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: the last event of each stream reports the usage, beside the finish reason."""
    return _RULES


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    return {"message": message}
