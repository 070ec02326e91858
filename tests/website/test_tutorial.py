"""The tutorial runs from its own text in a clean environment. `make test-docs` runs it; it installs the package."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from website import tutorial
from website.errors import BuildError

pytestmark = pytest.mark.timeout(900)


@pytest.mark.skipif("CYCLES_TEST_SITE" not in os.environ, reason="installs the package: run make test-docs")
def test_the_tutorial_runs_and_shows_what_its_commands_print() -> None:
    shown = tutorial.PAGE.read_text(encoding="utf-8")
    assert _without_chance(tutorial.executed(shown)) == _without_chance(shown)


def _without_chance(text: str) -> str:
    """Leave out ids and ages."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+ (m?s|min)\b", "...", text)


def test_a_block_that_fails_is_reported_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"status 3:\necho told; exit 3"):
        tutorial.executed("```bash\necho told; exit 3\n```\n")


def test_variables_last_and_output_is_filled_in() -> None:
    page = "```bash\nexport WHO=you\n```\n\n```bash\necho hello $WHO\n```\n\n```text\nold\n```\n"
    assert tutorial.executed(page).endswith("```text\nhello you\n```\n")


def test_a_saved_block_is_a_file_for_the_next_command() -> None:
    page = "Save this as `a.py`:\n\n```python\nprint('ran')\n```\n\n```bash\ncat a.py\n```\n\n```text\n```\n"
    assert "```text\nprint('ran')\n```" in tutorial.executed(page)
