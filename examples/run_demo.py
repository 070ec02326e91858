"""Run a program under a budget with `cycles run`. `make demo` runs this file first.

The program is `agent.py`. A fake provider on loopback responds in its place, so that nothing is paid. Each call costs
between one and two cents, and the budget is five cents: the calls that would exceed it are not sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cycles.testing import FakeProvider

AGENT = Path(__file__).with_name("agent.py")
BUDGET = "0.05USD"
REPLIES = ((1_200, 800), (1_900, 1_000), (2_500, 1_000), (3_400, 1_000), (4_000, 1_000))
"""Input and output tokens of each reply."""


def main() -> int:
    """Return 0 if the agent was stopped by its budget and not by anything else."""
    with FakeProvider() as provider:
        for number, (read, written) in enumerate(REPLIES, start=1):
            provider.reply(text=f"Done ({number}).", usage={"tokens_input": read, "tokens_output": written})
        command = [sys.executable, "-m", "cycles", "run", "--budget", BUDGET, "--", sys.executable, str(AGENT)]
        shown = f"cycles run --budget {BUDGET} -- python examples/agent.py"
        print(f"$ {shown}", flush=True)
        environment = {**os.environ, "OPENAI_BASE_URL": provider.openai_url}
        ended = subprocess.run(command, env=environment, stderr=subprocess.STDOUT)
        print(flush=True)
        sent = provider.count("/chat/completions")
    return 0 if ended.returncode == 1 and 0 < sent < len(REPLIES) else 1


if __name__ == "__main__":
    sys.exit(main())
