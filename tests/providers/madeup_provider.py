"""A provider that does not exist, as the recipe of CONTRIBUTING.md adds one: its file."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from cycles._core.values.usage import Usage
from cycles.providers._provider import Endpoint, Hook, StreamRules

name = "madeup"
clients = ("tests.providers.test_made_up_provider.MadeUp",)
hook: Hook = "stainless"
metered: Mapping[str, Endpoint] = {"/think": Endpoint("think", "text", "llm.completion", ("longest",))}
free = ("/ponder",)
prices = "madeup"
price_by = "response"
is_copied = False
vertex: Mapping[str, str] = {}


def path(path: str) -> str:
    return path.removeprefix("/v9")


def read(value: Any, usage: Usage) -> None:
    reported = value.get("units") if isinstance(value, Mapping) else None
    if reported is not None:
        counts = {"tokens_input": reported["read"], "tokens_output": reported["written"]}
        usage.see_response(value.get("id"), counts, model=value.get("model"))


def reported_cost(value: Any) -> Fraction | None:
    return None


def stream(body: Mapping[str, Any]) -> StreamRules:
    return StreamRules()


def error(status: int, message: str) -> Mapping[str, Any]:
    return {"oops": message}
