"""Programs that know nothing of Cycles, as `cycles run` starts them: ``python -m tests.operators.agents NAME``.

Each reads its provider's address from the environment, as the SDKs do, and prints what it got.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

PROMPT: list[Any] = [{"role": "user", "content": "hi"}]


def openai_agent() -> None:
    """Make a call and a stream with `openai`, sync and async."""
    import openai

    llm = openai.OpenAI(api_key="k", max_retries=5)
    print(llm.chat.completions.create(model="gpt-4o", messages=PROMPT, max_tokens=100).choices[0].message.content)
    stream = llm.chat.completions.create(model="gpt-4o", messages=PROMPT, max_tokens=100, stream=True)
    print("".join(chunk.choices[0].delta.content or "" for chunk in stream))

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key="k") as other:
            done = await other.responses.create(model="gpt-4o", input="hi", max_output_tokens=100)
            print(done.output_text)
            async for _ in await other.responses.create(model="gpt-4o", input="hi", stream=True):
                pass

    asyncio.run(run())


def anthropic_agent() -> None:
    """Make a call and a stream with `anthropic`, sync and async."""
    import anthropic

    model = "claude-sonnet-4-5"
    llm = anthropic.Anthropic(api_key="k")
    print(llm.messages.create(model=model, messages=PROMPT, max_tokens=100).content[0])
    with llm.messages.stream(model=model, messages=PROMPT, max_tokens=100) as stream:
        print("".join(stream.text_stream))

    async def run() -> None:
        async with anthropic.AsyncAnthropic(api_key="k") as other:
            await other.messages.create(model=model, messages=PROMPT, max_tokens=100)
            async with other.messages.stream(model=model, messages=PROMPT, max_tokens=100) as events:
                async for _ in events:
                    pass

    asyncio.run(run())


def google_agent() -> None:
    """Make a call and a stream with `google-genai`, sync and async."""
    from google import genai

    model = "gemini-2.5-flash"
    llm = genai.Client(api_key="k")
    print(llm.models.generate_content(model=model, contents="hi").text)
    print("".join(chunk.text or "" for chunk in llm.models.generate_content_stream(model=model, contents="hi")))

    async def run() -> None:
        await llm.aio.models.generate_content(model=model, contents="hi")
        async for _ in await llm.aio.models.generate_content_stream(model=model, contents="hi"):
            pass

    asyncio.run(run())


def denied_openai_agent() -> None:
    """Make a call that is denied, and print the error."""
    import openai

    llm = openai.OpenAI(api_key="k", max_retries=5)
    try:
        llm.chat.completions.create(model="gpt-4o", messages=PROMPT, max_tokens=4_000)
    except openai.APIStatusError as error:
        print(type(error).__name__, error.status_code, error.code)


def denied_anthropic_agent() -> None:
    """Make a call that is denied, and print the error."""
    import anthropic

    llm = anthropic.Anthropic(api_key="k", max_retries=5)
    try:
        llm.messages.create(model="claude-sonnet-4-5", messages=PROMPT, max_tokens=4_000)
    except anthropic.APIStatusError as error:
        print(type(error).__name__, error.status_code, error.response.headers["x-cycles-reason"])


def denied_google_agent() -> None:
    """Make a call that is denied, and print the error."""
    from google import genai
    from google.genai import errors

    config: Any = {"max_output_tokens": 4_000}
    llm = genai.Client(api_key="k")
    try:
        llm.models.generate_content(model="gemini-2.5-flash", contents="hi", config=config)
    except errors.ClientError as error:
        print(type(error).__name__, error.code, error.status)


def hard_coded_agent() -> None:
    """Make calls and streams with three SDKs, sync and async, whose base URLs are in the code."""
    import anthropic
    import openai
    from google import genai

    chat: dict[str, Any] = {"model": "gpt-4o", "messages": PROMPT, "max_tokens": 100}
    message: dict[str, Any] = {"model": "claude-sonnet-4-5", "messages": PROMPT, "max_tokens": 100}
    prompt: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "hi"}
    gpt: dict[str, Any] = {"api_key": "k", "base_url": "https://api.openai.com/v1", "max_retries": 0}
    claude: dict[str, Any] = {"api_key": "k", "base_url": "https://api.anthropic.com", "max_retries": 0}
    options: Any = {"base_url": "https://generativelanguage.googleapis.com"}
    llm, claude_llm = openai.OpenAI(**gpt), anthropic.Anthropic(**claude)
    gemini = genai.Client(api_key="k", http_options=options)
    print(llm.chat.completions.create(**chat).choices[0].message.content)
    print("".join(chunk.choices[0].delta.content or "" for chunk in llm.chat.completions.create(**chat, stream=True)))
    print(claude_llm.messages.create(**message).content[0].text)
    with claude_llm.messages.stream(**message) as stream:
        print("".join(stream.text_stream))
    print(gemini.models.generate_content(**prompt).text)
    print("".join(chunk.text or "" for chunk in gemini.models.generate_content_stream(**prompt)))

    async def run() -> None:
        async with openai.AsyncOpenAI(**gpt) as other:
            await other.chat.completions.create(**chat)
            async for _ in await other.chat.completions.create(**chat, stream=True):
                pass
        async with anthropic.AsyncAnthropic(**claude) as other_claude:
            await other_claude.messages.create(**message)
        await gemini.aio.models.generate_content(**prompt)

    asyncio.run(run())


def guarded_agent() -> None:
    """Guard the client in the program too."""
    import openai

    import cycles

    llm = cycles.providers.guard(openai.OpenAI(api_key="k"))
    llm.chat.completions.create(model="gpt-4o", messages=PROMPT, max_tokens=100)


def reserving_agent() -> None:
    """Guard the same call by hand."""
    import cycles

    with cycles.Cycles() as client, client.reserve(cycles.usd("0.01"), action=("llm.completion", "x")) as guard:
        guard.commit(cycles.usd("0.005"))


def reserving_and_calling_agent() -> None:
    """Guard a call by hand, and a tool that is no model call."""
    import cycles

    with cycles.Cycles() as client, client.reserve(cycles.usd("0.01"), action=("tool.search", "x")) as guard:
        guard.commit(cycles.usd("0.005"))
    reserving_agent()
    guarded_agent()


def signals_agent() -> None:
    """Count the signals for a moment after the first."""
    counts = {signal.SIGINT: 0, signal.SIGTERM: 0}

    def count(number: int, _: object) -> None:
        counts[signal.Signals(number)] += 1

    for each in counts:
        signal.signal(each, count)
    print("ready", os.getpid(), flush=True)
    while not sum(counts.values()):
        time.sleep(0.05)  # a pause would last for ever if the signal came just before it
    time.sleep(0.3)
    print(f"INT {counts[signal.SIGINT]} TERM {counts[signal.SIGTERM]}", flush=True)
    sys.exit(5)


def streaming_agent() -> None:
    """Print the pieces of a stream as they arrive."""
    import openai

    llm = openai.OpenAI(api_key="k", max_retries=0)
    for chunk in llm.chat.completions.create(model="gpt-4o", messages=PROMPT, stream=True, max_tokens=500):
        print(chunk.choices[0].delta.content, flush=True)


def environment_agent() -> None:
    """Print the variables that matter."""
    for name in sorted(os.environ):
        if (
            name.endswith(("_URL", "_BASE", "_HOST", "_ENDPOINT", "_PROXY"))
            or name.startswith(("CYCLES_", "NODE_"))
            or name in ("no_proxy", "https_proxy")
        ):
            print(f"{name}={os.environ[name]}")


if __name__ == "__main__":
    globals()[f"{sys.argv[1]}_agent"]()
