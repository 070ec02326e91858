"""Each assertion of the tests can fail: see `assertions.py`, which finds those that cannot, or hardly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project.assertions import files, weak_assertions


def test_no_assertion_hardly_fails_and_no_test_sleeps() -> None:
    assert [str(weak) for path in files() for weak in weak_assertions(path)] == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("assert one() == 1 or two() == 2", "an `or`"),
        ("assert not one() or two()", None),
        ("assert 'a', one()", "always true"),
        ("assert answer.latency_ms >= 0", "never below 0"),
        ("assert 0 <= len(rows())", "never below 0"),
        ("assert left >= 0", None),
        ("time.sleep(0.1)", "sleeps"),
        ("time.sleep(0)", None),
        ("for row in rows():\n        assert row", "in a loop that may be empty"),
        ("for row in (1, 2):\n        assert row", None),
        ("found = [1, 2]\n    for row in found:\n        assert row", None),
        ("for row in rows():\n        assert row\n    assert rows()", None),
        ("if rows():\n        assert rows()", "under an if"),
        ("with client():\n        while more():\n            assert more()", "in a loop that may be empty"),
        ("for row in rows():\n        assert row\n    with pytest.raises(ValueError):\n        rows()", None),
    ],
)
def test_what_hardly_fails_is_found(tmp_path: Path, body: str, reason: str | None) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(f"def test_it():\n    {body}\n")
    reasons = [weak.reason for weak in weak_assertions(path)]
    assert [reason in each for each in reasons if reason is not None] == [True] * len(reasons)
    assert len(reasons) == (reason is not None)
