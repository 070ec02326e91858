"""The short form of tests that try every point of a call, or many seeds: `make test` tries a part, `make check` all."""

from __future__ import annotations

import os
from typing import Final

IS_SHORT: Final = "SHORT_TESTS" in os.environ
