"""The lock of what the threads of a process share in its guarded clients. No request is sent while it is held.

A fork waits for it, because a child that was forked while another thread held it could never acquire it. A signal
handler that sends a request while this thread holds it acquires it again.
"""

from __future__ import annotations

import os
import threading
from typing import Final

shared: Final = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=shared.acquire, after_in_parent=shared.release, after_in_child=shared.release)
