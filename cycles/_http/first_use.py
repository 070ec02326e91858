"""A lock for what is imported and built at first use: a fork waits until it is free.

Another thread may import a module or build a client's parts while this one forks. The child would find the locks of
that moment held for ever. So first uses hold this lock, and so does a fork.
"""

from __future__ import annotations

import os
import threading
from typing import Final

first_use: Final = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=first_use.acquire, after_in_parent=first_use.release, after_in_child=first_use.release)
