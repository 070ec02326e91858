"""Run a program under a budget with `cycles run`. It is the first part of `make demo`.

The program is `agent.py`. A fake provider responds in place of a model, so that nothing is paid. Each call costs about
a cent, and the budget is five cents: the call that would exceed it is not sent.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

AGENT = Path(__file__).with_name("agent.py")
OPTIONS = ("run", "--fake", "--budget", "0.05USD", "--")


def main() -> int:
    """Return 0 if the agent was stopped by its budget and not by anything else."""
    print(f"$ cycles {' '.join(OPTIONS)} python examples/agent.py", flush=True)
    command = [sys.executable, "-m", "cycles", *OPTIONS, sys.executable, str(AGENT)]
    printed = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:  # as they arrive: a reader sees each call
            print(line, end="", flush=True)
            printed += line
    return 0 if running.returncode == 1 and "402 budget_exceeded" in printed else 1


if __name__ == "__main__":
    sys.exit(main())
