"""Disks that are full, locked or missing: settlements are sent anyway, and the operator gets a report once."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

import cycles
from cycles._drivers.journal import writer as journal_writer
from cycles._journal.files import bounded
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, Setup
from tests.support.directories import HangingDirectory, directory as directory

ACTUAL = cycles.tokens(42)


def journal_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "journal" in record.getMessage()]


@pytest.fixture
def blocked_root(world: Setup) -> Path:
    """A journal directory that cannot be made: a file is in its way."""
    world.root.write_text("in the way")
    return world.root


def test_an_unusable_journal_costs_one_warning_and_nothing_else(
    world: Setup, blocked_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cycles"), world.client() as client:
        for _ in range(3):
            guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
            assert guard.commit(ACTUAL).status == "committed"
    assert world.server.charged == 3 * 42
    unwritable = [line for line in journal_warnings(caplog) if "cannot be written" in line]
    assert len(unwritable) == 1
    assert "journal_dir" in unwritable[0]


def test_what_cannot_be_saved_is_still_settled_in_the_background(world: Setup, blocked_root: Path) -> None:
    world.server.faults.drop_response("commit")
    with world.client() as client:
        assert client.reserve(cycles.tokens(100), action=ACTION).acquire().commit(ACTUAL).status == "pending"
        assert client.flush(timeout=PATIENCE_S).settled == 1
    assert world.server.charged == 42
    assert len({seen.key for seen in world.server.settling()}) == 1


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX")
def test_a_full_disk_lets_the_settlement_out(world: Setup) -> None:
    """A real one for the process: the kernel rejects every byte it writes to a file."""
    ended = world.run(("fill_disk",), ("commit", 42))
    assert ended.done[1]["status"] == "committed"
    assert ended.answer is not None
    assert ended.answer["events"].count("JournalProblem") == 1
    assert world.server.charged == 42
    assert world.leftovers == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("journal_dir", [None, "~/journal"])
def test_a_user_without_a_home_settles_with_one_warning(world: Setup, journal_dir: str | None) -> None:
    orders = {**world.orders(("commit", 42), journal_dir=journal_dir), "homeless": True}
    ended = world.children.run(orders)
    assert ended.done[0]["status"] == "committed"
    assert ended.answer is not None
    assert ended.answer["events"].count("JournalProblem") == 1
    assert world.server.charged == 42


def test_a_journal_on_a_path_with_spaces_and_unicode(world: Setup) -> None:
    root = str(world.root / "Ünïcode 日本 and spaces")
    world.server.faults.refuse("commit")
    world.killed_at("commit", ("commit", 42), journal_dir=root)
    assert len(world.leftovers) == 1
    assert world.recover(journal_dir=root)["settled"] == 1
    assert world.server.charged == 42
    assert world.leftovers == []


def test_without_a_journal_nothing_is_written(world: Setup) -> None:
    world.server.faults.drop_response("commit")
    with world.client(journal=False) as client:
        assert client.reserve(cycles.tokens(100), action=ACTION).acquire().commit(ACTUAL).status == "pending"
    assert world.server.charged == 42
    assert not world.root.exists()


def test_a_directory_that_hangs_delays_a_commit_by_its_deadline_only(
    world: Setup, directory: HangingDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cycles"), world.client() as client:
        client.record(ACTUAL, action=ACTION)
        directory.hangs = True
        for _ in range(3):
            with client.reserve(cycles.tokens(100), action=ACTION) as guard:
                assert guard.commit(ACTUAL).status == "committed"
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert world.server.charged == 4 * 42
    assert len([line for line in journal_warnings(caplog) if "cannot be written" in line]) == 1


@pytest.mark.parametrize("recent_s", [0.0, 1_000.0], ids=["with a deadline", "in the thread of the journal"])
def test_a_directory_that_hangs_delays_no_task_for_long(
    world: Setup, directory: HangingDirectory, monkeypatch: pytest.MonkeyPatch, recent_s: float
) -> None:
    monkeypatch.setattr(bounded, "RECENT_S", recent_s)
    monkeypatch.setattr(journal_writer, "STUCK_S", 0.1)

    async def main() -> None:
        async with world.client(flush_timeout=0.5) as client:
            await client.aio.record(ACTUAL, action=ACTION)
            directory.hangs = True
            for _ in range(3):
                async with client.reserve(cycles.tokens(100), action=ACTION) as guard:
                    assert (await guard.commit(ACTUAL)).status == "committed"

    asyncio.run(main())
    assert world.server.charged == 4 * 42
