"""`make generate` makes a current tree, or prints one clear message and leaves the old tree unchanged."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from generator import GenerationError, __main__, build, templates
from generator.document import Json, read
from generator.packages import ADMIN, ROOT
from generator.protocol import fingerprint
from generator.rules.values import allow_unknown_members
from generator.verify import imported

SPEC = ROOT / "openapi.yaml"
MINIMAL: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Small", "version": "1"},
    "paths": {"/things": {"get": {"operationId": "listThings", "responses": {"204": {"description": "none"}}}}},
}

TEXT = {"$ref": "#/components/schemas/Text"}
MEMBERS: dict[str, Any] = {"properties": {"a": {}}}


def written(tmp_path: Path, document: dict[str, Any]) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("package", [[], ["--admin"]], ids=["cycles_client", "cycles_admin_client"])
def test_each_committed_package_is_what_its_document_generates(
    package: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main([*package, "--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("interpreter", [sys.executable, "python3.12", "python3.13", "python3.14"])
def test_the_tree_depends_on_nothing_but_the_document(interpreter: str) -> None:
    """Vary the order of sets, and the interpreter if another one with the generator is installed on this machine."""
    python = shutil.which(interpreter)
    probe = "import openapi_python_client, ruff, httpx, attrs"
    if python is None or subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip(f"{interpreter} with the generator is not installed here")
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [python, "-m", "generator", "--check"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_check_reports_a_changed_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, output = written(tmp_path, MINIMAL), tmp_path / "client"
    assert __main__.main([str(spec), "--output", str(output)]) == 0
    assert __main__.main([str(spec), "--output", str(output), "--check"]) == 0
    (output / "errors.py").write_text("", encoding="utf-8")
    (output / "mine.py").write_text("", encoding="utf-8")
    (output / "py.typed").unlink()
    assert __main__.main([str(spec), "--output", str(output), "--check"]) == 1
    expected = capsys.readouterr().err
    for line in ("differs: errors.py", "not generated: mine.py", "missing: py.typed", "make generate"):
        assert line in expected


def test_a_second_run_replaces_the_tree_and_leaves_nothing_behind(tmp_path: Path) -> None:
    spec, output = written(tmp_path, MINIMAL), tmp_path / "client"
    for _ in range(2):
        assert __main__.main([str(spec), "--output", str(output)]) == 0
        (output / "stale.py").touch()
    assert __main__.main([str(spec), "--output", str(output)]) == 0
    assert not (output / "stale.py").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["client", "spec.json"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"paths": None}, "paths"),
        ({"paths": {"/x": ["get"]}}, "does not have the shape of OpenAPI 3"),
        ({"paths": {"/x": {"query": {"responses": {}}}}}, "no method 'query'"),
        ({"paths": {"/x": {"$ref": "other.yaml#/x"}}}, "bundle the documents"),
        ({"paths": {"/x": {"get": {"responses": {"200": {"$ref": "#/components/responses/Gone"}}}}}}, "Gone points to"),
        ({"components": {"schemas": {"A": {"$ref": "#/components/schemas/A"}}}}, "back to itself"),
        ({"components": {"schemas": {"Bad": {"type": "object", "properties": {"d": {}, "e": {}}}}}}, "schema Bad"),
        (
            {"components": {"schemas": {"Text": {"type": "string"}, "Odd": {"allOf": [TEXT, MEMBERS]}}}},
            "Unable to process schema /components/schemas/Odd",
        ),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_read_completely_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], expected: str
) -> None:
    output = tmp_path / "client"
    output.mkdir()
    (output / "old.py").write_text("kept", encoding="utf-8")
    assert __main__.main([str(written(tmp_path, {**MINIMAL, **change})), "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert "nothing was changed" in error
    assert "Traceback" not in error
    assert [path.read_text(encoding="utf-8") for path in output.iterdir()] == ["kept"]


@pytest.mark.parametrize("content", ["openapi: [", "just text", "\x00", "openapi: 3.1.0"])
def test_a_file_that_is_no_document_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(content, encoding="utf-8")
    assert __main__.main([str(spec), "--output", str(tmp_path / "client")]) == 1
    assert "spec.yaml" in capsys.readouterr().err


def test_a_template_that_moved_is_named_with_the_reason_of_its_edit() -> None:
    edit = templates.edits(MINIMAL)[0]
    with pytest.raises(GenerationError, match="0 times instead of once") as raised:
        templates.applied(edit, "a template of another version")
    assert edit.template in str(raised.value)
    assert edit.why in str(raised.value)


def test_an_unknown_setting_of_the_generator_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "generator-config.yml"
    config.write_text("package_nam_override: cycles_client\n", encoding="utf-8")
    monkeypatch.setattr(build, "CONFIG", config)
    with pytest.raises(GenerationError, match="package_nam_override"):
        build.settings()


def test_another_version_of_a_tool_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(build.PINNED, "ruff", "0.0.1")
    with pytest.raises(GenerationError, match=r"needs ruff 0\.0\.1: found"):
        build.check_versions()


def test_comments_layout_and_json_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    twin = tmp_path / "twin.json"
    twin.write_text(json.dumps(read(SPEC), indent=3), encoding="utf-8")
    assert fingerprint(read(twin)) == fingerprint(read(SPEC))
    assert fingerprint(MINIMAL) != fingerprint({**MINIMAL, "openapi": "3.1.1"})


KEY = {"securitySchemes": {"Key": {"type": "apiKey", "in": "header", "name": "X-Key"}}}


@pytest.mark.parametrize(
    ("change", "security", "noted"),
    [
        ({"components": KEY}, ["Key"], True),
        ({"components": KEY, "security": []}, [], False),
        ({"components": KEY, "security": [{"Key": []}]}, ["Key"], False),
        ({}, [], False),
    ],
    ids=["no security anywhere", "public by default", "security named", "no key declared"],
)
def test_a_declared_key_is_sent_if_the_document_names_no_security(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], security: list[str], noted: bool
) -> None:
    output = tmp_path / "client"
    assert __main__.main([str(written(tmp_path, {**MINIMAL, **change})), "--output", str(output)]) == 0
    note = "declares the API key Key but names no security: every operation sends it in X-Key"
    assert (note in capsys.readouterr().out) is noted
    with imported(output) as package:
        tables = importlib.import_module(f"{package}.protocol")
        assert tables.OPERATIONS["listThings"]["security"] == security


MIXED: dict[str, Any] = {
    "/with": {"get": {"operationId": "withKey", "responses": {}, "security": [{"Key": []}, {"Admin": []}]}},
    "/own": {"get": {"operationId": "own", "responses": {}, "security": [{"Key": []}]}},
    "/silent": {"get": {"operationId": "silent", "responses": {}}},
    "/shared": {"$ref": "#/components/pathItems/Shared"},
    "/public": {"get": {"operationId": "public", "responses": {}, "security": []}},
    "/admin": {"get": {"operationId": "admin", "responses": {}, "security": [{"Admin": []}]}},
}
SCHEMES = {"Admin": {"type": "apiKey", "in": "header", "name": "X-Admin"}, **KEY["securitySchemes"]}
SHARED = {"Shared": {"get": {"operationId": "shared", "responses": {}}}}


def mixed(**root: Any) -> dict[str, Any]:
    """A document in which some operations name their security, one says that it is public, and two say nothing."""
    components = {"securitySchemes": SCHEMES, "pathItems": SHARED}
    return json.loads(json.dumps({**MINIMAL, "paths": MIXED, "components": components, **root}))  # type: ignore[no-any-return]


def test_a_key_is_sent_by_operations_that_do_not_say_that_they_are_public(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "client"
    assert __main__.main([str(written(tmp_path, mixed())), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "the API key Key but names no security for 2 of 6 operations: silent, shared send it in X-Key" in printed
    assert "public sends no key, because it says `security: []`" in printed
    with imported(output) as package:
        tables = importlib.import_module(f"{package}.protocol")
        keys = {name: entry["security"] for name, entry in tables.OPERATIONS.items()}
    silent = {"silent": ["Key"], "shared": ["Key"]}
    assert keys == {"withKey": ["Key", "Admin"], "own": ["Key"], "public": [], "admin": ["Admin"], **silent}


def test_the_default_of_a_document_applies_to_operations_without_security(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "client"
    assert __main__.main([str(written(tmp_path, mixed(security=[{"Admin": []}]))), "--output", str(output)]) == 0
    assert "names no security" not in capsys.readouterr().out
    with imported(output) as package:
        tables = importlib.import_module(f"{package}.protocol")
        assert tables.OPERATIONS["silent"]["security"] == ["Admin"]


def test_another_admin_document_gives_the_admin_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "cycles_admin_client"
    changed = read(ADMIN.spec)
    del changed["paths"]["/v1/admin/budgets/freeze"]
    changed["components"]["schemas"]["Tenant"]["properties"]["region"] = {"type": "string"}
    assert __main__.main([str(written(tmp_path, changed)), "--admin", "--output", str(output)]) == 0
    assert "operation freezeBudget was removed" in capsys.readouterr().err
    assert sorted(__main__.differences(output, ADMIN.folder)) == [
        "differs: checks.py",
        "differs: models/tenant.py",
        "differs: protocol.py",
        "not generated: api/budgets/freeze_budget.py",
    ]


@pytest.mark.parametrize("keyword", ["additionalProperties", "items", "properties", "anyOf"])
def test_closed_schemas_inside_responses_take_newer_members(keyword: str) -> None:
    closed: Json = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    inside: Any = {"properties": {"one": closed}, "anyOf": [closed]}.get(keyword, closed)
    response = {"description": "", "content": {"application/json": {"schema": {keyword: inside}}}}
    document: Json = {"paths": {"/x": {"get": {"operationId": "x", "responses": {"200": response}}}}}
    counts: Counter[str] = Counter()
    allow_unknown_members(document, counts)
    assert closed["additionalProperties"] is True
    assert counts.total() == 1


def test_two_statuses_of_success_with_one_body_are_both_in_the_table() -> None:
    protocol = importlib.import_module("cycles_admin_client.protocol")
    created = protocol.OPERATIONS["createTenant"]
    assert (created["success"], created["other_success"]) == (200, [201])
    assert "other_success" not in protocol.OPERATIONS["createBudget"]


def _used_twice(document: dict[str, Any]) -> None:
    document["paths"]["/other"] = {"get": {"operationId": "listThings", "tags": ["other"], "responses": {}}}


def _named_like_a_method(document: dict[str, Any]) -> None:
    thing = {"type": "object", "properties": {"to_dict": {"type": "string"}}}
    document["components"] = {"schemas": {"Thing": thing, "Box": {"type": "object", "properties": {"thing": thing}}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    responses = {"200": {"description": "a thing", "content": content}}
    document["paths"]["/thing"] = {"get": {"operationId": "getThing", "responses": responses}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_used_twice, "operation listThings: another operation has the same operationId"),
        (_named_like_a_method, "operation getThing: does not return the response it was made from (TypeError"),
    ],
)
def test_what_cannot_be_generated_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, problem: str
) -> None:
    document = json.loads(json.dumps(MINIMAL))
    change(document)
    assert __main__.main([str(written(tmp_path, document)), "--output", str(tmp_path / "client")]) == 1
    error = capsys.readouterr().err
    assert problem in error
    assert "nothing was changed" in error
