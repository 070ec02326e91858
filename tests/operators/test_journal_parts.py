"""What the commands on the journal decide without a server: status, settings, place and age."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

import cycles
from cycles._errors import StoreError
from cycles._journal.operators.inspect import InspectedRecord
from cycles._journal.operators.inspect_store import StoreView
from cycles._journal.stores.memory import MemoryStore
from cycles.journal import _commands, _places, _settings
from cycles.journal._table import print_records
from cycles.journal._terminal import TextTerminal
from tests.operators.conftest import Cycles


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


def test_the_stores_of_a_move_have_the_timeout_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = cycles.Config(base_url="http://a.test", api_key="k", tenant="acme", journal_store_timeout=7)
    opened: list[tuple[str, float]] = []

    def view_of(url: str, owner: str, timeout_s: float) -> StoreView:
        opened.append((url, timeout_s))
        return StoreView(MemoryStore(), url)

    monkeypatch.setattr(_commands, "view_of", view_of)
    monkeypatch.setattr(_places, "view_of", view_of)
    context = _commands.Context(TextTerminal(json=True), lambda: config, lambda _: None)
    assert _commands.move(context, "redis://a", "redis://b") == 0
    assert _places.store_of(cycles.Config(**{**attrs.asdict(config), "journal_store": "redis://c"})) is not None
    assert opened == [("redis://a", 7), ("redis://b", 7), ("redis://c", 7)]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(59, "59 s"), (60, "1 m"), (3_599, "59 m"), (3_600, "1 h"), (86_399, "23 h"), (86_400, "1 d"), (200_000, "2 d")],
)
def test_the_age_of_a_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: int, age: str
) -> None:
    monkeypatch.setattr("cycles.journal._table.time", SimpleNamespace(time_ns=lambda: (1_000 + seconds) * 10**9))
    entry = InspectedRecord(id="a", state="pending", path="/p/x", recorded_at_ms=1_000_000)
    print_records(TextTerminal(json=False), [entry])
    assert capsys.readouterr().out.splitlines()[1].split() == ["a", "pending", "-", *age.split(), "x"]


def test_the_directory_of_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert cycles.journal.directory_of("~/a") == Path("/home/me/a")
    for variable, found in ((" ~/b ", Path("/home/me/b")), ("/c", Path("/c"))):
        monkeypatch.setenv("CYCLES_JOURNAL_DIR", variable)
        assert cycles.journal.directory_of() == found
        assert cycles.journal.directory_of("/d") == Path("/d")
    monkeypatch.delenv("CYCLES_JOURNAL_DIR")
    default = cycles.journal.directory_of()
    assert default.is_absolute()
    monkeypatch.setenv("CYCLES_JOURNAL_DIR", "  ")
    assert cycles.journal.directory_of() == default


@pytest.mark.parametrize(
    ("given", "remedy"),
    [("~no-such-user/journal", "write the whole path of the directory"), (None, "set CYCLES_JOURNAL_DIR")],
    ids=["named", "default"],
)
def test_the_directory_of_a_user_without_a_home_is_a_wrong_setting(
    run_here: Cycles, monkeypatch: pytest.MonkeyPatch, given: str | None, remedy: str
) -> None:
    def no_home(*_: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    if given is None:
        monkeypatch.delenv("CYCLES_JOURNAL_DIR", raising=False)
    else:
        monkeypatch.setenv("CYCLES_JOURNAL_DIR", given)
    with pytest.raises(cycles.ConfigurationError, match=f"no home directory is known for ~.*; {remedy}$"):
        cycles.journal.inspect(given)
    assert [run_here(*command).status for command in (("pending",), ("journal", "list"))] == [2, 2]
    found = {check["name"]: check for check in run_here("doctor", "--json").document["checks"]}
    assert {name: found[name]["status"] for name in ("journal", "pending")} == {"journal": "fail", "pending": "fail"}
    assert [found[name]["remedy"] for name in ("journal", "pending")] == [remedy] * 2


@pytest.mark.parametrize(
    ("flag", "profile", "variable", "source"),
    [
        ("a", "b", "c", "option"),
        (None, "b", "c", "profile"),
        (None, None, "c", "CYCLES_TENANT"),
        (None, None, " ", "default"),
        (None, None, None, "default"),
    ],
)
def test_where_a_setting_comes_from(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, profile: str | None, variable: str | None, source: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("CYCLES_TENANT", variable)
    assert _settings.source("tenant", {"tenant": flag}, {"tenant": profile}) == source


def test_a_record_from_a_clock_that_is_ahead_has_no_negative_age(capsys: pytest.CaptureFixture[str]) -> None:
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    entry = InspectedRecord(id="a" * 64, state="pending", path="/p/x", recorded_at_ms=later_ms)
    print_records(TextTerminal(json=False), [entry])
    assert capsys.readouterr().out.splitlines()[1].split() == ["a" * 12, "pending", "-", "0", "s", "x"]
