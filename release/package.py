"""Check the built package: same bytes twice, every extra, all extras together, types, and the demo without a network.

`make test-package` runs this.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from release.steps import ReleaseError, build, environment, extras, run, sources, uv

T = TypeVar("T")

# Imports every public module. An integration needs its framework, which the environment has.
_IMPORT_ALL = """
import importlib, pkgutil, cycles
for name in cycles.__all__:
    getattr(cycles, name)
for package in ("cycles.integrations", "cycles.providers", "cycles.journal", "cycles.cli", "cycles.proxy"):
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as missing:
        if missing.name != package:
            raise
        continue
    for module in pkgutil.iter_modules(found.__path__, package + "."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
"""


def same_bytes(folder: Path) -> Path:
    """Build twice and compare. Return the folder with the files."""
    first, second = (build(sources(folder / f"source-{name}"), folder / f"dist-{name}") for name in ("first", "second"))
    if first != second:
        raise ReleaseError(f"two builds differ: {first} and {second}; find what depends on the time or the folder")
    return folder / "dist-first"


def each_extra(wheel: Path) -> None:
    """Resolve each extra alone."""
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder))
        for extra in extras():
            uv("pip", "install", "--dry-run", f"{wheel}[{extra}]", python=python)


def all_extras(wheel: Path, folder: Path) -> Path:
    """Install every extra in one environment and import every public module. Return the environment's Python."""
    python = environment(folder)
    uv("pip", "install", f"{wheel}[{','.join(extras())}]", python=python)
    uv("pip", "check", python=python)
    run([str(python), "-W", "ignore", "-c", _IMPORT_ALL], cwd=folder)
    return python


def complete_types(python: Path) -> None:
    """Check that the type of every public name is known to a type checker without inference."""
    uv("pip", "install", "pyright[nodejs]", python=python)
    command = [str(python), "-m", "pyright", "--ignoreexternal", "--verifytypes", "cycles"]
    variables = {"VIRTUAL_ENV": str(python.parents[1]), "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin"}
    try:
        printed = run(command, cwd=python.parents[1], variables=variables)
    except ReleaseError as problem:
        printed = str(problem)
    score = re.search(r"Type completeness score: ([\d.]+)%", printed)
    if score is None or float(score[1]) < 100:
        raise ReleaseError(f"the types are not complete:\n{printed[-6000:]}")


def demo_without_a_network(dist: Path, folder: Path) -> None:
    """Install the sdist from a folder of wheels only, and run the demo that it contains."""
    [sdist] = dist.glob("*.tar.gz")
    wheels = folder / "wheelhouse"
    python = environment(folder / "download")
    uv("pip", "install", "pip", python=python)
    download = [str(python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(wheels)]
    run([*download, f"{sdist}[run]", "hatchling>=1.27"])
    offline = environment(folder / "offline")
    uv("pip", "install", "pip", python=offline)
    install = [str(offline), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    run([*install, "--find-links", str(wheels), f"{sdist}[run]"])
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    run([str(offline), "examples/demo.py"], cwd=unpacked)


def main() -> int:
    """Run all checks, say what each took, and return an exit status."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        dist = _timed("two builds have the same bytes", lambda: same_bytes(folder))
        [wheel] = dist.glob("*.whl")
        _timed(f"each of {len(extras())} extras resolves alone", lambda: each_extra(wheel))
        python = _timed("all extras in one environment import", lambda: all_extras(wheel, folder / "all"))
        _timed("all public types are known", lambda: complete_types(python))
        _timed("the sdist runs the demo without a network", lambda: demo_without_a_network(dist, folder))
    return 0


def _timed(what: str, check: Callable[[], T]) -> T:
    started = time.monotonic()
    result = check()
    print(f"ok: {what} ({time.monotonic() - started:.0f} s)", flush=True)
    return result


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
