"""`openapi.yaml` has exactly the published structure, with its own descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from generator.document import read
from generator.packages import ADMIN, ROOT

SPEC = ROOT / "openapi.yaml"
DESCRIPTIONS = ("description", "summary")


def published_contract() -> Path:
    """The published structure, kept beside the checkout (a linked worktree may lie one folder deeper)."""
    for folder in (ROOT.parent, ROOT.parent.parent):
        candidate = folder / "shared" / "protocol" / "contract.yaml"
        if candidate.exists():
            return candidate
    pytest.skip("the published structure (../shared/protocol/contract.yaml) is not here to compare with")


def structure(node: Any, *, names: bool = False) -> Any:
    """Return everything but descriptions. Below `properties` the keys are names, even if one is `description`."""
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if names or key not in DESCRIPTIONS}
        return {key: structure(value, names=key == "properties") for key, value in kept.items()}
    return [structure(part) for part in node] if isinstance(node, list) else node


def test_the_structure_is_the_published_one() -> None:
    assert structure(read(SPEC)) == structure(read(published_contract()))


@pytest.mark.parametrize("spec", [SPEC, ADMIN.spec], ids=["runtime", "admin"])
def test_the_document_is_valid_openapi(spec: Path) -> None:
    validate(read(spec))


@pytest.mark.parametrize("spec", [SPEC, ADMIN.spec], ids=["runtime", "admin"])
def test_everything_is_described_in_a_sentence_or_two(spec: Path) -> None:
    missing, long = [], []
    for where, node in described(read(spec), ""):
        description = node.get("description", "")
        if not description:
            missing.append(where)
        if len(description) > 200:
            long.append(where)
    assert (missing, long) == ([], [])


def described(document: dict[str, Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every node whose description becomes (a line of) a docstring."""
    components = document["components"]
    found = [(name, one) for kind in ("schemas", "parameters", "responses") for name, one in components[kind].items()]
    for name, schema in components["schemas"].items():
        found += [(f"{name}.{member}", one) for member, one in schema.get("properties", {}).items()]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            found.append((f"{method} {path}", operation))
            found += [(f"{path}?{p['name']}", p) for p in operation.get("parameters", []) if "$ref" not in p]
    return found
