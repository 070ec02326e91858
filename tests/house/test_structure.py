"""The shape of the package: its public names, what importing it costs, and which way its imports point."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import cycles

ROOT = Path(__file__).parents[2]


def names_for_type_checkers() -> set[str]:
    """What the `if TYPE_CHECKING:` block of the package imports."""
    tree = ast.parse((ROOT / "cycles" / "__init__.py").read_text())
    [block] = (node for node in tree.body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_type_checkers_and_programs_see_the_same_names() -> None:
    loaded = {*cycles._HOME_OF, *cycles._MODULES}
    assert names_for_type_checkers() == loaded
    assert set(cycles.__all__) == loaded | {"__version__"}
    assert set(dir(cycles)) == set(cycles.__all__)


def test_every_public_name_is_there_and_at_home_where_it_says() -> None:
    for name in cycles.__all__:
        assert getattr(cycles, name) is not None
    for home, names in cycles._HOMES.items():
        assert all(hasattr(importlib.import_module(home), name) for name in names), home


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(cycles, "Cyclist")


def after(statement: str) -> set[str]:
    """The modules that are loaded in a fresh interpreter once `statement` ran."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    assert after("import cycles") - after("import __future__, importlib, typing") == {"cycles", "cycles._version"}


def test_a_client_loads_no_server_and_no_driver_it_does_not_use() -> None:
    loaded = after("import cycles; c = cycles.Cycles(base_url='http://localhost', api_key='k', journal=False)")
    assert not [name for name in loaded if name.startswith(("cycles.embedded", "cycles_client"))]
    assert not {"cycles._drivers.tasks", "cycles._edges.async_http", "uvicorn", "dateutil", "jsonschema"} & loaded


def test_imports_point_one_way() -> None:
    ran = subprocess.run([Path(sys.executable).parent / "lint-imports"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout
