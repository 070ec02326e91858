"""Decorators keep the signatures of what they decorate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import cycles

client = cycles.Cycles()


@client.guarded(estimate=lambda prompt: cycles.tokens(len(prompt)), action=("llm.completion", "m"))
def ask(prompt: str, n: int = 1) -> list[str]:
    return [prompt] * n


@cycles.guarded(
    cycles.tokens(5), action=cycles.Action("llm.completion", "m"), actual=lambda answer: cycles.tokens(answer)
)
async def ask_later(prompt: str, *, n: int = 1) -> int:
    return len(prompt) * n


@client.guarded(estimate=cycles.tokens(5), action=lambda prompt: ("llm.completion", prompt))
def stream(prompt: str) -> Iterator[str]:
    yield prompt


@client.guarded(estimate=cycles.tokens(5), action=("llm.completion", "m"))
async def stream_later(prompt: str) -> AsyncIterator[bytes]:
    yield prompt.encode()


class Agent:
    @client.guarded(estimate=cycles.tokens(5), action=("tool.call", "act"))
    def act(self, tool: str) -> bool:
        return bool(tool)

    @staticmethod
    @client.guarded(estimate=cycles.tokens(5), action=("tool.call", "act"))
    def plan(goal: str) -> tuple[str, ...]:
        return (goal,)

    @client.guarded(estimate=cycles.tokens(5), action=("tool.call", "act"))
    @staticmethod
    def outside(goal: str) -> int:
        return len(goal)

    @classmethod
    @client.guarded(estimate=cycles.tokens(5), action=("tool.call", "act"))
    def make(cls, name: str) -> Agent:
        return cls()


async def use() -> None:
    assert_type(ask("x", n=2), list[str])
    assert_type(await ask_later("x", n=2), int)
    assert_type(stream("x"), Iterator[str])
    async for chunk in stream_later("x"):
        assert_type(chunk, bytes)
    assert_type(Agent().act("x"), bool)
    assert_type(Agent.plan("x"), tuple[str, ...])
    assert_type(Agent.make("x"), Agent)
    assert_type(Agent.outside("x"), int)
    ask(5)  # type: ignore[arg-type]
    await ask_later("x", 2)  # type: ignore[call-arg]
    assert_type(cycles.current_guard(), cycles.Guard | cycles.AsyncGuard | None)
