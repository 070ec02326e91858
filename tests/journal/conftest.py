"""A journal in a separate directory, and a collector of the problems that it reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cycles._journal.journal import Journal
from tests.journal.kit import BASE, Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def open_journal(tmp_path: Path, told: Told) -> Callable[..., Journal]:
    def open_it(root: Path | None = None, **changes: Any) -> Journal:
        settings = {"base_url": BASE, "tenant": "acme", "api_key": "secret-key", "report": told.append, **changes}
        return Journal(root or tmp_path / "journal", **settings)

    return open_it


@pytest.fixture
def journal(open_journal: Callable[..., Journal]) -> Journal:
    return open_journal()
