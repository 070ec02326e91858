"""What a guarded provider client adds to a call and to a streamed event, beside the SDK without a guard.

The fake provider runs in a separate process, so that its CPU is not counted: `python -m benchmarks.providers WORDS`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import cycles
from benchmarks import ours
from benchmarks.measure import Case, Series, interleave
from benchmarks.process import ROOT
from cycles.providers import guard
from cycles.testing import FakeProvider

WORDS: Final = 1_000
"""Words of the streamed text: each is an event."""
_PRICES: Final = {"gpt-4o": cycles.Price("2.50", "10")}


@contextlib.contextmanager
def _fake(words: int) -> Iterator[str]:
    """Start a fake provider in a separate process, and yield its base URL."""
    command = [sys.executable, "-m", "benchmarks.providers", str(words)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _completes(llm: Any) -> Callable[[], object]:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return lambda: llm.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=64)


def _streams(llm: Any) -> Callable[[], object]:
    messages = [{"role": "user", "content": "Tell me a story"}]

    def call() -> None:
        options = {"include_usage": True}
        for _ in llm.chat.completions.create(model="gpt-4o", messages=messages, stream=True, stream_options=options):
            pass

    return call


def measure(port: int, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return CPU microseconds: added per call beside the guard's own, and added per streamed event.

    Args:
        port: Of the stub of a Cycles server.
        calls: Per round; streams are a tenth of them.
        rounds: Rounds of each case.
    """
    import openai

    book = cycles.PriceBook(_PRICES)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        short, long = enter(_fake(5)), enter(_fake(WORDS))
        client = enter(ours.client(port, None))
        plain = {url: enter(openai.OpenAI(api_key="k", base_url=url)) for url in (short, long)}
        guarded = {url: guard(llm, client=client, prices=book) for url, llm in plain.items()}
        single = [
            Case("sdk", _completes(plain[short])),
            Case("sdk, guarded", _completes(guarded[short])),
            Case("guard alone", enter(ours.guard(port, None))),
        ]
        found = interleave(single, workers=1, calls=calls, rounds=rounds)
        streamed = [Case("sdk", _streams(plain[long])), Case("sdk, guarded", _streams(guarded[long]))]
        streams = interleave(streamed, workers=1, calls=max(2, calls // 10), rounds=rounds)
    added = _added(found)
    return {
        "one call": {
            "sdk_cpu_us": found.cpu_us("sdk"),
            "guarded_cpu_us": found.cpu_us("sdk, guarded"),
            "guard_alone_cpu_us": found.cpu_us("guard alone"),
            "added_us": added - found.cpu_us("guard alone"),
        },
        "one streamed event": {
            "sdk_cpu_us": streams.cpu_us("sdk") / WORDS,
            "guarded_cpu_us": streams.cpu_us("sdk, guarded") / WORDS,
            "guard_alone_cpu_us": 0.0,
            "added_us": (_added(streams) - added) / WORDS,
        },
    }


def _added(series: Series) -> float:
    return series.cpu_us("sdk, guarded") - series.cpu_us("sdk")


def can_be_measured() -> bool:
    """Return whether the SDK is installed."""
    return importlib.util.find_spec("openai") is not None


def main(words: int) -> None:
    """Serve responses of this many words until the parent process ends."""
    with FakeProvider() as provider:
        usage = {"tokens_input": 20, "tokens_output": words}
        provider.reply(text=" ".join(["word"] * words), usage=usage, times=1_000_000)
        print(provider.openai_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
