"""Run each coding agent twice against a fake provider, allowed and denied, and print the matrix that the page shows.

``python -m tests.agents FOLDER [NAME...]``: FOLDER has what `install.sh` installed. It exits with 1 if an agent fails;
agents that are not installed are skipped, unless they are named.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from attrs import frozen

import cycles
from cycles.testing import FakeProvider
from tests.agents.witness import Witness, enter

ROOT: Final = Path(__file__).parents[2]
USED: Final = {"tokens_input": 1000, "tokens_output": 100}
LONGEST_S: Final = 60.0
"""How long an agent may take until it reports a denial."""
GPT_4O: Final = 1000 * 250 + 100 * 1000
CLAUDE: Final = 1000 * 300 + 100 * 1500
GEMINI: Final = 1000 * 30 + 100 * 250
COSTS: Final = {"gpt-4o": GPT_4O, "claude-sonnet-4-5": CLAUDE, "gemini-2.5-flash": GEMINI}
PROMPT: Final = "say hello"
_SET_CHILD_SUBREAPER: Final = 36


@frozen
class Agent:
    """One agent.

    Attributes:
        name: How the page calls it.
        program: Its file below the folder.
        arguments: With which it sends one prompt and exits.
        variables: Its API key.
        options: Options of `cycles run`.
        calls: How many calls one prompt makes.
        how: How its calls reach the proxy, for the page.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    how: str = "variables"
    options: tuple[str, ...] = ()
    calls: int = 1


_BIN: Final = "node_modules/.bin"
OPENAI: Final = {"OPENAI_API_KEY": "sk-dummy"}
AGENTS: Final = (
    Agent(
        "Claude Code",
        f"{_BIN}/claude",
        ("-p", PROMPT, "--model", "claude-sonnet-4-5"),
        {"ANTHROPIC_API_KEY": "sk-ant-dummy", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
    ),
    Agent(
        "Codex",
        f"{_BIN}/codex",
        ("exec", "--skip-git-repo-check", "-m", "gpt-4o", PROMPT),
        {"CODEX_API_KEY": "sk-dummy", **OPENAI},
        how="captured, without an option",
    ),
    Agent(
        "gemini-cli",
        f"{_BIN}/gemini",
        ("-p", PROMPT, "-m", "gemini-2.5-flash", "--skip-trust"),
        {"GEMINI_API_KEY": "dummy"},
        how="variables and the defaults file",
    ),
    Agent(
        "aider",
        "aider/bin/aider",
        (
            *("--model", "gpt-4o", "--message", PROMPT, "--yes-always", "--no-git", "--no-check-update"),
            *("--no-show-model-warnings", "--analytics-disable", "--no-show-release-notes", "--no-gitignore"),
        ),
        OPENAI,
    ),
    Agent(
        "opencode",
        f"{_BIN}/opencode",
        ("run", "-m", "openai/gpt-4o", PROMPT),
        {**OPENAI, "OPENCODE_DISABLE_AUTOUPDATE": "1"},
        calls=2,
    ),
    Agent(
        "Qwen Code",
        f"{_BIN}/qwen",
        ("-p", PROMPT, "-m", "gpt-4o", "--auth-type", "openai"),
        OPENAI,
        calls=2,
    ),
    Agent(
        "pi",
        f"{_BIN}/pi",
        ("-p", "--provider", "openai", "--model", "gpt-4o", PROMPT),
        OPENAI,
        how="`--capture`",
        options=("--capture",),
    ),
    Agent(
        "Cline",
        f"{_BIN}/cline",
        ("--plan", "--provider", "openai-native", "--key", "sk-dummy", "--model", "gpt-4o", PROMPT),
        OPENAI,
        how="`--capture`",
        options=("--capture",),
    ),
)


@frozen
class Seen:
    """What one run did."""

    summary: dict[str, Any]
    status: int
    seconds: float
    requests: int
    output: str


def _run(agent: Agent, folder: Path, budget: str) -> Seen:
    home = folder / "homes" / agent.name.replace(" ", "-").lower()
    shutil.rmtree(home, ignore_errors=True)
    work = home / "work"
    work.mkdir(parents=True)
    home.chmod(0o755)
    # Its own repository: aider writes its history into the root of the one around it, and others read its files.
    subprocess.run(["git", "init", "--quiet", str(work)], check=True)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
    variables = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "CI": "1", **agent.variables}
    with FakeProvider() as provider:
        for _ in range(40):
            provider.reply(usage=USED, text="hello")
        urls = {"openai": provider.openai_url, "anthropic": provider.url, "gemini": provider.url}
        upstreams = [part for name, url in urls.items() for part in ("--upstream", f"{name}={url}")]
        options = ["--budget", budget, "--json", "--wait", "0", *agent.options, *upstreams]
        command = [sys.executable, "-m", "cycles", "run", *options, "--", str(folder / agent.program), *agent.arguments]
        started = time.monotonic()
        ran = subprocess.run(
            command,
            cwd=work,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S * 3,
            check=False,
        )
        took = time.monotonic() - started
        _end_daemons()
        generated = [one for one in provider.requests if one.method == "POST" and "count" not in one.path]
    lines = [line for line in ran.stderr.splitlines() if line.startswith('{"calls"')]
    summary = json.loads(lines[-1]) if lines else {}
    return Seen(summary, ran.returncode, took, len(generated), ran.stdout[-1500:] + ran.stderr[-2500:])


def _end_daemons() -> None:
    """End what an agent left running, as Cline does. This process is the reaper of all that it started."""
    while children := [int(pid) for task in Path("/proc/self/task").iterdir() for pid in _children_of(task)]:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children_of(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:  # the thread has ended
        return []


def _cost(model: str) -> int:
    """Return what a call costs; an agent may choose a small model for a title, which changes with its version."""
    return COSTS[model] if model in COSTS else cycles.PriceBook.genai().cost(model, **USED).amount


def _problems(agent: Agent, allowed: Seen, denied: Seen, witness: Witness, before: int) -> list[str]:
    found = []
    models = allowed.summary.get("models", {})
    expected = sum(_cost(model) * counts["calls"] for model, counts in models.items())
    if allowed.summary.get("calls") != agent.calls:
        found.append(f"{allowed.summary.get('calls')} calls instead of {agent.calls}")
    if not expected or allowed.summary["spent"]["amount"] != expected or allowed.summary.get("estimated"):
        found.append(f"spent {allowed.summary.get('spent')} on {models}")
    if denied.requests or not denied.summary.get("denied"):
        found.append(f"denied: {denied.summary.get('denied')} times, {denied.requests} requests reached the provider")
    if denied.seconds > LONGEST_S:
        found.append(f"a denial ended after {denied.seconds:.0f} s")
    if sum(witness.seen.values()) > before:
        found.append(f"connections past the proxy: {dict(witness.seen)}")
    return found


def main(folder: Path, names: list[str]) -> int:
    """Run the agents, and return the exit status."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    witness = enter()
    failed, rows, ran = 0, [], 0
    for agent in AGENTS:
        if names and agent.name not in names:
            continue
        if not (folder / agent.program).exists():
            print(f"test-agents: {agent.name} is not installed: make install-agents", file=sys.stderr)
            failed += bool(names)
            continue
        before = sum(witness.seen.values())
        allowed, denied = _run(agent, folder, "5USD"), _run(agent, folder, "0.000001USD")
        problems = _problems(agent, allowed, denied, witness, before)
        ran += 1
        failed += bool(problems)
        if problems:
            print(f"test-agents: {agent.name}: {'; '.join(problems)}\n{allowed.output}\n---\n{denied.output}")
        calls = f"{allowed.summary.get('calls')} {'call' if agent.calls == 1 else 'calls'}, exact"
        end = f"exit {denied.status}, {denied.summary.get('denied')} denied, {denied.seconds:.0f} s"
        rows.append(f"| {agent.name} | {agent.how} | {'failed' if problems else calls} | {end} |")
    print("| agent | how | allowed | denied |\n|---|---|---|---|")
    print("\n".join(rows))
    print(f"{ran - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), sys.argv[2:]))
