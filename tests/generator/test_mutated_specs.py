"""Changed documents go through the whole pipeline: generate, import, use, type-check."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest

from generator import __main__, build
from generator.packages import ROOT, RUNTIME
from generator.samples import Samples
from generator.verify import imported

from .mutations import MUTATIONS, Check, Json, Mutation, Tree
from .published import PUBLISHED

GROUPS = sorted({mutation.group for mutation in MUTATIONS})


def changed(group: str) -> tuple[Json, dict[str, Check]]:
    """The document of a group, with all its mutations, and their checks."""
    spec = deepcopy(PUBLISHED)
    return spec, {mutation.name: mutation.change(spec) for mutation in MUTATIONS if mutation.group == group}


class Trees:
    """One generated tree per group, generated when a test first needs it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.made: dict[str, tuple[Tree, dict[str, Check]]] = {}

    def path(self, group: str) -> Path:
        return self.folder / group.replace(" ", "_").replace(".", "_") / "cycles_client"

    def of(self, group: str) -> tuple[Tree, dict[str, Check]]:
        if group not in self.made:
            spec, checks = changed(group)
            generate(spec, self.path(group))
            self.made[group] = Tree(self.stack.enter_context(imported(self.path(group)))), checks
        return self.made[group]


def generate(spec: Json, output: Path) -> None:
    """Generate a client, as `make generate SPEC=...` does."""
    output.parent.mkdir(parents=True, exist_ok=True)
    source = output.parent / "spec.json"
    source.write_text(json.dumps(spec), encoding="utf-8")
    assert __main__.main([str(source), "--output", str(output)]) == 0


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trees]:
    with ExitStack() as stack:
        yield Trees(tmp_path_factory.mktemp("trees"), stack)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_client_of_a_mutated_document_works(trees: Trees, mutation: Mutation) -> None:
    tree, checks = trees.of(mutation.group)
    checks[mutation.name](tree)


def test_there_are_enough_mutations() -> None:
    assert len(MUTATIONS) >= 25


@pytest.mark.parametrize("group", GROUPS)
def test_a_reservation_lifecycle_with_the_mutated_client(trees: Trees, group: str) -> None:
    tree, _ = trees.of(group)
    samples = Samples(tree.protocol.SCHEMAS)
    for operation_id in ("createReservation", "extendReservation", "commitReservation", "releaseReservation"):
        entry = tree.protocol.OPERATIONS[operation_id]
        body = samples.of({"$ref": entry["request"]}, full=True)
        expected = samples.of({"$ref": entry["response"]}, full=True)
        arguments: dict[str, Any] = {"body": tree.model(entry["request"]).from_dict(body)}
        if "{reservation_id}" in entry["path"]:
            arguments["reservation_id"] = "r1"
        request, response = tree.call(operation_id, httpx.Response(entry["success"], json=expected), **arguments)
        assert json.loads(request.content) == body
        assert (response.parse_error, response.parsed.to_dict()) == (None, expected)


def test_all_mutated_clients_type_check(trees: Trees, tmp_path: Path) -> None:
    """All trees are checked in one run of mypy."""
    for number, group in enumerate(GROUPS):
        trees.of(group)
        shutil.copytree(trees.path(group), tmp_path / f"client_{number}", ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--no-error-summary",
        "--cache-dir=.cache",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_small_change_of_the_document_changes_few_files(tmp_path: Path) -> None:
    spec = deepcopy(PUBLISHED)
    spec["components"]["schemas"]["Balance"]["properties"]["tier"] = {"type": "string"}
    generate(spec, tmp_path / "cycles_client")
    lines = __main__.differences(tmp_path / "cycles_client", RUNTIME.folder)
    assert sorted(lines) == ["differs: checks.py", "differs: models/balance.py", "differs: protocol.py"]


def test_yaml_of_any_style_gives_the_same_tree(tmp_path: Path) -> None:
    """Unquoted status codes, dates, anchors and comments."""
    text = (ROOT / "openapi.yaml").read_text(encoding="utf-8")
    for status in ("200", "201", "400", "401", "403", "404", "409", "410", "429", "500"):
        text = text.replace(f"'{status}':", f"{status}: # a comment")
    text = text.replace(
        "info:\n", "info:\n  x-published: 2026-01-02\n  x-anchor: &here [NO, on]\n  x-again: *here\n", 1
    )
    spec = tmp_path / "spec.yaml"
    spec.write_text(text, encoding="utf-8")
    assert __main__.main([str(spec), "--output", str(tmp_path / "cycles_client")]) == 0
    lines = __main__.differences(tmp_path / "cycles_client", RUNTIME.folder)
    assert sorted(lines) == ["differs: protocol.py"]  # its fingerprint: `x-` members are part of the document


def test_a_renamed_schema_may_keep_its_old_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from .mutations.evolving import rename_schema

    spec = deepcopy(PUBLISHED)
    rename_schema(spec, "ReservationCreateResponse", "ReserveResult")
    config = tmp_path / "generator-config.yml"
    kept = "{ReserveResult: {class_name: ReservationCreateResponse, module_name: reservation_create_response}}"
    config.write_text(
        build.CONFIG.read_text(encoding="utf-8").replace("overrides: {}", f"overrides: {kept}", 1), "utf-8"
    )
    monkeypatch.setattr(build, "CONFIG", config)
    generate(spec, tmp_path / "cycles_client")
    lines = __main__.differences(tmp_path / "cycles_client", RUNTIME.folder)
    assert sorted(lines) == ["differs: checks.py", "differs: protocol.py"]
