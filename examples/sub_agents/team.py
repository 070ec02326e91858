"""Twelve sub-agents share the budget of this run; each may spend at most 1 USD of it."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cycles

RESEARCHER = Path(__file__).with_name("researcher.py")


def work(number: int) -> None:
    with cycles.delegate(f"researcher-{number}", cycles.usd(1)) as share:
        subprocess.run([sys.executable, str(RESEARCHER)], env=share.environment, check=True, stdout=subprocess.DEVNULL)


with ThreadPoolExecutor(12) as pool:
    list(pool.map(work, range(1, 13)))
