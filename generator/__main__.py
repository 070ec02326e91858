"""`python -m generator [SPEC] [--admin] [--check] [--output DIR]`: generate or compare a client package."""

from __future__ import annotations

import argparse
import filecmp
import sys
from collections.abc import Iterator
from pathlib import Path

from generator import GenerationError, build, coverage, fit
from generator.packages import ADMIN, RUNTIME, Package


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 if the tree was made (or, with --check, is current), 1 if not."""
    given = _parser().parse_args(arguments)
    package = ADMIN if given.admin else RUNTIME
    spec: Path = given.spec or package.spec
    output: Path = (given.output or package.folder).resolve()
    try:
        with build.built(spec, package, near=None if given.check else _parent(output)) as result:
            if given.check:
                return _compare(result.tree, output, spec)
            build.swap(result.tree, output)
            _report(result, output, spec, package)
    except GenerationError as error:
        print(f"generate: {error}", file=sys.stderr)
        print(f"generate: nothing was changed in {output.name}/", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m generator", description=__doc__)
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC", help="default: the document in this repository")
    parser.add_argument("--admin", action="store_true", help="generate the client of the admin operations")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the tree differs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: the committed package")
    return parser


def _parent(output: Path) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    return output.parent


def _compare(fresh: Path, output: Path, spec: Path) -> int:
    differing = sorted(differences(fresh, output))
    for difference in differing:
        print(f"generate: {difference}", file=sys.stderr)
    if differing:
        print(f"generate: {output.name}/ is not what {spec.name} gives; run `make generate`", file=sys.stderr)
    return 1 if differing else 0


def differences(fresh: Path, present: Path) -> Iterator[str]:
    """Return how the present tree differs from a fresh one, one line per file."""
    wanted, found = _files(fresh), _files(present)
    yield from (f"missing: {name}" for name in wanted - found)
    yield from (f"not generated: {name}" for name in found - wanted)
    _, differing, _ = filecmp.cmpfiles(fresh, present, sorted(wanted & found), shallow=False)
    yield from (f"differs: {name}" for name in differing)


def _files(tree: Path) -> set[str]:
    paths = (path for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(tree).as_posix() for path in paths}


def _report(result: build.Result, output: Path, spec: Path, package: Package) -> None:
    for rule, times in sorted((+result.counts).items()):
        print(f"{times:5}  {rule}")
    print(f"{output.name}/ is generated from {spec.name}, version {result.version}")
    for note in result.notes:
        print(f"generate: note: {note}")
    problems = coverage.admin_gaps(result.tables.operations) if package is ADMIN else fit.misfits(result.tables)
    for problem in problems:
        print(f"generate: to do by hand: {problem}", file=sys.stderr)
    if spec.resolve() != package.spec:
        print(f"make check compares with {package.document}; copy {spec.name} there to keep this version")


if __name__ == "__main__":
    sys.exit(main())
