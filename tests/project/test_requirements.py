"""The locked requirements cover what `pyproject.toml` asks for, and both files of the lock agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from release import lowest

ROOT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, set[str]]:
    """Each package of a file of the lock, with its versions: there may be one for each range of Python versions."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE):
        found.setdefault(_normal(package), set()).add(version)
    return found


def wanted() -> set[str]:
    """The packages that development needs, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    left, names = [*project["dependencies"], *optional["dev"]], set()
    while left:
        requirement = left.pop()
        name, extras = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement).groups()  # type: ignore[union-attr]
        if name == "cycles-sdk":
            left += [needed for extra in extras.split(",") for needed in optional[extra.strip()]]
        else:
            names.add(_normal(name))
    return names


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_of_development_is_locked() -> None:
    missing = wanted() - set(locked("requirements/dev.txt"))
    assert not missing, f"run make lock: {', '.join(sorted(missing))} is not in requirements/dev.txt"


def test_every_locked_package_has_hashes() -> None:
    text = (ROOT / "requirements/dev.txt").read_text()
    entries = re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"no hash: {entry.splitlines()[0]}"


def test_the_constraints_name_the_same_versions_as_the_lock() -> None:
    assert locked("constraints.txt") == locked("requirements/dev.txt")


def test_the_readme_lists_every_extra_with_what_it_requires() -> None:
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+?) \| .+ \|$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    listed = {extra: re.findall(r"`([^`]+)`", requires) for extra, requires in rows}
    assert listed.pop("dev") == ["make check", "make test"]  # fifty requirements that no user needs
    assert listed == {extra: needed for extra, needed in optional.items() if extra not in ("dev", "release")}


def test_the_lowest_versions_of_every_extra_are_checked() -> None:
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(lowest.extras()) == set(optional) - {"dev", "docs", "release"}
    for extra in lowest.extras():
        pins = dict(pin.split("==") for pin in lowest.lowest_of(extra))
        assert pins["httpx"] == "0.28.1", "google-genai and fastmcp need it in their lowest versions"
        for requirement in optional[extra]:
            if not requirement.startswith("cycles-sdk["):
                assert pins[re.split(r"[<>=]", requirement)[0]]


def test_an_extra_has_the_lowest_versions_of_the_extras_that_it_names() -> None:
    pins = dict(pin.split("==") for pin in lowest.lowest_of("capture"))
    assert pins["cryptography"] == "36", "the higher of two"
    assert {"click", "uvicorn", "genai-prices", "starlette", "attrs"} <= pins.keys()
