"""A signal handler raises while the parts of a client are made: after a close, nothing that was started stays."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import pytest

import cycles
from tests.support.points import run_at
from tests.support.short import IS_SHORT
from tests.support.waiting import until

EACH = 3 if IS_SHORT else 1
LONGEST = 2_000  # points of one part; a test that reaches it has failed


def threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("cycles-scheduler")}


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("part", ["/cycles/_client/", "/cycles/_drivers/"])
def test_a_close_after_an_interrupted_first_use_leaves_no_thread(
    server: cycles.EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr("cycles._drivers.work.scheduler.IDLE_S", 3_600.0)
    client = server.client(tenant="acme", journal_dir=tmp_path, flush_timeout=0.0)
    client.close()
    before, started = threads(), 0
    for number in range(0, LONGEST, EACH):
        # As in a forked child, which makes the parts again at its first use.
        monkeypatch.setattr(os, "getpid", partial(int, number + 2))
        try:
            more = run_at(part, number, interrupt, partial(client.reserve, cycles.tokens(1), action=("test", "work")))
        except KeyboardInterrupt:
            more = True
        started += bool(threads() - before)
        client.close()
        until(lambda: threads() <= before, what=lambda: f"{threads() - before}")
        if not more:
            break
    assert 20 < number < LONGEST - EACH
    assert started


def test_a_close_ends_what_a_signal_handler_started_at_the_first_use(
    server: cycles.EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._drivers.work.scheduler.IDLE_S", 3_600.0)
    client = server.client(tenant="acme", journal_dir=tmp_path, flush_timeout=0.0)
    client.close()
    reserve = partial(client.reserve, cycles.tokens(1), action=("test", "work"))
    before = threads()
    for number in range(LONGEST):
        monkeypatch.setattr(os, "getpid", partial(int, number + 2))
        more = run_at("/cycles/_client/client", number, reserve, reserve)
        client.close()
        until(lambda: threads() <= before, what=lambda: f"{threads() - before}")
        if not more:
            break
    assert 10 < number < LONGEST - 1


def test_a_signal_handler_at_the_first_use_has_the_same_default_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("BASE_URL", "http://localhost"), ("API_KEY", "k"), ("TENANT", "acme")):
        monkeypatch.setenv(f"CYCLES_{name}", value)
    found: list[cycles.Cycles] = []
    number, more = 0, True
    while more:
        cycles.set_default_client(None)
        more = run_at(
            "/cycles/_client/default",
            number,
            lambda: found.append(cycles.get_default_client()),
            lambda: found.append(cycles.get_default_client()),
        )
        assert len({id(each) for each in found}) == 1, number
        found.clear()
        number += 1
    cycles.set_default_client(None)
    assert number > 3
