"""Run one of the teams with a budget of 5 USD: ``python examples/sub_agents/run_team.py team.py``.

A fake provider on loopback responds, so that nothing is paid.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cycles.testing import FakeProvider

FOLDER = Path(__file__).parent
STARTS = {"team.py": [sys.executable], "team.mjs": ["node"], "team.sh": ["sh"]}


def main(team: str) -> int:
    """Return the exit status of the run."""
    worker = [sys.executable, str(FOLDER / "researcher.py")] if team != "team.py" else []
    with FakeProvider() as provider:
        provider.reply(usage={"tokens_input": 10, "tokens_output": 10_000}, times=200)
        command = [sys.executable, "-m", "cycles", "run", "--budget", "5USD", "--wait", "0", "--"]
        shown = f"{STARTS[team][0] if team != 'team.py' else 'python'} {team}"
        print(f"$ cycles run --budget 5USD --wait 0 -- {shown}", flush=True)
        environment = {**os.environ, "OPENAI_BASE_URL": provider.openai_url}
        program = [*command, *STARTS[team], str(FOLDER / team), *worker]
        return subprocess.run(program, env=environment, stderr=subprocess.STDOUT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
