"""`make audit` says what it checked, and what it could not check."""

from __future__ import annotations

import sys

import pytest

from release import audit
from release.audit import Advisories
from release.steps import ReleaseError


def run(monkeypatch: pytest.MonkeyPatch, found: list[str], known: Advisories | ReleaseError, *options: str) -> int:
    """Run the audit with what its two searches find."""

    def advisories() -> Advisories:
        if isinstance(known, ReleaseError):
            raise known
        return known

    monkeypatch.setattr(audit, "secrets", lambda: found)
    monkeypatch.setattr(audit, "advisories", advisories)
    monkeypatch.setattr(sys, "argv", ["audit", *options])
    return audit.main()


@pytest.mark.parametrize(
    ("known", "printed", "skipped"),
    [
        (Advisories([], 4, 0), "ok: no secrets\nok: no known vulnerability in 4 packages\n", ""),
        (Advisories([], 0, 9), "ok: no secrets\n", "has no advisories for 9 packages"),
        (ReleaseError("no network"), "ok: no secrets\n", "vulnerabilities are not checked: no network"),
    ],
    ids=["all checked", "none checked", "no network"],
)
def test_what_could_not_be_checked_is_skipped_and_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    known: Advisories | ReleaseError,
    printed: str,
    skipped: str,
) -> None:
    assert run(monkeypatch, [], known) == 0
    told = capsys.readouterr()
    assert told.out == printed
    assert skipped in told.err
    assert run(monkeypatch, [], known, "--strict") == int(bool(skipped))


def test_a_secret_and_a_vulnerability_fail_the_audit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, ["a.py:1: Private Key"], Advisories([], 1, 0)) == 1
    told = capsys.readouterr()
    assert told.out.startswith("a.py:1: Private Key\n")
    assert told.err.endswith(f"harmless: {sys.executable} -m detect_secrets scan --baseline .secrets.baseline\n")
    assert run(monkeypatch, [], Advisories(["x 1: PYSEC-1, fixed in 2"], 1, 0)) == 1
    assert run(monkeypatch, ["a.py:1: Private Key"], ReleaseError("no network")) == 1
    assert "PYSEC-1" in capsys.readouterr().out
