"""Files and journal directories that hang until a test lets them. A deadline ends when the call hangs, not by time."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from cycles._journal.files import bounded, file_calls, locked_file, record_files


class HangingCalls:
    """The calls of files that hang, by thread. They return when `may_end` is set."""

    def __init__(self) -> None:
        self.hanging: set[int] = set()  # the threads in them
        self.changed = threading.Condition()
        self.may_end = threading.Event()

    def hang(self) -> None:
        with self.changed:
            self.hanging.add(threading.get_ident())
            self.changed.notify_all()
        self.may_end.wait()
        self.hanging.discard(threading.get_ident())

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()


class HangingDirectory(HangingCalls):
    """The operating system, whose `replace` hangs while `hangs` is true."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.ended = threading.Event()  # a call that hung has returned

    def replace(self, source: str, target: str) -> None:
        hung = self.hangs
        if hung:
            self.hang()
        os.replace(source, target)  # noqa: PTH105
        if hung:
            self.ended.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def use(fake: HangingCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `fake` the operating system of the journal. A call is late when it hangs, however slow the machine is."""
    threads = weakref.WeakKeyDictionary[Any, int]()
    run = bounded._run

    class Result(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if timeout is not None:
                with fake.changed:
                    fake.changed.wait_for(lambda: self.done() or threads.get(self) in fake.hanging)
            return super().result(0)

    def noted(result: Any, *arguments: Any) -> None:
        threads[result] = threading.get_ident()
        result.add_done_callback(lambda _: fake.notify())
        run(result, *arguments)

    monkeypatch.setattr(bounded, "Future", Result)
    monkeypatch.setattr(bounded, "_run", noted)
    for module in (file_calls, record_files, locked_file):
        monkeypatch.setattr(module, "os", fake)


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDirectory]:
    """The directory of every journal, which works at first. Each call of it has a deadline."""
    fake = HangingDirectory()
    monkeypatch.setattr(bounded, "RECENT_S", 0.0)
    use(fake, monkeypatch)
    yield fake
    fake.may_end.set()
