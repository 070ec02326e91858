"""``python -m cycles`` is the command `cycles`."""

import sys

from cycles.cli import main

if __name__ == "__main__":
    sys.exit(main())
