"""The files and functions of `cycles/` that one warm call enters, in all threads, with the server in another process.

``python -m tests.project.warm_calls`` lists them, so that a reader sees which files a change has to leave out.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import cycles
from tests.embedded.process import embedded_process

PACKAGE: Final = str(Path(cycles.__file__).parent) + "/"
ESTIMATE, ACTUAL = cycles.tokens(2), cycles.tokens(1)
ACTION: Final = ("llm.completion", "small-model")
KEY: Final = "cyc_live_warm_calls"
WARM: Final = 20  # calls before the measured one: connections are open, nothing is imported or compiled any more

ROUNDS: Final = (
    5  # the one with the fewest calls counts: a response may arrive in two pieces, which are read separately
)


class Profile:
    """Counts calls of functions in `cycles/` while it records.

    It must exist before the client, because a thread gets its profile function when it starts. Only the process of
    ``python -m tests.project.warm_calls`` makes one: a profile function for all threads would slow other tests.
    """

    def __init__(self) -> None:
        self._calls: Counter[CodeType] = Counter()
        self._is_recording = False
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and self._is_recording and frame.f_code.co_filename.startswith(PACKAGE):
            self._calls[frame.f_code] += 1

    @contextmanager
    def recording(self) -> Iterator[Counter[str]]:
        """Yield the calls of each function as ``file:function``. It is complete after the block."""
        self._calls.clear()
        named: Counter[str] = Counter()
        self._is_recording = True
        try:
            yield named
        finally:
            self._is_recording = False
            for code, times in self._calls.items():
                named[f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}"] += times


def files_of(calls: Counter[str]) -> set[str]:
    """Return the files of these calls."""
    return {name.partition(":")[0] for name in calls}


def measure() -> dict[str, Counter[str]]:
    """Return the calls of a reserve, a commit, a pooled commit and an async commit, each after WARM of its kind."""
    profile = Profile()
    budget = ("--budget", "tenant:acme=10000000TOKENS", "--api-key", f"{KEY}=acme")
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_process(*budget) as (_, url),
        cycles.Cycles(base_url=url, api_key=KEY, tenant="acme", journal_dir=Path(folder)) as client,
    ):
        # The fewest of three: on a slow machine a record may be saved in another thread, and a timer may run.
        reserved, committed = min((_direct(client, profile) for _ in range(3)), key=lambda each: each[1].total())
        pooled = _pooled(client, profile)
        asynchronous = asyncio.run(_async(client, profile))
    return {"reserve": reserved, "commit": committed, "pooled commit": pooled, "async commit": asynchronous}


def _direct(client: cycles.Cycles, profile: Profile) -> tuple[Counter[str], Counter[str]]:
    for _ in range(WARM):
        client.reserve(ESTIMATE, action=ACTION).acquire().commit(ACTUAL)
    rounds = []
    for _ in range(ROUNDS):
        with profile.recording() as reserved:
            guard = client.reserve(ESTIMATE, action=ACTION).acquire()
        with profile.recording() as committed:
            guard.commit(ACTUAL)
        rounds.append((reserved, committed))
    return min((each[0] for each in rounds), key=Counter.total), min((each[1] for each in rounds), key=Counter.total)


def _pooled(client: cycles.Cycles, profile: Profile) -> Counter[str]:
    with client.pool(cycles.tokens(400_000), action=ACTION) as pool:
        for _ in range(WARM):
            pool.reserve(ESTIMATE).acquire().commit(ACTUAL)
        guard = pool.reserve(ESTIMATE).acquire()
        with profile.recording() as committed:
            guard.commit(ACTUAL)
    return committed


async def _async(client: cycles.Cycles, profile: Profile) -> Counter[str]:
    for _ in range(WARM):
        guard = await client.reserve(ESTIMATE, action=ACTION)
        await guard.commit(ACTUAL)
    guard = await client.reserve(ESTIMATE, action=ACTION)
    with profile.recording() as committed:
        await guard.commit(ACTUAL)
    return committed


def main() -> None:
    """Print one line for each call: its name, files, function calls. With ``--list`` each file and function, too."""
    for name, calls in measure().items():
        print(f"{name}\t{len(files_of(calls))}\t{calls.total()}")
        if "--list" in sys.argv:
            for function, times in sorted(calls.items()):
                print(f"    {times:4} {function}")


if __name__ == "__main__":
    main()
