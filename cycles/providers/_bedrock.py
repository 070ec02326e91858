"""Amazon Bedrock, as boto3 sends to it: operations, output limits by family of models, usage, streams. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from cycles._core.values.usage import Usage
from cycles._usage import readers
from cycles.providers._provider import Endpoint, Hook, StreamRules, no_cost

name: Final = "bedrock"
clients: Final = ("botocore.client.BedrockRuntime",)
hook: Final[Hook] = "botocore"
prices: Final = "aws"
price_by: Final[Literal["request"]] = "request"

_TEXT: Final = "llm.completion"
_THINKING: Final = tuple(
    f"additionalModelRequestFields.{member}.budget_tokens" for member in ("thinking", "reasoning_config")
)
_CONVERSE: Final = ("inferenceConfig.maxTokens",)

metered: Final[Mapping[str, Endpoint]] = {
    "/model/*/converse": Endpoint("converse", "text", _TEXT, _CONVERSE, _THINKING, True),
    "/model/*/converse-stream": Endpoint("converse_stream", "text", _TEXT, _CONVERSE, _THINKING, True),
}
free: Final = ("/model/*/count-tokens",)
_PATH: Final = re.compile(r"/model/.+/(?P<operation>converse|converse-stream|count-tokens)")

reported_cost = no_cost


def path(path: str) -> str:
    """Return a path without the model."""
    found = _PATH.fullmatch(path)
    return path if found is None else f"/model/*/{found['operation']}"


def read(value: Any, usage: Usage) -> None:
    """Read a response or an event."""
    readers.bedrock(value, usage)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: an event with the usage follows the stop reason."""
    return StreamRules(is_usage_last=True)


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    return {"message": message}
