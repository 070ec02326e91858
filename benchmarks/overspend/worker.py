"""Makes the calls of one case with one tool, in the environment of that tool, and prints what its program saw as JSON.

The argument is a JSON document, see `Job`. This file and the adapters run with other packages than the project's, so
they need only the standard library and what the tool requires.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


class Job(SimpleNamespace):
    """What a process does: the members of a case, the tool, addresses, the folder of its files, the number of it."""

    def body(self, **more: Any) -> dict[str, Any]:
        """Return the keywords of a chat completion. The text has as many tokens as OpenAI's format leaves for it."""
        text = "word" + " word" * (self.tokens_in - 8)
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": text}], **more}
        return body if self.limit is None else {**body, "max_tokens": self.limit}


class Program:
    """The program of a user: it counts what it got, and how its calls ended."""

    def __init__(self, adapter: Any, job: Job) -> None:
        self.adapter, self.job = adapter, job
        self.seen: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    async def one(self, call: Any) -> str:
        """Make a call and return how it ended: got, denied or failed."""
        try:
            await call
            ended = "got"
        except Exception as error:
            ended = "denied" if self.adapter.is_denial(error) else "failed"
            self.errors[f"{type(error).__module__}.{type(error).__name__}: {error}"[:160]] += 1
        self.seen[ended] += 1
        return ended

    async def parallel(self) -> None:
        """All calls at the same time."""
        await asyncio.gather(*(self.one(self.adapter.call(self.job.body())) for _ in range(self.job.calls)))

    async def streams(self) -> None:
        """The same as streams that are read to their end."""
        await asyncio.gather(*(self.one(self.adapter.stream(self.job.body(), None)) for _ in range(self.job.calls)))

    async def left(self) -> None:
        """The same as streams that are left after three events."""
        await asyncio.gather(*(self.one(self.adapter.stream(self.job.body(), 3)) for _ in range(self.job.calls)))

    async def turn(self) -> None:
        """In turn, until an exception: it ends a program that does not catch it."""
        for _ in range(self.job.calls):
            if await self.one(self.adapter.call(self.job.body())) != "got":
                return

    async def caught(self) -> None:
        """In turn; an exception changes nothing."""
        for _ in range(self.job.calls):
            await self.one(self.adapter.call(self.job.body()))

    async def fallback(self) -> None:
        """In turn; if the cheap model fails, the dear one is called, by the tool if it does that."""
        for _ in range(self.job.calls):
            if hasattr(self.adapter, "fallback"):
                if await self.one(self.adapter.fallback(self.job.body(), "gpt-4o-mini", "gpt-4o")) != "got":
                    return
                continue
            ended = await self.one(self.adapter.call(self.job.body(model="gpt-4o-mini")))
            if ended == "failed":
                ended = await self.one(self.adapter.call(self.job.body()))
            if ended != "got":
                return

    async def tokens(self) -> None:
        """Five calls of each provider."""
        for _ in range(self.job.calls):
            await self.one(self.adapter.call(self.job.body(model="gpt-5")))
        if self.adapter.message is not None:
            parts = [
                {"type": "text", "text": "word" + " word" * 1_499, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
            ]
            content = [*parts, {"type": "text", "text": "word" + " word" * 2_900}]
            body = {
                "model": "claude-sonnet-4-5",
                "max_tokens": 5_000,
                "messages": [{"role": "user", "content": content}],
            }
            for _ in range(self.job.calls):
                await self.one(self.adapter.message(body))
        else:
            self.seen["not offered"] += self.job.calls

    async def nested(self) -> None:
        """Four sub-agents at the same time; each calls in turn until it is denied."""

        async def agent(name: str) -> None:
            async with self.adapter.agent(name, "0.40") as call:
                for _ in range(self.job.calls):
                    if await self.one(call(self.job.body())) != "got":
                        return

        await asyncio.gather(*(agent(f"agent-{number}") for number in range(4)))


async def main(job: Job) -> None:
    """Run the pattern of a job and print the result."""
    module = importlib.import_module(f"adapters.{job.adapter}")
    adapter = module.Adapter(job)
    program = Program(adapter, job)
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(adapter, "__aenter__"):
            await stack.enter_async_context(adapter)
        await getattr(program, job.pattern)()
        if hasattr(adapter, "settle"):
            await adapter.settle()
        counted = await adapter.counted() if hasattr(adapter, "counted") else None
    print(json.dumps({"seen": program.seen, "errors": program.errors.most_common(5), "counted": counted}))


if __name__ == "__main__":
    asyncio.run(main(Job(**json.loads(sys.argv[1]))))
