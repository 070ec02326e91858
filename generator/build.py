"""Run the generator on a prepared document in a temporary folder, and format the result.

No function but `swap` touches the committed tree; `__main__` swaps or compares after the result is verified.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import openapi_python_client
from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_python_client.parser.errors import GeneratorError, ParseError
from ruamel.yaml import YAML

from generator import GenerationError, checks, document, overlay, prepare, protocol, templates, verify
from generator.packages import ROOT, RUNTIME, Package
from generator.rules import layout

CONFIG: Final = ROOT / "generator-config.yml"
# Both versions decide bytes of the result; the template edits are made for exactly this generator.
PINNED: Final = {"openapi-python-client": "0.29.1", "ruff": "0.17.6"}
LINE_LENGTH: Final = 100
# How the generator's messages show a name that comes from the document.
_OBJECT_REPR: Final = re.compile(r"<openapi_python_client\S+ object at \w+>")


@dataclass(frozen=True)
class Result:
    """A verified tree. Its temporary folder is deleted when the context of `built` ends."""

    tree: Path
    version: str
    tables: protocol.Tables
    counts: Counter[str]
    notes: tuple[str, ...]


@contextlib.contextmanager
def built(spec: Path, package: Package = RUNTIME, *, near: Path | None = None) -> Iterator[Result]:
    """Generate a package from a document into a temporary folder, and verify the result.

    Args:
        spec: The document.
        package: The package to generate; its name is in the result.
        near: Folder in which the temporary folder is made, so that a rename can move the result.
    """
    check_versions()
    published = original = document.read(spec)
    if package.additions is not None:
        with prepare.expecting_openapi():
            published = overlay.merged(original, document.read(package.additions))
    ready, counts = prepare.prepared(published)
    with TemporaryDirectory(prefix=".generating-", dir=near) as folder:
        tree = Path(folder) / package.name
        run_generator(published, ready, Path(folder), package)
        (tree / "py.typed").touch()
        tables = protocol.Tables(prepare.normalized(published))
        text = protocol.render(tables, published["info"]["version"], protocol.fingerprint(original))
        (tree / "protocol.py").write_text(text, encoding="utf-8")
        (tree / "checks.py").write_text(checks.render(tables), encoding="utf-8")
        run_ruff(tree)
        verify.check(tree, ready, class_names())
        yield Result(tree, published["info"]["version"], tables, counts, notes(original))


def notes(published: document.Json) -> tuple[str, ...]:
    """Return what a reader of the run should know about the document: assumptions that the pipeline made."""
    key = layout.undeclared_key(published)
    if key is None:
        return ()
    header = published["components"]["securitySchemes"][key]["name"]
    operations = layout.named_operations(published)
    silent = [name for name, operation in operations.items() if "security" not in operation]
    public = [name for name, operation in operations.items() if operation.get("security") == []]
    which = "every operation sends" if len(silent) == len(operations) else f"{', '.join(silent)} send"
    some = "" if len(silent) == len(operations) else f" for {len(silent)} of {len(operations)} operations"
    return (
        f"the document declares the API key {key} but names no security{some}: {which} it in {header}; "
        "add `security: []` to operations that need no key",
        *(f"{name} sends no key, because it says `security: []`" for name in public),
    )


def check_versions() -> None:
    """Raise a `GenerationError` if a tool has another version than the one this pipeline was made for."""
    for name, wanted in PINNED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            raise GenerationError(
                f"this pipeline needs {name} {wanted}: found {found}; run it in the project's environment "
                "(make generate), or follow 'Upgrading the generator' in docs/regenerating.md"
            )


def settings(package: Package = RUNTIME) -> ConfigFile:
    """Read generator-config.yml for a package. Unknown keys are an error, because the generator would ignore them."""
    given = YAML(typ="safe", pure=True).load(CONFIG.read_text(encoding="utf-8")) or {}
    unknown = sorted(set(given) - set(ConfigFile.model_fields))
    if unknown:
        raise GenerationError(f"{CONFIG.name} has unknown keys: {', '.join(unknown)}; correct or remove them")
    names: dict[str, Any] = {
        "package_name_override": package.name,
        "project_name_override": package.name.replace("_", "-"),
    }
    return ConfigFile(**given, **names)


def class_names() -> dict[str, str]:
    """Return the class names that generator-config.yml changes, by their generated name."""
    overrides = settings().class_overrides or {}
    return {name: str(one.class_name.get_untrusted_value()) for name, one in overrides.items() if one.class_name}


def run_generator(published: document.Json, ready: document.Json, folder: Path, package: Package = RUNTIME) -> None:
    """Run the stock generator on the prepared document. Each of its warnings means a missing piece and is an error."""
    source, own_templates = folder / "prepared.json", folder / "templates"
    own_templates.mkdir()
    templates.write(published, own_templates)
    source.write_text(protocol.as_json(ready), encoding="utf-8")
    config = Config.from_sources(
        settings(package), MetaType.NONE, source, "utf-8", overwrite=True, output_path=folder / package.name
    )
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            problems = openapi_python_client.generate(config=config, custom_template_path=own_templates)
        except Exception as error:  # the generator's own errors are of any type and name no document
            raise GenerationError(f"the generator cannot read the document: {type(error).__name__}: {error}") from error
    if problems:
        advice = "rewrite the shape, or add a rule to generator/rules/ ('When it fails' in docs/regenerating.md)"
        raise GenerationError("\n".join(["the generator left something out:", *map(_problem, problems), advice]))


def _problem(problem: GeneratorError) -> str:
    where = ""
    if isinstance(problem, ParseError) and problem.data is not None:
        where = problem.data.model_dump_json(exclude_unset=True, by_alias=True)[:300]
    message = " ".join(part for part in (problem.header, problem.detail, where) if part)
    return "  " + _OBJECT_REPR.sub("of the document", " ".join(message.split()))


def run_ruff(tree: Path) -> None:
    """Sort imports, drop unused ones and format, with the pinned ruff and without any settings file."""
    ruff = [sys.executable, "-m", "ruff"]
    common = ["--isolated", "--no-cache", "--line-length", str(LINE_LENGTH), "--target-version", "py311", tree.name]
    for command in (["check", "--fix-only", "--select", "F401,F811,I"], ["format"]):
        done = subprocess.run([*ruff, *command, *common], cwd=tree.parent, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GenerationError(f"ruff cannot read the generated code:\n{done.stderr or done.stdout}")


def swap(tree: Path, output: Path) -> None:
    """Replace the old tree by a finished one. If the rename fails, the old tree is restored."""
    retired = tree.parent / "retired"
    if output.exists():
        output.rename(retired)
    try:
        tree.rename(output)
    except OSError:
        if retired.exists():
            retired.rename(output)
        raise
    shutil.rmtree(retired, ignore_errors=True)
