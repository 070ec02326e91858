"""Look for secrets in the sources, and for known vulnerabilities of the locked requirements.

`make audit` runs this. The search for secrets needs no network. Advisories come from the package index. Without a
network, or for packages whose advisories the index does not give (a mirror often has none), this says that the check is
skipped; with `--strict` it fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from release.steps import ROOT, ReleaseError, run

BASELINE: Final = ROOT / ".secrets.baseline"
# Plugins that take every long random string for a secret; the tests and the protocol's examples are full of them.
GUESSES: Final = ("Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector")
LOCK: Final = ROOT / "requirements" / "dev.txt"


def secrets() -> list[str]:
    """Return the places that look like a secret and that the baseline does not list as harmless."""
    known = json.loads(BASELINE.read_text(encoding="utf-8"))["results"]
    options = [word for plugin in GUESSES for word in ("--disable-plugin", plugin)]
    scanned = json.loads(run([sys.executable, "-m", "detect_secrets", "scan", *options]))["results"]
    harmless = {(path, found["hashed_secret"]) for path, all_found in known.items() for found in all_found}
    return [
        f"{path}:{found['line_number']}: {found['type']}"
        for path, all_found in sorted(scanned.items())
        for found in all_found
        if (path, found["hashed_secret"]) not in harmless
    ]


@dataclass(frozen=True)
class Advisories:
    """What the package index knows: vulnerabilities, and how many packages were checked or not."""

    vulnerable: list[str]
    checked: int
    unchecked: int


def advisories() -> Advisories:
    """Return the known vulnerabilities of the locked requirements.

    Raises:
        ReleaseError: The package index cannot be reached.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip", "--format", "json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not ran.stdout.strip():
        told = ran.stderr.strip().splitlines() or ["it printed nothing"]
        raise ReleaseError(f"pip-audit got no advisories: {told[-1]}")
    packages = json.loads(ran.stdout)["dependencies"]
    unchecked = sum("skip_reason" in package for package in packages)
    return Advisories(list(_vulnerable(packages)), len(packages) - unchecked, unchecked)


def _vulnerable(packages: list[dict[str, Any]]) -> Iterator[str]:
    for package in packages:
        for advisory in package.get("vulns", ()):
            fixed = ", ".join(advisory["fix_versions"]) or "no version"
            yield f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}"


def main() -> int:
    """Run both checks, print what they found, and return an exit status."""
    parser = argparse.ArgumentParser(description="look for secrets and known vulnerabilities")
    parser.add_argument("--strict", action="store_true", help="fail if the package index gives no advisories")
    options = parser.parse_args()
    found = secrets()
    print("\n".join(found) or "ok: no secrets")
    if found:
        command = f"{sys.executable} -m detect_secrets scan --baseline {BASELINE.name}"
        print(f"if none of them is a secret, list them as harmless: {command}", file=sys.stderr)
    try:
        known = advisories()
    except ReleaseError as problem:
        print(f"skipped: vulnerabilities are not checked: {problem}", file=sys.stderr)
        return int(bool(found) or options.strict)
    if known.vulnerable or known.checked:
        print("\n".join(known.vulnerable) or f"ok: no known vulnerability in {known.checked} packages")
    if known.unchecked:
        print(f"skipped: the package index has no advisories for {known.unchecked} packages", file=sys.stderr)
    return int(bool(found or known.vulnerable or (known.unchecked and options.strict)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReleaseError as problem:
        sys.exit(f"release: {problem}")
