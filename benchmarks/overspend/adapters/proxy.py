"""The guard proxy of `cycles proxy`: the program is unchanged and has its address."""

from __future__ import annotations

from typing import Any

import openai
from adapters import none


class Adapter(none.Adapter):
    """A denial is the status 402."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.llm = openai.AsyncOpenAI(
            base_url=f"{job.proxy}/openai/v1", api_key="k", max_retries=job.retries, timeout=280
        )
        self.claude.base_url = f"{job.proxy}/anthropic"

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, openai.APIStatusError) and error.status_code in (402, 400)
