"""What the commands on the journal decide without a server: status, settings, place and age."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._errors import StoreError
from cycles._journal.operators.inspect import InspectedRecord
from cycles._journal.operators.inspect_store import StoreView
from cycles._journal.stores.memory import MemoryStore
from cycles.journal import _commands, _places, _settings
from cycles.journal._table import print_records
from cycles.journal._terminal import TextTerminal


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (cycles.FlushReport(settled=1), 0),
        (cycles.FlushReport(pending=1), 4),
        (cycles.FlushReport(quarantined=1), 4),
        (cycles.FlushReport(scan_finished=False), 4),
    ],
    ids=["settled", "pending", "quarantined", "unread"],
)
def test_the_status_of_a_flush_says_whether_anything_is_left(report: cycles.FlushReport, status: int) -> None:
    assert _commands.print_flush(TextTerminal(json=False), report) == status


def test_an_option_goes_before_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[staging]\ntenant = "acme"\nbase_url = "http://a.test"\n')
    monkeypatch.setattr(_settings, "profile_file", lambda: file)
    made = _settings.configuration({"tenant": "other"}, "staging")
    assert (made.tenant, made.base_url) == ("other", "http://a.test")


@pytest.mark.parametrize("given", [{"tenant": "acme"}, {"api_key": "k"}], ids=["tenant", "key"])
def test_a_tenant_or_a_key_says_whose_records_of_a_store_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: dict[str, Any]
) -> None:
    view = StoreView(MemoryStore(), "redis://h")
    monkeypatch.setattr(_places, "view_of", lambda *_: view)
    config = cycles.Config(base_url="http://a.test", journal_store="redis://h", **given)
    assert _places.store_of(config) is view
    assert capsys.readouterr().err == ""


def test_a_retry_fails_if_the_store_that_has_the_records_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    store.fails = "it is down"
    monkeypatch.setattr(_places, "view_of", lambda *_: StoreView(store, "redis://h"))
    client = SimpleNamespace(flush=lambda _: cycles.FlushReport())
    monkeypatch.setattr(cycles, "Cycles", lambda _: contextlib.nullcontext(client))
    config = cycles.Config(base_url="http://a.test", api_key="k", tenant="acme", journal_store="redis://h")
    context = _commands.Context(TextTerminal(json=False), lambda: config, lambda _: None)
    with pytest.raises(StoreError, match="it is down"):
        _commands.retry(context)


def test_a_record_from_a_clock_that_is_ahead_has_no_negative_age(capsys: pytest.CaptureFixture[str]) -> None:
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    entry = InspectedRecord(id="a" * 64, state="pending", path="/p/x", recorded_at_ms=later_ms)
    print_records(TextTerminal(json=False), [entry])
    assert capsys.readouterr().out.splitlines()[1].split() == ["a" * 12, "pending", "-", "0", "s", "x"]
