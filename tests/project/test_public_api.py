"""The public API changes only on purpose: names and signatures are compared with a snapshot."""

from __future__ import annotations

import difflib

import cycles

from .public_api import SNAPSHOT, public_api


def test_the_public_api_is_that_of_the_snapshot() -> None:
    kept, now = SNAPSHOT.read_text(encoding="utf-8").splitlines(), public_api().splitlines()
    changed = [line for line in difflib.unified_diff(kept, now, lineterm="", n=0) if line[:1] in "+-"][2:]
    assert not changed, "the public API changed; if that is intended, run make api and add it to CHANGELOG.md:\n" + (
        "\n".join(changed)
    )


def test_the_snapshot_sees_a_removed_name_and_a_changed_signature() -> None:
    lines = public_api().splitlines()
    assert "class BudgetExceededError(ReservationDeniedError)" in lines
    assert any(line.startswith("usd(value:") for line in lines)
    assert any(line.startswith("Cycles.reserve(") for line in lines)
    assert any(line.startswith(("events.Settled.charged", "class events.Settled(")) for line in lines)
    assert all(any(name in line for line in lines) for name in cycles.__all__)
