"""A journal directory that hangs: it puts no record into place until a test lets it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cycles._journal.files import bounded, file_calls, locked_file, record_files


class HangingDirectory:
    """The operating system, whose `replace` waits for `may_end` while `hangs` is true."""

    def __init__(self) -> None:
        self.hangs = False
        self.may_end = threading.Event()
        self.ended = threading.Event()  # a call that hung has returned

    def replace(self, source: str, target: str) -> None:
        hung = self.hangs
        if hung:
            self.may_end.wait()
        os.replace(source, target)  # noqa: PTH105
        if hung:
            self.ended.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDirectory]:
    """The directory of every journal, which works at first. Calls have a short deadline."""
    fake = HangingDirectory()
    monkeypatch.setattr(bounded, "DEADLINE_S", 0.05)
    monkeypatch.setattr(bounded, "RECENT_S", 0.0)
    for module in (file_calls, record_files, locked_file):
        monkeypatch.setattr(module, "os", fake)
    yield fake
    fake.may_end.set()
