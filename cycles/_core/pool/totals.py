"""What the commit of a chunk reports beside its sums: its actions, its model, its first and its last end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cycles._core.pool.chunk_record import summed_metrics
from cycles._core.pool.sums import End, Totals

ACTIONS: Final = 20  # of one commit: the biggest ones
METADATA_BYTES: Final = 4_096
_MIXED: Final = object()


class ChunkAudit:
    """What the guards of one chunk did, for the audit of the server. No amount depends on it."""

    __slots__ = ("actions", "first_ms", "last_ms", "model", "released")

    def __init__(self) -> None:
        self.released: int = 0
        self.model: Any = None  # that of all guards; `_MIXED` if they differ
        self.actions: dict[str, tuple[int, int]] = {}
        self.first_ms: int | None = None
        self.last_ms: int | None = None

    def note(self, end: End) -> None:
        """Note the end of a guard. A second call changes nothing."""
        self.actions[end.action] = end.of_action
        self.last_ms = end.ended_ms
        if self.first_ms is None:
            self.first_ms = end.ended_ms
        if end.model is not None:
            self.model = end.model if self.model in (None, end.model) else _MIXED

    def metrics(self, totals: Totals) -> dict[str, Any]:
        """Return the metrics of the commit."""
        model = None if self.model is _MIXED else self.model
        return summed_metrics(totals, released=self.released, model=model)

    def metadata(self, calls: int, of_chunk: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of the commit: that of the chunk and the biggest actions, as many as fit into 4 KiB."""
        biggest = sorted(self.actions.items(), key=lambda item: -item[1][1])[:ACTIONS]
        sums = {"pool_calls": calls, "first_ms": self.first_ms, "last_ms": self.last_ms}
        metadata = {**of_chunk, **{name: value for name, value in sums.items() if value is not None}}
        while biggest:
            metadata["actions"] = dict(biggest)
            if len(json.dumps(metadata)) <= METADATA_BYTES:
                break
            biggest.pop()
            del metadata["actions"]
        return metadata
