"""The shape of the package: what importing it loads, and which way its imports point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def after(statement: str) -> set[str]:
    """The modules that are loaded in a fresh interpreter once `statement` ran."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    assert after("import cycles") - after("import __future__, importlib, typing") == {"cycles", "cycles._version"}


def test_a_client_loads_no_server_and_no_driver_it_does_not_use() -> None:
    loaded = after("import cycles; c = cycles.Cycles(base_url='http://localhost', api_key='k', journal=False)")
    assert not [name for name in loaded if name.startswith(("cycles.embedded", "cycles_client", "cycles_admin_client"))]
    absent = {
        "cycles._drivers.io.tasks",
        "cycles._http.loop",
        "uvicorn",
        "dateutil",
        "jsonschema",
        "cycles.cli",
        "cycles.journal",
        "click",
        "rich",
    }
    assert not absent & loaded


def test_imports_point_one_way() -> None:
    ran = subprocess.run([Path(sys.executable).parent / "lint-imports"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout
