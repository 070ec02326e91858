"""`python -m tests.operators.on_a_day 2026-11-30 reconcile ...` is `cycles reconcile ...` on that day."""

from __future__ import annotations

import sys
from datetime import date

from cycles.cli import main, reconcile

if __name__ == "__main__":
    day = date.fromisoformat(sys.argv[1])
    reconcile.today = lambda: day
    sys.exit(main(sys.argv[2:]))
