"""`Secret`: bytes that contain the API key. Their repr hides them, because error trackers show variables."""

from __future__ import annotations


class Secret(bytes):
    """Bytes whose repr shows only their length."""

    def __repr__(self) -> str:
        return f"<{len(self)} secret bytes>"
