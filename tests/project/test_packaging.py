"""What is built is what users need: both packages, typed, and nothing of the workshop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import cycles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    # Built from a copy: a build leaves nothing in the tree, and takes nothing from it that git does not know.
    source = tmp_path_factory.mktemp("source")
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if known.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, known.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out


def test_the_wheel_holds_both_packages_typed_and_no_tests(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert wheel.name == f"cycles_sdk-{cycles.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"cycles", "cycles_client", "cycles_admin_client", f"cycles_sdk-{cycles.__version__}.dist-info"}
    assert {"cycles/py.typed", "cycles/__init__.pyi", "cycles_client/py.typed", "cycles/embedded/__main__.py"} <= set(
        names
    )
    page = "cycles/embedded/dashboard/static"
    files = {"index.html", "main.js", "dashboard.css", "vendor/uPlot.iife.min.js", "vendor/uPlot.LICENSE.txt"}
    assert {f"{page}/{name}" for name in files} <= set(names)
    assert not [name for name in names if re.search(r"(^|/)(tests?|generator|benchmarks)/|\.pyc$", name)]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_wheel_has_the_pages_that_cycles_docs_prints(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert {str(path.relative_to(tmp_path / "cycles/_docs")) for path in tmp_path.rglob("_docs/**/*.md")} == pages
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "cycles", "docs", "SKILL"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (ran.returncode, ran.stdout) == (0, (ROOT / "cycles/SKILL.md").read_text("utf-8")), ran.stderr
    ran = subprocess.run(
        [sys.executable, "-m", "cycles", "docs"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert "protocol/settlement" in ran.stdout


def test_the_wheel_names_its_plugin_its_extras_and_its_pages(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = f"cycles_sdk-{cycles.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert "cycles = cycles.embedded.pytest_plugin" in entry_points
    assert "[console_scripts]\ncycles = cycles.cli:main" in entry_points
    assert "Requires-Python: >=3.11" in metadata
    needed = set(re.findall(r"^Requires-Dist: ([\w-]+)(?![^\n]*extra ==)", metadata, re.MULTILINE))
    assert needed == {"httpx", "attrs", "python-dateutil", "platformdirs"}
    assert {"embedded", "aiohttp", "cli"} <= set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.MULTILINE))
    assert "# Cycles for Python" in metadata


def test_the_sdist_can_be_built_from_and_read(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "openapi.yaml", "pyproject.toml", "docs/architecture.md"} <= names


def test_the_changes_begin_with_this_version() -> None:
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == cycles.__version__
    assert newest[1] == cycles.__version__
