"""The README as a new user runs it: its install command in a fresh virtual environment, then its blocks in order.

They run in an empty folder with a copy of `examples/`, beside `cycles dev --fake`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from itertools import groupby
from pathlib import Path

import pytest

from tests.operators.kit import ROOT, environment, processes
from tests.operators.test_dev import dev

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [(language, code) for language, code in BLOCK.findall(README) if language != "text"]


def exports(lines: str) -> dict[str, str]:
    """Return the variables of the lines that `cycles dev` prints for a shell."""
    words = [word for line in lines.splitlines() if line.startswith("export ") for word in line.split()[1:]]
    return dict(word.split("=", 1) for word in words)


def commands(code: str) -> list[str]:
    """Return the commands of a shell block: the lines behind a prompt, or all lines if there is none."""
    lines = code.splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")] or lines


def test_the_readme_has_only_blocks_that_run_and_text() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python"}
    assert len([code for language, code in BLOCKS if language == "python"]) >= 6
    assert "await answer" not in README  # a script has no `await` at its top


def test_what_is_not_to_be_run_says_so() -> None:
    found = list(re.finditer(r"^```text\n(export CYCLES_BASE_URL.*?)^```$", README, re.MULTILINE | re.DOTALL))
    assert len(found) == 1
    for match in found:
        assert "no code to run" in README[: match.start()].rsplit("\n\n", 2)[-2]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a new virtual environment, in which the README's install command has run."""
    folder = tmp_path_factory.mktemp("fresh")
    (command,) = set(re.findall(r"`(pip install '[^`]+')` in a clone", README))
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    bin_folder = folder / "bin"
    # The reader of "Guard your OpenAI client" has that client.
    for install in (command, "pip install openai"):
        program, *arguments = shlex.split(install)
        subprocess.run([bin_folder / program, "--quiet", *arguments], cwd=ROOT, check=True, timeout=300)
    return bin_folder


@processes
@pytest.mark.timeout(600)
def test_the_blocks_run_in_order_in_an_empty_folder(tmp_path: Path, fresh: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with dev("--fake") as (process, first):
        assert process.stdout is not None
        printed = first
        while printed.count("export ") < 2:
            printed += process.stdout.readline()
        env = environment(**exports(printed), PATH=f"{fresh}:/usr/bin:/bin", HOME=str(tmp_path))
        for number, (language, blocks) in enumerate(groupby(BLOCKS, key=lambda block: block[0])):
            if language == "bash":
                for command in (command for _, code in blocks for command in commands(code)):
                    ran = run(["bash", "-c", command], tmp_path, env)
                    assert ran.returncode in ((1,) if "agent.py" in command else (0,)), (command, ran)
                continue
            program = tmp_path / f"blocks_{number}.py"
            program.write_text("\n".join(textwrap.dedent(code) for _, code in blocks))
            ran = run([str(fresh / "python"), program.name], tmp_path, env)
            assert ran.returncode == 0, ran.stderr
            assert "Traceback" not in ran.stderr
        assert "Done (" in ran.stdout
        assert "charged, $0.018 released" in ran.stdout
        assert "denied: " in ran.stdout


def run(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@processes
def test_the_first_block_does_what_is_printed_under_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    _, code = BLOCKS[0]
    env = environment(PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin", HOME=str(tmp_path))
    ran = run(["bash", "-c", f"exec 2>&1; {commands(code)[0]}"], tmp_path, env)
    took = re.compile(r"[\d.]+ s$", re.MULTILINE)
    assert took.sub("N s", ran.stdout) == took.sub("N s", code.partition("\n")[2])
