"""When an idle connection may still be used: what the blocking and the asyncio side agree on."""

from __future__ import annotations

import select

KEEPALIVE_S = 30.0
"""Seconds an idle connection is kept: below the 60 s after which common load balancers drop one without a word."""


def has_something_to_say(descriptor: int) -> bool:
    """Whether an idle connection is readable. A server says nothing unasked, so that is its goodbye."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
