"""`python -m generator [SPEC] [--check] [--output DIR]`: generate the client, or compare it with the document."""

from __future__ import annotations

import argparse
import filecmp
import sys
from collections.abc import Iterator
from pathlib import Path

from generator import GenerationError, build, fit


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 if the tree was made (or, with --check, is current), 1 if not."""
    given = _parser().parse_args(arguments)
    output: Path = given.output.resolve()
    try:
        with build.built(given.spec, near=None if given.check else _parent(output)) as result:
            if given.check:
                return _compare(result.tree, output, given.spec)
            build.swap(result.tree, output)
            _report(result, output, given.spec)
    except GenerationError as error:
        print(f"generate: {error}", file=sys.stderr)
        print(f"generate: nothing was changed in {output.name}/", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m generator", description=__doc__)
    parser.add_argument("spec", nargs="?", type=Path, default=build.SPEC, metavar="SPEC")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the tree differs")
    parser.add_argument("--output", type=Path, default=build.ROOT / build.PACKAGE, metavar="DIR")
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


def _report(result: build.Result, output: Path, spec: Path) -> None:
    for rule, times in sorted((+result.counts).items()):
        print(f"{times:5}  {rule}")
    print(f"{output.name}/ is generated from {spec.name}, version {result.version}")
    for note in result.notes:
        print(f"generate: note: {note}")
    for misfit in fit.misfits(result.tables):
        print(f"generate: to do by hand: {misfit}", file=sys.stderr)
    if spec.resolve() != build.SPEC:
        print(f"make check compares with {build.SPEC.name}; copy {spec.name} there to keep this version")


if __name__ == "__main__":
    sys.exit(main())
