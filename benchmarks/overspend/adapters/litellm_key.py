"""LiteLLM's proxy: the program has its address and a virtual key; each sub-agent has a key of its own in a team."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import openai
from adapters import none


class Adapter(none.Adapter):
    """A denial has the type `budget_exceeded`."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.llm = self.llm.with_options(base_url=f"{job.proxy}/v1", api_key=job.key)
        self.claude = self.claude.with_options(base_url=job.proxy, api_key=job.key)

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, openai.APIStatusError) and "budget_exceeded" in str(error.body)

    @contextlib.asynccontextmanager
    async def agent(self, name: str, usd: str) -> AsyncIterator[Any]:
        """A sub-agent with a limit."""
        body = json.dumps({"team_id": self.job.team, "key_alias": name, "max_budget": float(usd)}).encode()
        headers = {"authorization": f"Bearer {self.job.master_key}", "content-type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.job.proxy}/key/generate", body, headers)
        ) as response:
            llm = self.llm.with_options(api_key=json.load(response)["key"])

        async def call(body: dict[str, Any]) -> Any:
            return await llm.chat.completions.create(**body)

        yield call
