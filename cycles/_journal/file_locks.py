"""The module `fcntl`, or None on systems without file locks (Windows)."""

from __future__ import annotations

import importlib
from typing import Any

fcntl: Any
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:
    fcntl = None
